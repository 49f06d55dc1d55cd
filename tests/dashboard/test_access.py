"""Who may open and do what: every route by every role, and where forms must come from."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import sqlalchemy as sa

from app.dashboard.access import RULES, router
from app.security.models import Role
from app.tables import MAIN
from tests.dashboard.conftest import BASE, Browser, Stage
from tests.dashboard.seeds import PASSWORD, seed

ROUTES = sorted((method, route.path) for route in router.routes for method in route.methods)  # type: ignore[attr-defined]
POSTS = [path for method, path in ROUTES if method == "POST" and RULES[method, path] is not None]
PAGES = [path for method, path in ROUTES if method == "GET" and RULES[method, path] is not None]
_RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.OWNER: 2}


def address(path: str, stage: Stage, *, unknown: bool = False) -> str:
    """The route's path with ids of this workspace, or with ids that nothing has."""
    ids = {
        "request_id": stage.seeded.requests["on_hold"],
        "delivery_id": stage.seeded.archived_delivery_id,
        "destination_id": stage.seeded.destinations["webhook"],
        "task_id": stage.seeded.task_id,
        "site_id": stage.seeded.site_id,
        "number": "1",
        "key_id": stage.seeded.key_id,
        "admin_id": stage.seeded.viewer.id,
        "connector": "webhook",
    }
    return re.sub(r"\{(\w+)\}", lambda found: "nothing" if unknown else ids[found.group(1)], path)


async def digest(stage: Stage) -> str:
    """A digest over every row of the main database."""
    found = hashlib.sha256()
    async with stage.runtime.database.reading() as session:
        for table in MAIN.sorted_tables:
            rows = (
                await session.execute(sa.select(table).order_by(*table.primary_key.columns))
            ).all()
            found.update(repr([tuple(each) for each in rows]).encode())
    return found.hexdigest()


def test_every_route_has_a_rule_and_every_rule_a_route():
    assert set(ROUTES) == set(RULES)


async def test_every_page_opens_for_those_who_may_and_for_nobody_else(stage: Stage):
    people = {
        Role.OWNER: stage.seeded.owner,
        Role.OPERATOR: stage.seeded.operator,
        Role.VIEWER: stage.seeded.viewer,
    }
    for role, person in people.items():
        browser = await stage.signed_in(person)
        for path in PAGES:
            least = RULES["GET", path]
            assert least is not None
            answer = await browser.get(address(path, stage))
            wanted = 200 if _RANK[role] >= _RANK[least] else 403
            assert answer.status_code == wanted, f"{role} at {path}"


async def test_every_step_is_refused_to_smaller_roles(stage: Stage):
    """With ids that nothing has, so that for those who may nothing happens either."""
    people = {
        Role.OWNER: stage.seeded.owner,
        Role.OPERATOR: stage.seeded.operator,
        Role.VIEWER: stage.seeded.viewer,
    }
    for role, person in people.items():
        browser = await stage.signed_in(person)
        for path in POSTS:
            least = RULES["POST", path]
            assert least is not None
            if path == "/dashboard/sign-out" or path.startswith("/dashboard/account"):
                continue
            answer = await browser.post(address(path, stage, unknown=True))
            is_refused = "Your role does not include this" in answer.text
            assert is_refused == (_RANK[role] < _RANK[least]), (
                f"{role} at {path}: {answer.status_code}"
            )
            assert answer.status_code < 500


async def test_a_stranger_is_sent_to_sign_in(stage: Stage):
    browser = stage.new_browser()
    for path in PAGES:
        answer = await browser.get(address(path, stage))
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/dashboard/sign-in")
    for path in POSTS:
        assert (await browser.post(address(path, stage))).status_code == 303
    as_program = await browser.http.get("/dashboard", headers={"accept": "application/json"})
    assert as_program.status_code == 403
    assert as_program.headers["content-type"] == "application/problem+json"


FOREIGN: dict[str, tuple[dict[str, str], str | None]] = {
    "cross-site": ({"sec-fetch-site": "cross-site"}, None),
    "same-site": ({"sec-fetch-site": "same-site"}, None),
    "foreign origin": ({"origin": "https://evil.example"}, None),
    "null origin": ({"origin": "null", "sec-fetch-site": "cross-site"}, None),
    "no token": ({}, ""),
    "other token": ({}, "x" * 32),
}


async def test_dash_005_a_foreign_form_is_refused_everywhere(stage: Stage):
    browser = await stage.signed_in(stage.seeded.owner)
    token = browser.csrf
    before = await digest(stage)
    for name, (headers, csrf) in FOREIGN.items():
        browser.csrf = token if csrf is None else csrf
        for path in POSTS:
            answer = await browser.post(address(path, stage), headers=headers)
            assert answer.status_code == 403, f"{name} at {path}"
    assert await digest(stage) == before


async def test_a_form_that_hides_both_origin_and_site_is_refused(stage: Stage):
    browser = await stage.signed_in(stage.seeded.owner)
    answer = await browser.http.post(
        "/dashboard/sign-out", data={"csrf": browser.csrf}, headers={"accept": "text/html"}
    )
    assert answer.status_code == 403


async def test_dash_005_changes_are_not_made_by_get(stage: Stage):
    """Every page read by an owner, also with other methods: the database stays as it is."""
    browser = await stage.signed_in(stage.seeded.owner)
    before = await digest(stage)
    for path in PAGES:
        assert (await browser.get(address(path, stage))).status_code == 200
    for path in POSTS:
        if path not in PAGES:
            answer = await browser.get(address(path, stage))
            assert answer.status_code in {200, 404, 405}, path
    assert await digest(stage) == before


async def test_dash_007_another_workspace_is_not_there(stage: Stage):
    other = await seed(stage.runtime, stage.now, "Borealis")
    mine = stage.seeded
    stage.seeded = other
    browser = await stage.signed_in(mine.owner)
    before = await digest(stage)
    for method, path in ROUTES:
        if "_id}" not in path:
            continue
        call: Any = browser.get if method == "GET" else browser.post
        answer = await call(address(path, stage))
        assert answer.status_code in {404, 422}, f"{method} {path}: {answer.status_code}"
        assert "borealis" not in answer.text.lower()
    assert await digest(stage) == before


async def test_answers_are_not_kept_and_frame_nothing(stage: Stage):
    browser = await stage.signed_in(stage.seeded.owner)
    for path in PAGES:
        headers = (await browser.get(address(path, stage))).headers
        assert headers["cache-control"] == "no-store"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "base-uri 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-opener-policy"] == "same-origin"


async def test_pages_hold_no_inline_script_or_style(stage: Stage):
    """But for the preview's frame, which is the banner's script with a nonce of its own."""
    browser = await stage.signed_in(stage.seeded.owner)
    for path in PAGES:
        answer = await browser.get(address(path, stage))
        text = answer.text
        if path.endswith("/preview"):
            found = re.search(r"'nonce-([\w-]{20,})'", answer.headers["content-security-policy"])
            assert found
            text, ours = re.subn(rf'<script nonce="{found[1]}">.*?</script>', "", text, flags=re.S)
            assert ours == 1
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=\"|<script(?![^>]*\ssrc=)", text), path


async def test_a_link_on_another_site_leads_in_after_one_step(stage: Stage):
    """The strict cookie stays away at first; the page that answers asks again from here."""
    answer = await stage.new_browser().get(
        "/dashboard/requests", **{"sec-fetch-site": "cross-site"}
    )
    assert answer.status_code == 200
    assert 'content="0; url=/dashboard/requests"' in answer.text


async def test_rights_change_with_the_next_request(stage: Stage):
    owner = await stage.signed_in(stage.seeded.owner)
    operator = await stage.signed_in(stage.seeded.operator)
    assert (await operator.get("/dashboard/audit")).status_code == 200
    await owner.post(f"/dashboard/team/{stage.seeded.operator.id}/role", {"role": "viewer"})
    assert (await operator.get("/dashboard/audit")).status_code == 403
    await owner.post(f"/dashboard/team/{stage.seeded.operator.id}/disable")
    assert (await operator.get("/dashboard")).status_code == 303


async def test_errors_are_pages_where_a_person_looks_and_problems_elsewhere(stage: Stage):
    browser: Browser = await stage.signed_in(stage.seeded.viewer)
    page = await browser.get("/dashboard/requests/nothing")
    assert page.status_code == 404
    assert "There is nothing here" in page.text
    plain = await browser.http.get(
        "/dashboard/requests/nothing", headers={"accept": "application/json"}
    )
    assert plain.json()["type"] == "urn:quittance:problem:not-found"
    public = await browser.get("/privacy/site_x")
    assert public.status_code == 500
    assert "Something went wrong here" in public.text
    assert stage.seeded.viewer.email not in public.text


async def test_static_files_are_only_those_that_were_there(stage: Stage):
    browser = stage.new_browser()
    sheet = await browser.get("/dashboard/static/quittance.css")
    assert sheet.status_code == 200
    assert sheet.headers["content-type"].startswith("text/css")
    for path in ("../access.py", "%2e%2e/access.py", "vendor", "", "templates/base.html"):
        assert (await browser.get(f"/dashboard/static/{path}")).status_code == 404


async def test_sign_in_forms_of_other_sites_are_refused(stage: Stage):
    browser = stage.new_browser()
    token = await browser.form_token("/dashboard/sign-in")
    fields = {
        "form_token": token,
        "email": stage.seeded.owner.email,
        "password": PASSWORD,
        "code": "",
    }
    assert (
        await browser.post("/dashboard/sign-in", fields, {"origin": "https://evil.example"})
    ).status_code == 403
    elsewhere = stage.new_browser()
    assert (await elsewhere.post("/dashboard/sign-in", fields)).status_code == 403
    assert BASE.startswith("http:")
