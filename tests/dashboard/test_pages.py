"""What the pages show and what their forms do."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
import time
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from sqlmodel import col
from starlette.datastructures import FormData

from app.core.clock import utc_now
from app.core.ids import new_id
from app.core.sheets import cell
from app.dashboard.views import lists, schema_forms
from app.dashboard.views.charts import nice_top
from app.dashboard.views.requests import flat, masked
from app.delivery.models import Archived, Ready, VirtualQueue
from app.delivery.order import BOOSTED
from app.destinations.catalogue import Catalogue, description
from app.destinations.models import Destination, HumanTask
from app.identity.models import PersonalValue
from app.notifications import alerts
from app.notifications.alerts import Found, Kind
from app.security.models import AdminSession, ApiKey, AuditEntry, Role
from app.sites.config import SiteConfig
from app.sites.models import NoticeVersion, Site
from app.subject_requests.models import SubjectRequest
from tests.dashboard.conftest import Stage
from tests.dashboard.fields import form_fields, publish
from tests.dashboard.seeds import BOB, HOSTILE, seed_person, seed_workspace
from tests.identity.hosts import Host


async def request_of(stage: Stage, case: str) -> SubjectRequest:
    async with stage.runtime.database.reading() as session:
        return await session.get_one(SubjectRequest, stage.seeded.requests[case])


async def verbs(stage: Stage, target: str) -> set[str]:
    async with stage.runtime.database.reading() as session:
        rows = await session.execute(
            sa.select(col(AuditEntry.verb)).where(col(AuditEntry.target) == target)
        )
        return {verb for (verb,) in rows}


async def test_the_overview_says_what_is_late_failing_or_waiting(stage: Stage):
    browser = await stage.signed_in(stage.seeded.viewer)
    text = (await browser.get("/dashboard")).text
    assert "1 request overdue, 3 failing, 4 waiting for you, 2 due within 72 hours." in text
    assert "Parked" in text
    assert stage.seeded.requests["overdue"] in text


async def test_an_empty_workspace_says_what_to_do_next(stage: Stage):
    workspace_id = await seed_workspace(stage.runtime, "Blank", stage.now)
    person = await seed_person(
        stage.runtime, workspace_id, "eve@blank.example", Role.OWNER, stage.now
    )
    browser = await stage.signed_in(person)
    assert "Nothing is late, failing or waiting for you." in (await browser.get("/dashboard")).text
    for page, words in {
        "requests": "No requests yet",
        "destinations": "No destinations yet",
        "sites": "No sites yet",
        "tasks": "Nothing waits for a hand",
        "alerts": "All is well",
        "consent": "No choices in this period",
        "keys": "No keys yet",
        "suppressions": "Nobody is suppressed",
    }.items():
        assert words in (await browser.get(f"/dashboard/{page}")).text


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (
            "status=open",
            {
                "overdue",
                "answer",
                "on_hold",
                "awaiting_approval",
                "in_progress",
                "resolving",
                "cooling_off",
                "awaiting_verification",
            },
        ),
        ("status=overdue", {"overdue"}),
        ("status=soon", {"answer", "awaiting_approval"}),
        ("status=answer", {"answer"}),
        ("status=denied", {"denied"}),
        ("kind=access", {"answer", "denied"}),
        ("regime=lgpd", {"expired"}),
        ("regime=ccpa&status=open", {"overdue"}),
        ("kind=opt_out", set()),
    ],
)
async def test_filters(stage: Stage, query: str, wanted: set[str]):
    browser = await stage.signed_in(stage.seeded.viewer)
    text = (await browser.get(f"/dashboard/requests?{query}")).text
    assert {case for case, each in stage.seeded.requests.items() if each in text} == wanted


async def test_dash_001_hostile_names_are_text(stage: Stage):
    browser = await stage.signed_in(stage.seeded.owner)
    await browser.post("/dashboard/sites", {"name": HOSTILE, "origins": "https://x.example"})
    for path in (
        "",
        "/destinations",
        "/sites",
        f"/destinations/{stage.seeded.destinations['webhook']}",
        f"/requests/{stage.seeded.requests['denied']}",
        f"/requests/{stage.seeded.requests['overdue']}",
    ):
        text = (await browser.get(f"/dashboard{path}")).text
        assert HOSTILE not in text
        assert "&lt;img src=x onerror=alert(1)&gt;" in text


async def test_dash_003_search_is_literal_and_bounded(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    values = [
        "' OR 1=1 --",
        "%",
        "_",
        "x" * 10_240,
        "(a+)+$",
        "a\x00b",
        "\ufffd\u202e",
        "",
        "<script>",
    ]
    for kind in ("user_id", "email", "phone", "no such kind!"):
        for value in values:
            started = time.perf_counter()
            answer = await browser.post(
                "/dashboard/requests/search", {"kind": kind, "value": value}
            )
            assert time.perf_counter() - started < 5
            assert answer.status_code in {200, 422}, f"{kind} {value!r}"
            if answer.status_code == 200:
                assert "/dashboard/requests/req_" not in answer.text


async def test_search_finds_a_person_by_any_spelling(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    answer = await browser.post(
        "/dashboard/requests/search", {"kind": "email", "value": f" {BOB.upper()} "}
    )
    found = {case for case, each in stage.seeded.requests.items() if each in answer.text}
    assert found == {"completed", "cancelled", "on_hold", "awaiting_approval", "in_progress"}
    assert BOB not in answer.text


async def test_dash_009_export_holds_no_formulas(stage: Stage):
    browser = await stage.signed_in(stage.seeded.viewer)
    answer = await browser.get("/dashboard/requests.csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == len(stage.seeded.requests)
    assert all(
        value[:1] not in {"=", "+", "-", "@", "\t"} for row in rows for value in row.values()
    )
    assert any(row["denial_note"] == f"'=cmd {HOSTILE}" for row in rows)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\x00x"])
def test_dash_009_cells_are_prefixed(text: str):
    assert cell(text) == f"'{text}"


async def test_dash_011_pages_go_on_by_key_and_never_repeat(stage: Stage):
    """Sixty requests more: three pages, each found by the place where the last one ended."""
    template = (await request_of(stage, "completed")).model_dump()
    async with stage.runtime.database.writing() as session:
        rows = [{**template, "id": new_id("req", 1_700_000_000 + each)} for each in range(60)]
        await session.execute(sa.insert(SubjectRequest), rows)
    browser = await stage.signed_in(stage.seeded.viewer)
    seen: list[str] = []
    path = "/dashboard/requests?kind=erasure"
    for _ in range(10):
        text = (await browser.get(path)).text
        found = list(dict.fromkeys(re.findall(r"/dashboard/requests/(req_\w+)", text)))
        assert len(found) <= 25
        seen += found
        link = re.search(r'href="([^"]+)" rel="next"', text)
        if not link:
            break
        path = link.group(1).replace("&amp;", "&")
    assert (
        len(seen)
        == len(set(seen))
        == 60 + sum(1 for case in stage.seeded.requests if case not in {"denied", "answer"})
    )
    forged = await browser.get("/dashboard/requests?cursor=WyJ4Il0.forged")
    assert forged.status_code == 422
    other_filter = path.replace("kind=erasure", "kind=access")
    assert (await browser.get(other_filter)).status_code == 422


async def test_identifiers_are_masked_until_a_logged_reveal(stage: Stage):
    request_id = stage.seeded.requests["on_hold"]
    operator = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/requests/{request_id}"
    masked_page = (await operator.get(path)).text
    assert BOB not in masked_page
    assert "b•••@c•••.example" in masked_page
    assert "reveal_identifiers" not in await verbs(stage, request_id)
    shown = await operator.post(f"{path}/reveal")
    assert BOB in shown.text
    assert "reveal_identifiers" in await verbs(stage, request_id)
    viewer = await stage.signed_in(stage.seeded.viewer)
    assert "b•••" not in (await viewer.get(path)).text
    assert (await viewer.post(f"{path}/reveal")).status_code == 403


@pytest.mark.parametrize("value", ["a@b.example", "usr-4711", "x", "+4930123456"])
def test_a_mask_hides_most_of_the_value(value: str):
    assert value not in masked(value)
    assert "•••" in masked(value)


async def test_a_long_suppression_list_is_not_counted_to_its_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    browser = await stage.signed_in(stage.seeded.viewer)
    whole = (await browser.get("/dashboard/suppressions")).text
    monkeypatch.setattr(lists, "COUNTED", 1)
    cut = (await browser.get("/dashboard/suppressions")).text

    assert "<h2>5 entries</h2>" in whole
    assert "<h2>More than 1 entry</h2>" in cut


async def test_operators_decide(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    ids = stage.seeded.requests
    steps: list[tuple[str, str, dict[str, Any], str]] = [
        ("awaiting_approval", "approve", {}, "resolving"),
        ("on_hold", "release", {}, "resolving"),
        ("cooling_off", "hold", {"reason": "case 15/26"}, "on_hold"),
        ("awaiting_verification", "cancel", {}, "cancelled"),
        ("resolving", "deny", {"reason": "excessive", "note": "Third time this week."}, "denied"),
    ]
    for case, step, fields, status in steps:
        answer = await browser.post(f"/dashboard/requests/{ids[case]}/{step}", fields)
        assert answer.status_code == 303, f"{step}: {answer.text}"
        assert (await request_of(stage, case)).status == status
    page = await browser.get(f"/dashboard/requests/{ids['cooling_off']}?notice=held")
    assert "case 15/26" in page.text
    assert "The request is on hold" in page.text


async def test_a_request_that_needs_approval_says_why_and_is_not_on_hold(stage: Stage):
    path = f"/dashboard/requests/{stage.seeded.requests['awaiting_approval']}"
    operator = (await (await stage.signed_in(stage.seeded.operator)).get(path)).text
    viewer = (await (await stage.signed_in(stage.seeded.viewer)).get(path)).text
    why = "<strong>Needs approval:</strong> more identifiers than usual were found."

    assert f"{why} Approve or deny below." in operator
    assert f"{why} An operator approves or denies it." in viewer
    assert "On hold." not in operator
    assert "too_many" not in operator
    held = f"/dashboard/requests/{stage.seeded.requests['on_hold']}"
    assert (
        "<strong>On hold.</strong> Legal hold: case 14/26"
        in (await (await stage.signed_in(stage.seeded.viewer)).get(held)).text
    )


async def test_a_page_without_deliveries_says_why(stage: Stage):
    browser = await stage.signed_in(stage.seeded.viewer)
    for case, words in {
        "answer": "a request of this kind is answered by hand",
        "cancelled": "no destination was asked",
        "resolving": "deliveries appear once the request is verified",
    }.items():
        assert (
            words in (await browser.get(f"/dashboard/requests/{stage.seeded.requests[case]}")).text
        )


def test_laws_and_languages_keep_their_capitals():
    said = flat({"regime": "uk_gdpr", "connector": "sql", "by": "api_key", "why": "gave_up"})
    assert said == "Regime: UK GDPR, Connector: SQL, By: API key, Why: gave up"


async def test_a_step_that_does_not_fit_says_so_on_the_page(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/requests/{stage.seeded.requests['completed']}"
    answer = await browser.post(f"{path}/approve")
    assert answer.status_code == 409
    assert "not in a state that allows this" in answer.text
    assert "Timeline" in answer.text
    held = f"/dashboard/requests/{stage.seeded.requests['cooling_off']}"
    assert (await browser.post(f"{held}/hold", {"reason": " "})).status_code == 422
    assert (await browser.post(f"{held}/extend", {"reason": "x", "days": "-3"})).status_code == 422
    assert (await browser.post(f"{held}/extend", {"reason": "x", "days": "300"})).status_code == 422
    assert (await browser.post(f"{held}/deny", {"reason": "because"})).status_code == 422
    assert (await request_of(stage, "cooling_off")).status == "cooling_off"


async def test_only_steps_that_fit_are_offered(stage: Stage):
    operator = await stage.signed_in(stage.seeded.operator)
    viewer = await stage.signed_in(stage.seeded.viewer)
    for case, offered in {
        "awaiting_approval": "approve",
        "on_hold": "release",
        "answer": "answer",
    }.items():
        path = f"/dashboard/requests/{stage.seeded.requests[case]}"
        assert f'action="{path}/{offered}"' in (await operator.get(path)).text
        assert 'class="card stacked' not in (await viewer.get(path)).text
    done = await operator.get(f"/dashboard/requests/{stage.seeded.requests['completed']}")
    assert "Decide" not in done.text


async def test_an_answer_is_sealed_and_completes_the_request(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/requests/{stage.seeded.requests['answer']}/answer"
    assert (await browser.post(path, {"text": " "})).status_code == 422
    copy = {"file": ("copy.json", b'{"orders": 3}', "application/json")}
    assert (await browser.post(path, {"text": "Your copy."}, files=copy)).status_code == 303
    assert (await request_of(stage, "answer")).status == "completed"
    assert (await browser.post(path, {"text": "Again."})).status_code == 409
    async with stage.runtime.database.reading() as session:
        rows = await session.execute(
            sa.select(col(PersonalValue.sealed)).where(col(PersonalValue.purpose) == "answer")
        )
        sealed = [each for (each,) in rows]
    assert len(sealed) == 2
    assert not any(b"orders" in each or b"Your copy" in each for each in sealed)


@pytest.mark.parametrize("step", ["replay", "waive"])
async def test_an_archived_delivery_is_replayed_or_waived(stage: Stage, step: str):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/deliveries/{stage.seeded.archived_delivery_id}/{step}"
    if step == "waive":
        assert (await browser.post(path, {"reason": ""})).status_code == 422
    answer = await browser.post(path, {"reason": "The vendor closed"})
    assert answer.status_code == 303, answer.text
    assert step in await verbs(stage, stage.seeded.archived_delivery_id)
    assert (await browser.post(path, {"reason": "Again"})).status_code == 409


async def test_a_trace_shows_every_step(stage: Stage):
    browser = await stage.signed_in(stage.seeded.viewer)
    text = (await browser.get(f"/dashboard/requests/{stage.seeded.requests['overdue']}")).text
    assert "HTTP 503" in text
    assert "read back, nothing left" in text
    assert "4 steps, 3 attempts" in text


async def test_queues_are_paused_and_resumed(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    destination_id = stage.seeded.destinations["webhook"]
    path = f"/dashboard/destinations/{destination_id}"

    async def is_paused() -> bool:
        async with stage.runtime.database.reading() as session:
            return (await session.get_one(VirtualQueue, destination_id)).is_paused

    assert (await browser.post(f"{path}/queue", {"action": "pause"})).status_code == 303
    assert await is_paused()
    assert "Somebody paused it" in (await browser.get(path)).text
    for action in ("resume", "boost", "flush"):
        assert (await browser.post(f"{path}/queue", {"action": action})).status_code == 303
    assert not await is_paused()
    assert (await browser.post(f"{path}/queue", {"action": "drop"})).status_code == 422
    assert "queue_pause" in await verbs(stage, destination_id)


async def test_a_destination_is_added_from_its_schema_and_edited(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    form = (await browser.get("/dashboard/destinations/new/manual")).text
    assert 'name="set.instructions"' in form
    made = await browser.post(
        "/dashboard/destinations/new/manual",
        {
            "name": "Cellar",
            "set.instructions": "Look.",
            "set.assignee": "",
            "enabled": "on",
            "kinds": ["erasure"],
        },
    )
    assert made.status_code == 303, made.text
    path = made.headers["location"].partition("?")[0]
    async with stage.runtime.database.reading() as session:
        destination = await session.get_one(Destination, path.rpartition("/")[2])
    assert destination.settings == {"instructions": "Look."}
    assert destination.kinds == ["erasure"]
    saved = await browser.post(
        path, {"name": "Deep cellar", "set.instructions": "Look twice.", "enabled": "on"}
    )
    assert saved.status_code == 303
    text = (await browser.get(path)).text
    assert "Deep cellar" in text
    assert "Look twice." in text
    wrong = await browser.post(
        "/dashboard/destinations/new/manual", {"name": "Other", "set.instructions": ""}
    )
    assert wrong.status_code == 422
    assert 'value="Other"' in wrong.text
    assert (await browser.post(f"{path}/delete")).status_code == 303
    assert (await browser.get(path)).status_code == 404


async def test_secrets_are_write_only(stage: Stage):
    browser = await stage.signed_in(stage.seeded.owner)
    path = f"/dashboard/destinations/{stage.seeded.destinations['sql']}"
    text = (await browser.get(path)).text
    assert "sqlite:///x" not in text
    assert "kept; type to replace it" in text
    wrong = await browser.post(
        path, {"name": "Db", "set.url": "postgresql://u:hunter2hunter2@db/x", "set.tables": "[{"}
    )
    assert wrong.status_code == 422
    assert "hunter2" not in wrong.text


async def test_typing_a_secret_needs_a_fresh_password(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    async with stage.runtime.database.writing() as session:
        await session.execute(
            sa.update(AdminSession).values(authenticated_at=stage.now - dt.timedelta(hours=1))
        )
    fields = {
        "name": "Hook",
        "set.url": "https://mail.example/h",
        "set.signing_secret": "whsec_" + "A" * 32,
        "enabled": "on",
    }
    answer = await browser.post("/dashboard/destinations/new/webhook", fields)
    assert answer.status_code == 403
    assert "password is needed once more" in answer.text


async def test_human_tasks_are_ticked_off_once(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/tasks/{stage.seeded.task_id}"
    revealed = await browser.post(f"{path}/reveal")
    assert BOB in revealed.text
    assert (await browser.post(path, {"answer": "maybe"})).status_code == 422
    assert (await browser.post(path, {"answer": "done", "note": "Shredded"})).status_code == 303
    again = await browser.post(path, {"answer": "absent"})
    assert again.status_code == 409
    async with stage.runtime.database.reading() as session:
        task = await session.get_one(HumanTask, stage.seeded.task_id)
    assert (task.state, task.note, task.closed_by) == (
        "done",
        "Shredded",
        f"admin:{stage.seeded.operator.id}",
    )


async def test_a_site_is_edited_published_and_previewed(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/sites/{stage.seeded.site_id}"
    fields = form_fields((await browser.get(path)).text)
    fields |= {
        "t.title": "Your choice at Aurora",
        "p4.id": "surveys",
        "p4.name": "Surveys",
        "accent": "#112233",
    }
    saved = await browser.post(path, fields)
    assert saved.status_code == 303, saved.text
    async with stage.runtime.database.reading() as session:
        site = await session.get_one(Site, stage.seeded.site_id)
    assert site.draft["texts"] == {"en": {"title": "Your choice at Aurora"}}
    assert [each["id"] for each in site.draft["purposes"]][-1] == "surveys"
    assert site.draft["theme"]["accent"] == "#112233"
    assert "Unpublished changes" in (await browser.get(path)).text
    preview = await browser.get(f"{path}/preview?lang=en&region=DE")
    assert "frame-ancestors 'self'" in preview.headers["content-security-policy"]
    assert (await publish(browser, path)).status_code == 303
    async with stage.runtime.database.reading() as session:
        versions = await session.execute(
            sa.select(col(NoticeVersion.number)).where(col(NoticeVersion.site_id) == site.id)
        )
        assert {number for (number,) in versions} == {1, 2}
    wrong = await browser.post(path, {**fields, "policy_url": "javascript:alert(1)"})
    assert wrong.status_code == 422
    assert "policy_url" in wrong.text
    assert 'title="Small letters, digits and _, a letter first, such as ad_partners"' in wrong.text
    wrong = await browser.post(path, {**fields, "p4.id": "Surveys"})
    assert wrong.status_code == 422
    assert "up to 32 small letters, digits and _, a letter first" in wrong.text


async def test_saving_a_sites_form_as_it_was_shown_changes_nothing(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/sites/{stage.seeded.site_id}"
    draft = SiteConfig.model_validate(
        {
            "purposes": [
                {"id": "necessary", "required": True},
                {"id": "analytics", "sensitive": True},
                {"id": "advertising", "denied_by_gpc": True},
            ],
            "mapping": {"ad_storage": "advertising"},
            "trackers": [
                {"kind": "host", "pattern": "*.stats.example", "purpose": "analytics"},
                {"kind": "cookie", "pattern": "_ga*", "purpose": "analytics", "http_only": True},
                {"kind": "storage", "pattern": "uid", "purpose": "analytics"},
            ],
            "tags": [
                {"src": "https://stats.example/s.js?id=1", "purpose": "analytics"},
                {"src": "https://ads.example/a.js", "purpose": "advertising", "load": "async"},
            ],
            "modules": ["consent_mode", "migrate"],
            "consent_mode": {
                "wait_ms": 800,
                "granted_in": ["US-CA"],
                "redacts_ads": False,
                "passes_urls_through": True,
            },
            "texts": {"en": {"receipt": "Keep a receipt", "title": "Your choice"}},
            "first_party": "https://privacy.shop.example",
        }
    ).model_dump(mode="json")
    async with stage.runtime.database.writing() as session:
        (await session.get_one(Site, stage.seeded.site_id)).draft = draft

    shown = (await browser.get(path)).text
    assert ".js&#34;&gt;&lt;/script&gt;" in shown, "not async: it holds a host back"
    assert (await browser.post(path, form_fields(shown))).status_code == 303

    async with stage.runtime.database.reading() as session:
        assert (await session.get_one(Site, stage.seeded.site_id)).draft == draft
    assert "wait_for_update:800" in shown  # Google's stub, to be copied
    for field, text, told in (
        ("trackers", "_ga = analytics", "not `_ga = analytics`"),
        ("tags", "https://stats.example/s.js analytics", "Scripts: write"),
        ("granted_in", "Texas", "consent_mode.granted_in.0"),
        ("granted_in", "US-CA, BR-SP", "names BR-SP, where visitors of this site are asked first"),
        ("wait_ms", "soon", "give a whole number"),
    ):
        wrong = await browser.post(path, form_fields(shown) | {field: text})
        assert (wrong.status_code, told in wrong.text) == (422, True), field


async def test_a_site_believes_a_host_until_it_is_taken_away(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/sites/{stage.seeded.site_id}"
    host = Host()

    async def believed() -> Any:
        async with stage.runtime.database.reading() as session:
            return (await session.get_one(Site, stage.seeded.site_id)).host_identity

    given = {"issuer": host.issuer, "jwks_url": "", "jwks": json.dumps(host.jwks)}
    assert (await browser.post(f"{path}/host", given)).status_code == 303
    kept = await believed()
    assert kept["jwks"]["keys"][0]["kid"] == host.kid
    shown = (await browser.get(path)).text
    assert host.issuer in shown
    assert host.kid in shown
    assert "Unpublished changes" not in shown

    private = json.dumps({"keys": [host.jwk | {"d": "AAAA"}]})
    for wrong in (
        given | {"issuer": ""},
        given | {"jwks": "{"},
        given | {"jwks": private},
        given | {"jwks": "", "jwks_url": "https://127.0.0.1/keys"},
    ):
        refused = await browser.post(f"{path}/host", wrong)
        assert refused.status_code == 422
        assert await believed() == kept

    await browser.post(f"{path}/host", {"issuer": "", "jwks_url": "", "jwks": ""})
    assert await believed() is None


async def test_saving_an_unchanged_site_changes_nothing(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/sites/{stage.seeded.site_id}"
    for language in ("en", "de"):
        fields = form_fields((await browser.get(f"{path}?lang={language}")).text)
        assert (await browser.post(path, fields)).status_code == 303
    assert "Unpublished changes" not in (await browser.get(path)).text


async def test_a_first_party_host_is_set_without_publishing(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/sites/{stage.seeded.site_id}"
    fields = form_fields((await browser.get(path)).text)
    assert fields["first_party"] == [""]
    named = fields | {"first_party": "https://Privacy.Aurora.example/"}
    assert (await browser.post(path, named)).status_code == 303
    text = (await browser.get(path)).text
    assert form_fields(text)["first_party"] == ["https://privacy.aurora.example"]
    assert "Unpublished changes" not in text
    wrong = await browser.post(path, fields | {"first_party": "http://aurora.example"})
    assert wrong.status_code == 422
    assert "first_party" in wrong.text


async def test_a_field_of_the_editor_takes_as_much_as_the_draft_does(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/sites/{stage.seeded.site_id}"
    text = (await browser.get(path)).text
    for name, limit in (
        ("controller_contact", 300),
        ("controller_name", 120),
        ("policy_url", 500),
        ("t.title", 120),
        ("t.body", 2000),
        ("t.expired", 600),
        ("p0.name", 120),
        ("p0.description", 600),
    ):
        assert re.search(f'name="{re.escape(name)}"[^>]* maxlength="{limit}"', text), name
        fits, over = ("https://x.example/".ljust(each, "x") for each in (limit, limit + 1))
        saved = await browser.post(path, form_fields(text) | {name: fits})
        assert saved.status_code == 303, name
        assert (await browser.post(path, form_fields(text) | {name: over})).status_code == 422, name


async def test_consent_is_counted_and_found_by_id(stage: Stage):
    browser = await stage.signed_in(stage.seeded.viewer)
    text = (await browser.get("/dashboard/consent?days=14")).text
    assert text.count("<title>") == 15  # the page's own and one per day
    assert re.search(r"Accepted all <strong>\d+ %", text)
    record = await browser.post("/dashboard/consent", {"consent_id": stage.seeded.consent_id})
    assert "version 1" in record.text
    assert (
        "There is no record"
        in (await browser.post("/dashboard/consent", {"consent_id": "con_x' --"})).text
    )


async def test_a_revoked_key_is_shown_as_such(stage: Stage):
    browser = await stage.signed_in(stage.seeded.owner)
    assert (await browser.post(f"/dashboard/keys/{stage.seeded.key_id}/revoke")).status_code == 303
    assert "Revoked" in (await browser.get("/dashboard/keys")).text


@pytest.mark.parametrize(
    ("hours", "words"), [(0, "within the last hour"), (0.9, "within the last hour"), (2, "2 hours")]
)
async def test_when_a_key_was_used_is_told_no_finer_than_it_is_known(
    stage: Stage, hours: float, words: str
):
    async with stage.runtime.database.writing() as session:
        key = await session.get_one(ApiKey, stage.seeded.key_id)
        key.last_used_at = utc_now() - dt.timedelta(hours=hours)
    text = (await (await stage.signed_in(stage.seeded.owner)).get("/dashboard/keys")).text

    cell = text.partition('data-label="Last used">')[2].partition("</td>")[0]
    assert words in cell
    assert "minute" not in cell


async def test_a_closed_request_is_not_called_due(stage: Stage):
    text = (await (await stage.signed_in(stage.seeded.viewer)).get("/dashboard/requests")).text
    row = text.partition(stage.seeded.requests["completed"])[2].partition("</tr>")[0]

    assert "closed" in row
    assert "Due" not in row


async def test_an_owner_invites_and_the_link_is_shown_once(stage: Stage):
    browser = await stage.signed_in(stage.seeded.owner)
    answer = await browser.post(
        "/dashboard/team/invites", {"role": "viewer", "email": "nina@aurora.example"}
    )
    assert re.search(r"/dashboard/invite/[\w-]{43}<", answer.text)
    later = (await browser.get("/dashboard/team")).text
    assert "nina@aurora.example" in later
    assert "/dashboard/invite/" not in later


@pytest.mark.parametrize("name", ["archive", "manual", "sql", "webhook"])
def test_a_form_gives_back_the_settings_it_was_made_from(name: str):
    """Every built-in connector: what the form shows, posted unchanged, is the same settings."""
    examples: dict[str, dict[str, Any]] = {
        "archive": {"url": "events", "match": {"user.id": "user_id", "email": "email"}},
        "manual": {"instructions": "Look in\nthe cellar", "assignee": "Ann"},
        "sql": {
            "tables": [{"name": "Customer", "action": "delete", "match": {"Email": "email"}}],
            "identity_source": True,
        },
        "webhook": {"url": "https://mail.example/hook"},
    }
    schema = description(name, Catalogue().find(name))["settings_schema"]
    listed = schema_forms.fields(schema, examples[name])
    posted = FormData(
        {schema_forms.PREFIX + each.name: each.value for each in listed if each.value}
    )
    parsed = schema_forms.parse(schema, posted, {}, {})
    assert {key: value for key, value in parsed.items() if value not in (False, [])} == examples[
        name
    ]


def test_secret_fields_are_never_filled():
    schema = description("sql", Catalogue().find("sql"))["settings_schema"]
    url = next(
        each for each in schema_forms.fields(schema, {"url": {"set": True}}) if each.name == "url"
    )
    assert (url.control, url.value, url.is_set) == ("secret", "", True)
    tables = next(each for each in schema_forms.fields(schema, {}) if each.name == "tables")
    assert json.loads(tables.example)[0]["action"] == "delete | mask"


@pytest.mark.parametrize(
    ("value", "top"), [(0, 2), (1, 2), (3, 4), (9, 10), (11, 20), (26, 40), (99, 100), (101, 200)]
)
def test_the_scale_of_a_chart_halves_well(value: int, top: int):
    assert nice_top(value) == top


async def test_archived_deliveries_are_listed_and_replayed_by_destination_and_day(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    webhook, request_id = stage.seeded.destinations["webhook"], stage.seeded.requests["overdue"]
    text = (await browser.get("/dashboard/archived")).text
    assert "1 delivery" in text
    assert request_id in text
    async with stage.runtime.database.reading() as session:
        at = (await session.execute(sa.select(col(Archived.archived_at)))).scalar_one()
    day, before = at.date(), at.date() - dt.timedelta(days=1)

    for missed in ({"destination": stage.seeded.destinations["sql"]}, {"until": before}):
        answer = await browser.get(f"/dashboard/archived?{urlencode(missed)}")
        assert "Nothing fits this filter" in answer.text
        await browser.post("/dashboard/archived/replay", missed)
    chosen = {"destination": webhook, "since": day, "until": day}
    text = (await browser.get(f"/dashboard/archived?{urlencode(chosen)}")).text
    assert "Replay them" in text
    assert request_id in text
    assert (await browser.get("/dashboard/archived?since=yesterday")).status_code == 422

    answer = await browser.post("/dashboard/archived/replay", chosen)

    assert answer.headers["location"] == "/dashboard/archived?notice=archive-replayed"
    assert "Nothing ran out of time" in (await browser.get("/dashboard/archived")).text
    assert "replay_archived" in await verbs(stage, webhook)
    async with stage.runtime.database.reading() as session:
        waiting = await session.get_one(Ready, stage.seeded.archived_delivery_id)
        assert waiting.rank == BOOSTED


async def test_alerts_are_on_their_page_until_thirty_days_after_they_are_over(stage: Stage):
    destinations = stage.seeded.destinations
    found = [
        Found(stage.seeded.workspace_id, kind, subject_id, detail)
        for kind, subject_id, detail in (
            (Kind.QUEUE_STUCK, destinations["manual"], {"since": "2026-11-25T10:04:09Z"}),
            (Kind.DEADLINE_MISSED, stage.seeded.requests["overdue"], {}),
            (Kind.DEADLINE_NEAR, stage.seeded.requests["overdue"], {}),
        )
    ]
    settings = stage.runtime.settings
    async with stage.runtime.database.writing() as session:
        long_ago = stage.now - dt.timedelta(days=40)
        await alerts.raise_alerts(session, settings, found[2:], long_ago)
        old = await alerts.page(session, stage.seeded.workspace_id, is_open=True, limit=9)
        await alerts.resolve(session, settings, [each.id for each in old], long_ago)
        await alerts.raise_alerts(session, settings, found[:2], stage.now)
    browser = await stage.signed_in(stage.seeded.viewer)
    page = (await browser.get("/dashboard/alerts")).text
    assert "Queue stuck" in page
    assert "since 2026-11-25 10:04 UTC" in page
    assert f"/dashboard/requests/{stage.seeded.requests['overdue']}" in page
    assert "Deadline near" not in page
    assert "4 failing" in (await browser.get("/dashboard")).text

    async with stage.runtime.database.writing() as session:
        standing = await alerts.page(session, stage.seeded.workspace_id, is_open=True, limit=9)
        await alerts.resolve(session, settings, [each.id for each in standing], stage.now)
    over = (await browser.get("/dashboard/alerts")).text
    assert "All is well" in over
    assert "Deadline missed" in over


async def test_requests_are_shown_when_the_history_of_their_deliveries_is_gone(stage: Stage):
    async with stage.runtime.database.writing() as session:
        for table in ("ready", "delivery_transition", "delivery"):
            await session.execute(sa.text(f"DELETE FROM {table}"))
    browser = await stage.signed_in(stage.seeded.operator)

    for page in ("/requests", "/tasks", f"/tasks?task={stage.seeded.task_id}"):
        assert (await browser.get(f"/dashboard{page}")).status_code == 200, page
    for case, request_id in stage.seeded.requests.items():
        assert (await browser.get(f"/dashboard/requests/{request_id}")).status_code == 200, case
