"""Signing in and out, invitations, and steps that need the password again."""

from __future__ import annotations

import datetime as dt
import re

import pyotp
import pytest
import sqlalchemy as sa
from sqlmodel import col

from app.security import accounts, sessions
from app.security.models import Admin, AdminInvite, AdminSession, AuditEntry, Role
from tests.dashboard.conftest import Browser, Stage, StageMaker
from tests.dashboard.seeds import PASSWORD, seed_workspace


def soon(stage: Stage) -> dt.datetime:
    return dt.datetime.now(dt.UTC)


async def invitation(stage: Stage, *, is_demo: bool = False) -> str:
    workspace_id = await seed_workspace(stage.runtime, "Fresh", stage.now, is_demo=is_demo)
    async with stage.runtime.database.writing() as session:
        token = await accounts.create_invite(session, workspace_id, Role.OWNER, now=stage.now)
    return f"/dashboard/invite/{token}"


async def fields_of(browser: Browser, path: str) -> dict[str, str]:
    text = (await browser.get(path)).text
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', text))


def shown_secret(text: str) -> str:
    found = re.search(r'<code class="secret">([A-Z2-7 ]+)</code>', text)
    assert found
    return found.group(1).replace(" ", "")


async def test_password_and_code_lead_in(stage: Stage):
    browser = stage.new_browser()
    owner = stage.seeded.owner
    answer = await browser.sign_in(owner, PASSWORD, owner.code(soon(stage)))
    assert answer.status_code == 303
    assert answer.headers["location"] == "/dashboard"
    assert "alice@aurora.example" in (await browser.get("/dashboard")).text


@pytest.mark.parametrize("wrong", ["email", "password", "code", "no code"])
async def test_every_wrong_answer_looks_the_same(stage: Stage, wrong: str):
    browser = stage.new_browser()
    owner = stage.seeded.owner
    token = await browser.form_token("/dashboard/sign-in")
    code = owner.code(soon(stage))
    fields = {
        "form_token": token,
        "next": "",
        "email": "nobody@aurora.example" if wrong == "email" else owner.email,
        "password": "wrong wrong wrong" if wrong == "password" else PASSWORD,
        "code": {"code": "000000", "no code": ""}.get(wrong, code),
    }
    answer = await browser.post("/dashboard/sign-in", fields)
    assert answer.status_code == 422
    assert "That did not match" in answer.text
    assert sessions.cookie_name(stage.runtime.settings) not in answer.cookies


async def test_auth_001_the_session_id_is_new_at_sign_in(stage: Stage):
    browser = stage.new_browser()
    name = sessions.cookie_name(stage.runtime.settings)
    browser.http.cookies.set(name, "planted-by-somebody-else", domain="127.0.0.1")
    owner = stage.seeded.owner
    await browser.sign_in(owner, PASSWORD, owner.code(soon(stage)))
    given = browser.http.cookies.get(name, domain="127.0.0.1") or ""
    assert len(given) >= 22
    assert "planted" not in {
        each.value for each in browser.http.cookies.jar if len(each.value or "") > 30
    }
    intruder = stage.new_browser()
    intruder.http.cookies.set(name, "planted-by-somebody-else", domain="127.0.0.1")
    assert (await intruder.get("/dashboard")).status_code == 303


async def test_the_cookie_is_strict_and_pinned_to_the_host_under_https(new_stage: StageMaker):
    stage = await new_stage(base_url="https://privacy.aurora.example")
    browser = stage.new_browser()
    page = await browser.get("/dashboard/sign-in")
    token = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert token
    owner = stage.seeded.owner
    answer = await browser.post(
        "/dashboard/sign-in",
        {
            "form_token": token.group(1),
            "email": owner.email,
            "password": PASSWORD,
            "code": owner.code(soon(stage)),
        },
        {"origin": "https://privacy.aurora.example"},
    )
    cookie = next(
        each
        for each in answer.headers.get_list("set-cookie")
        if each.startswith("__Host-quittance=")
    )
    for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=strict"):
        assert attribute in cookie
    assert "Domain" not in cookie


async def test_dash_013_after_signing_out_the_session_is_dead_everywhere(stage: Stage):
    browser = await stage.signed_in(stage.seeded.viewer)
    cookie = browser.http.cookies.get("quittance")
    other_tab = stage.new_browser()
    other_tab.http.cookies.set("quittance", cookie or "", domain="127.0.0.1")
    assert (await other_tab.get("/dashboard")).headers["cache-control"] == "no-store"
    assert (await browser.post("/dashboard/sign-out")).status_code == 303
    assert (await other_tab.get("/dashboard")).status_code == 303
    async with stage.runtime.database.reading() as session:
        assert (await session.execute(sa.select(AdminSession))).first() is None


async def test_guessing_is_slowed_by_account_and_by_address(new_stage: StageMaker):
    stage = await new_stage(trusted_proxies="127.0.0.1/32", login_per_minute=3)

    async def try_from(address: str, email: str) -> int:
        browser = stage.new_browser()
        token = await browser.form_token("/dashboard/sign-in")
        fields = {
            "form_token": token,
            "email": email,
            "password": "wrong wrong wrong",
            "code": "000000",
        }
        answer = await browser.post("/dashboard/sign-in", fields, {"x-forwarded-for": address})
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) > 0
        return answer.status_code

    one_account = [await try_from(f"192.0.2.{each}", "alice@aurora.example") for each in range(5)]
    assert one_account == [422, 422, 422, 429, 429]
    one_address = [await try_from("192.0.2.99", f"user{each}@aurora.example") for each in range(5)]
    assert one_address == [422, 422, 422, 429, 429]


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/dashboard//evil",
        "/dashboard\\@evil",
        "/v1/keys",
        "javascript:1",
    ],
)
async def test_after_signing_in_nobody_is_led_elsewhere(stage: Stage, target: str):
    browser = stage.new_browser()
    owner = stage.seeded.owner
    token = await browser.form_token("/dashboard/sign-in")
    answer = await browser.post(
        "/dashboard/sign-in",
        {
            "form_token": token,
            "email": owner.email,
            "password": PASSWORD,
            "code": owner.code(soon(stage)),
            "next": target,
        },
    )
    assert answer.headers["location"] == "/dashboard"


async def test_an_invitation_leads_from_the_link_into_the_dashboard(stage: Stage):
    path = await invitation(stage)
    browser = stage.new_browser()
    page = await browser.get(path)
    assert "<svg" in page.text
    secret = shown_secret(page.text)
    chosen = {
        "email": "carol@fresh.example",
        "new_password": PASSWORD,
        "code": pyotp.TOTP(secret).at(soon(stage)),
    }
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    answer = await browser.post(path, {**hidden, **chosen})
    assert answer.status_code == 303
    assert "carol@fresh.example" in (await browser.get("/dashboard")).text
    again = await stage.new_browser().get(path)
    assert again.status_code == 404
    assert "used up" in again.text


async def test_showing_an_invitation_uses_nothing_up(stage: Stage):
    path = await invitation(stage)
    first, second = [await stage.new_browser().get(path) for _ in range(2)]
    assert first.status_code == second.status_code == 200
    assert shown_secret(first.text) != shown_secret(second.text)
    async with stage.runtime.database.reading() as session:
        used = await session.execute(
            sa.select(AdminInvite).where(col(AdminInvite.used_at).is_(None))
        )
        assert len(used.all()) == 1


async def test_auth_005_a_weak_password_is_refused_over_http_and_the_link_lives_on(stage: Stage):
    path = await invitation(stage)
    browser = stage.new_browser()
    page = await browser.get(path)
    hidden = await fields_of(browser, path)
    secret = shown_secret(page.text)
    weak = {
        "email": "carol@fresh.example",
        "new_password": "password1234",
        "code": pyotp.TOTP(secret).at(soon(stage)),
    }
    answer = await browser.post(path, {**hidden, **weak})
    assert answer.status_code == 422
    assert "too easy to guess" in answer.text
    assert "password1234" not in answer.text
    assert (await stage.new_browser().get(path)).status_code == 200


async def test_the_demo_may_be_entered_without_a_second_factor_and_says_so(stage: Stage):
    path = await invitation(stage, is_demo=True)
    browser = stage.new_browser()
    assert "without a second factor" in (await browser.get(path)).text
    answer = await browser.post(
        path,
        {
            **await fields_of(browser, path),
            "email": "dora@fresh.example",
            "new_password": PASSWORD,
            "code": "",
        },
    )
    assert answer.status_code == 303
    assert (await browser.get("/dashboard")).status_code == 200


async def test_outside_the_demo_nobody_enters_without_a_second_factor(stage: Stage):
    path = await invitation(stage)
    browser = stage.new_browser()
    fields = {
        **await fields_of(browser, path),
        "email": "dora@fresh.example",
        "new_password": PASSWORD,
        "code": "",
    }
    assert (await browser.post(path, fields)).status_code == 422
    async with stage.runtime.database.reading() as session:
        found = await session.execute(
            sa.select(Admin).where(col(Admin.email) == "dora@fresh.example")
        )
        assert found.first() is None


async def test_auth_011_there_is_no_set_up_page_beside_the_link(stage: Stage):
    browser = stage.new_browser()
    for path in (
        "/dashboard/setup",
        "/dashboard/invite/",
        "/dashboard/invite/guess",
        "/dashboard/register",
    ):
        assert (await browser.get(path)).status_code == 404


async def test_keys_need_the_password_again_after_ten_minutes(stage: Stage):
    browser = await stage.signed_in(stage.seeded.owner)
    async with stage.runtime.database.writing() as session:
        await session.execute(
            sa.update(AdminSession).values(authenticated_at=stage.now - dt.timedelta(minutes=11))
        )
    wanted = {"name": "Till", "scopes": "requests:read", "lifetime": "30"}
    assert 'name="password"' in (await browser.get("/dashboard/keys")).text
    for password, told in {
        "": "Your password is needed once more",
        "wrong wrong wrong": "That is not your present password",
    }.items():
        refused = await browser.post("/dashboard/keys", {**wanted, "password": password})
        assert told in refused.text
        assert refused.status_code == 403
        assert "qt_" not in refused.text.replace("qt_J", "").split("shown-once")[-1][:60]
    made = await browser.post("/dashboard/keys", {**wanted, "password": PASSWORD})
    assert made.status_code == 200
    assert re.search(r'shown-once">qt_\w{46}<', made.text)
    assert (await browser.post("/dashboard/keys", {**wanted, "name": "Second"})).status_code == 200


async def test_changing_the_password_signs_the_other_browsers_out(stage: Stage):
    here, there = [await stage.signed_in(stage.seeded.viewer) for _ in range(2)]
    new = "another evening, less calm"
    refused = await here.post(
        "/dashboard/account/password", {"password": "wrong", "new_password": new}
    )
    assert refused.status_code == 403
    assert (
        await here.post("/dashboard/account/password", {"password": PASSWORD, "new_password": new})
    ).status_code == 303
    assert (await here.get("/dashboard")).status_code == 200
    assert (await there.get("/dashboard")).status_code == 303


async def test_what_was_done_stands_in_the_audit_log(stage: Stage):
    browser = stage.new_browser()
    owner = stage.seeded.owner
    await browser.sign_in(owner, PASSWORD, owner.code(soon(stage)))
    await browser.post(
        "/dashboard/keys", {"name": "Till", "scopes": "requests:read", "lifetime": ""}
    )
    async with stage.runtime.database.reading() as session:
        rows = await session.execute(
            sa.select(col(AuditEntry.verb)).where(col(AuditEntry.actor) == f"admin:{owner.id}")
        )
        verbs = {verb for (verb,) in rows}
    assert {"sign_in", "create_key", "create_account"} <= verbs
    assert "Create key" in (await browser.get("/dashboard/audit")).text
