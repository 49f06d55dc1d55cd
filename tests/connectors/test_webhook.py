"""The webhook connector: signatures others verify, answers that say no more than was seen."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from standardwebhooks import Webhook as Verifier

from app.core.outbound import Outbound, Policy
from app.destinations.running import Runner, outcome_of
from connectors.contract import (
    Call,
    Identifier,
    NotAuthentic,
    Operation,
    Outcome,
    Person,
    Tools,
    Verdict,
    absent,
    accepted,
    done,
    failed,
    retry,
)
from connectors.webhook import (
    LONGEST_WAIT,
    Webhook,
    is_genuine,
    is_same_origin,
    job_of,
    job_outcome,
    key_of,
    outcomes,
    retry_after,
    sign,
)
from tests.destinations.receiver import Receiver, receiver

NOW = dt.datetime(2026, 11, 23, 10, tzinfo=dt.UTC)
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BOB = Person("dlv_bob", (Identifier("email", "bob@shop.example"), Identifier("user_id", "7")))
EVE = Person("dlv_eve", (Identifier("email", "eve@shop.example"),))
URL = "https://hook.example/erase"


@dataclass
class FakeTools:
    http: httpx.AsyncClient
    call: Call = field(default_factory=lambda: Call("cal_1", Operation.ERASE, 1))

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


@pytest.fixture
async def webhook(server: Receiver) -> AsyncIterator[Webhook]:
    outbound = Outbound(Policy(extra_allowed={("127.0.0.1", server.port)}))
    settings = Webhook.Settings.model_validate(
        {"url": f"{server.url}/in", "signing_secret": SECRET}
    )
    yield Webhook(settings, cast(Tools, FakeTools(outbound.http)))
    await outbound.close()


async def test_the_body_is_the_promised_one_and_others_can_verify_it(
    server: Receiver, webhook: Webhook
):
    assert await webhook.erase([BOB, EVE]) == done(http_status=204)
    method, path, headers, body = server.seen[0]
    assert (method, path, headers["content-type"]) == ("POST", "/in", "application/json")
    assert headers["idempotency-key"] == headers["webhook-id"] == "cal_1"
    assert Verifier(SECRET).verify(body, headers) == {
        "type": "quittance.erase",
        "call_id": "cal_1",
        "people": [
            {
                "delivery_id": "dlv_bob",
                "identifiers": [
                    {"kind": "email", "value": "bob@shop.example"},
                    {"kind": "user_id", "value": "7"},
                ],
            },
            {
                "delivery_id": "dlv_eve",
                "identifiers": [{"kind": "email", "value": "eve@shop.example"}],
            },
        ],
    }
    await webhook.suppress([BOB])
    await webhook.unsuppress([BOB])
    await webhook.test()
    kinds = [json.loads(each[3])["type"] for each in server.seen]
    assert kinds == [
        "quittance.erase",
        "quittance.suppress",
        "quittance.unsuppress",
        "quittance.ping",
    ]
    for each in server.seen:
        Verifier(SECRET).verify(each[3], each[2], json_parse=False)


async def test_without_a_secret_nothing_is_signed(server: Receiver, webhook: Webhook):
    plain = Webhook(Webhook.Settings(url=f"{server.url}/in"), webhook.tools)
    await plain.erase([BOB])
    assert "webhook-signature" not in server.seen[0][2]
    assert server.seen[0][2]["webhook-id"] == "cal_1"


@pytest.mark.parametrize("size", [24, 32, 64])
def test_keys_of_24_to_64_bytes_are_taken(size: int):
    assert key_of("whsec_" + base64.b64encode(bytes(size)).decode()) == bytes(size)


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        base64.b64encode(bytes(32)).decode(),
        "whsk_" + base64.b64encode(bytes(32)).decode(),
        "whsec_????",
        "whsec_",
        "",
    ],
)
def test_other_keys_are_refused_without_being_repeated(secret: str):
    with pytest.raises(ValidationError) as refused:
        Webhook.Settings.model_validate({"url": URL, "signing_secret": secret})
    messages = [each["msg"] for each in refused.value.errors(include_input=False)]
    assert len(secret) < 10 or secret not in str(messages)


def answer(
    status: int, json: Any = None, text: str | None = None, **headers: str
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if text is not None:
        return httpx.Response(status, text=text, headers=named)
    if json is None:
        return httpx.Response(status, headers=named)
    return httpx.Response(status, json=json, headers=named)


JOB = "https://hook.example/jobs/1"
MINUTE = dt.timedelta(minutes=1)
WRONG = failed("destination_error", http_status=200)
UNREADABLE = retry("unreadable_answer", http_status=200)
AWAY = "destination_unavailable"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (answer(200), done(http_status=200)),
        (answer(204), done(http_status=204)),
        (answer(200, text="ok"), done(http_status=200)),
        (answer(201, {"id": 7}), done(http_status=201)),
        (answer(200, {"deleted": 2}), done(http_status=200)),
        (answer(200, {"deleted": 17}), done(http_status=200)),
        (answer(200, {"status": "ok", "errors": [], "error": None}), done(http_status=200)),
        # DST-005: a 2xx that says it went wrong
        (answer(200, {"error": "bob@shop.example is unknown"}), WRONG),
        (answer(200, {"errors": ["x"]}), WRONG),
        (answer(200, {"ok": False}), WRONG),
        (answer(200, {"success": False}), WRONG),
        (answer(200, {"status": "Error"}), WRONG),
        (answer(200, False), WRONG),
        (answer(202, {"error": "x"}, Location=JOB), failed("destination_error", http_status=202)),
        (answer(200, {"deleted": 0}), absent(http_status=200)),
        (answer(200, {"deleted": False}), WRONG),
        (answer(200, {"deleted": 1}), retry("fewer_deleted", http_status=200)),
        (answer(200, text="<!doctype html><title>Sign in</title>"), UNREADABLE),
        (answer(200, text='{"results": {'), UNREADABLE),
        (answer(200, text="[" * 100_000), UNREADABLE),
        (answer(200, {"results": ["dlv_bob"]}), UNREADABLE),
        (answer(200, x_undecoded_content_encoding="gzip"), UNREADABLE),
        # jobs
        (answer(202), accepted(http_status=202)),
        (answer(202, Location="/jobs/1"), accepted(JOB, http_status=202)),
        (answer(202, Location=JOB, Retry_After="60"), accepted(JOB, after=MINUTE, http_status=202)),
        (answer(202, Location="https://evil.example/jobs/1"), accepted(http_status=202)),
        (answer(202, Location="http://hook.example/jobs/1"), accepted(http_status=202)),
        (answer(202, Location="http://169.254.169.254/"), accepted(http_status=202)),
        # refusals
        (answer(301, Location=URL), failed("redirected", http_status=301)),
        (answer(302, Location="http://127.0.0.1/"), failed("redirected", http_status=302)),
        (answer(304), failed("redirected", http_status=304)),
        (answer(307, Location=URL), failed("redirected", http_status=307)),
        (answer(308, Location=URL), failed("redirected", http_status=308)),
        (answer(401), retry("unauthorized", parks=True, http_status=401)),
        (answer(403), retry("unauthorized", parks=True, http_status=403)),
        (answer(404), failed("not_found", http_status=404)),
        (answer(410), failed("gone", http_status=410)),
        (answer(400), failed("refused", http_status=400)),
        (answer(422), failed("refused", http_status=422)),
        (answer(408), retry(AWAY, http_status=408)),
        (answer(409), retry(AWAY, http_status=409)),
        (answer(425), retry(AWAY, http_status=425)),
        (answer(429, Retry_After="86400"), retry("rate_limited", 1440 * MINUTE, http_status=429)),
        (answer(500), retry(AWAY, http_status=500)),
        (answer(503, Retry_After="120"), retry(AWAY, 2 * MINUTE, http_status=503)),
    ],
)  # fmt: skip
def test_what_an_answer_means(response: httpx.Response, expected: Outcome):
    assert outcomes(response, ["dlv_bob", "dlv_eve"], URL, NOW) == expected


def test_results_are_taken_one_by_one_and_a_missing_one_is_tried_again():
    results = {"dlv_bob": "done", "dlv_other": "done", "dlv_odd": "deleted", "dlv_list": []}
    ids = ["dlv_bob", "dlv_eve", "dlv_odd", "dlv_list", "dlv_gone", "dlv_bad"]
    results |= {"dlv_gone": "absent", "dlv_bad": "failed"}
    assert outcomes(answer(200, {"results": results, "error": "some"}), ids, URL, NOW) == {
        "dlv_bob": done(http_status=200),
        "dlv_eve": retry("missing_result", http_status=200),
        "dlv_odd": retry("unknown_result", http_status=200),
        "dlv_list": retry("unknown_result", http_status=200),
        "dlv_gone": absent(http_status=200),
        "dlv_bad": failed("destination_failed", http_status=200),
    }


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (answer(200, {"status": "done"}), done(http_status=200)),
        (answer(200, {"status": "absent"}), absent(http_status=200)),
        (answer(200, {"status": "failed"}), failed("destination_failed", http_status=200)),
        (answer(200, {"status": "pending"}), accepted(JOB, http_status=200)),
        (answer(200, {"status": "queued"}), accepted(JOB, http_status=200)),
        (answer(200, {"status": "error"}), WRONG),
        (answer(200, {"error": "x"}), WRONG),
        (answer(202), accepted(JOB, http_status=202)),
        (answer(202, Retry_After="60"), accepted(JOB, after=MINUTE, http_status=202)),
        (answer(204), done(http_status=204)),
        (answer(404), failed("not_found", http_status=404)),
        (answer(303, Location="/x"), failed("redirected", http_status=303)),
        (answer(503), retry(AWAY, http_status=503)),
    ],
)  # fmt: skip
def test_what_a_job_says(response: httpx.Response, expected: Outcome):
    assert job_outcome(response, JOB, NOW) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("86400", 86_400),
        ("0", None),
        ("-1", None),
        ("1.5", None),
        ("1e9", None),
        ("soon", None),
        ("", None),
        ("1000000000", LONGEST_WAIT.total_seconds()),
        ("9" * 5000, LONGEST_WAIT.total_seconds()),
        ("Mon, 23 Nov 2026 10:01:00 GMT", 60),
        ("Mon, 23 Nov 2026 09:00:00 GMT", None),
        ("Mon, 23 Nov 2099 09:00:00 GMT", LONGEST_WAIT.total_seconds()),
        ("Mon, 99 Nov 2026 10:01:00 GMT", None),
    ],
)
def test_dst_011_retry_after_is_honoured_up_to_the_cap(text: str, seconds: float | None):
    expected = None if seconds is None else dt.timedelta(seconds=seconds)
    assert retry_after(answer(429, Retry_After=text), NOW) == expected


@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0")))
def test_dst_011_any_retry_after_is_survived(text: str):
    response = httpx.Response(429, headers=[(b"retry-after", text.encode("latin-1"))])
    wait = retry_after(response, NOW)
    assert wait is None or dt.timedelta() < wait <= LONGEST_WAIT


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.integers(200, 599), json_values | st.fixed_dictionaries({"results": json_values}))
def test_any_answer_is_an_outcome_and_only_2xx_can_be_good(status: int, body: Any):
    found = outcomes(answer(status, body), ["dlv_bob"], URL, NOW)
    each = found if isinstance(found, Outcome) else found["dlv_bob"]
    if each.verdict in {Verdict.DONE, Verdict.ABSENT, Verdict.ACCEPTED}:
        assert 200 <= status < 300


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("https://hook.example/x", True),
        ("https://HOOK.example:443/x", True),
        ("https://hook.example:8443/x", False),
        ("http://hook.example/x", False),
        ("https://hook.example.evil.example/x", False),
        ("https://hook.example@evil.example/x", False),
        ("https://a@hook.example/x", False),
        ("//hook.example/x", False),
        ("https://[bad", False),
        ("", False),
    ],
)
def test_jobs_live_at_the_endpoints_own_origin(one: str, same: bool):
    assert is_same_origin(one, URL) is same


@given(st.text(max_size=40))
def test_a_job_is_at_the_endpoints_origin_or_is_none(location: str):
    response = httpx.Response(202, headers=[(b"location", location.encode())])
    job = job_of(response, URL)
    assert job is None or job.startswith("https://hook.example/") or job == "https://hook.example"


async def test_a_job_is_asked_with_a_signature(server: Receiver, webhook: Webhook):
    server.says(202, Location="/jobs/1?x=2#part")
    taken = await webhook.erase([BOB])
    assert isinstance(taken, Outcome)
    assert taken.job == f"{server.url}/jobs/1?x=2"
    server.says(200, {"status": "done"})
    assert await webhook.poll(taken.job) == done(http_status=200)
    method, path, headers, body = server.seen[1]
    assert (method, path, body) == ("GET", "/jobs/1?x=2", b"")
    Verifier(SECRET).verify(body, headers, json_parse=False)
    assert await webhook.poll("http://127.0.0.1:1/jobs/1") == failed("job_elsewhere")
    assert len(server.seen) == 2


async def test_cnx_007_a_redirect_inside_is_not_followed(server: Receiver, webhook: Webhook):
    server.says(302, Location=f"{server.url}/elsewhere")
    assert await webhook.erase([BOB]) == failed("redirected", http_status=302)
    assert len(server.seen) == 1


async def test_dst_013_a_reset_is_a_retry_under_the_same_key(server: Receiver, webhook: Webhook):
    async def reset(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    runner = Runner()
    kept = server.answer
    server.answer = reset
    call = Call("cal_1", Operation.ERASE, 1)
    assert await runner.run(webhook, "erase", [BOB], call=call) == retry("unreachable")
    server.answer = kept
    assert await runner.run(webhook, "erase", [BOB], call=call) == done(http_status=204)
    assert [each[2]["idempotency-key"] for each in server.seen] == ["cal_1", "cal_1"]
    assert server.seen[0][3] == server.seen[1][3]
    runner.close()


async def test_dst_001_a_packed_answer_is_tried_again(server: Receiver, webhook: Webhook):
    async def packed(_: web.Request) -> web.Response:
        return web.Response(body=b"\x1f\x8b not json", headers={"Content-Encoding": "gzip"})

    server.answer = packed
    assert await webhook.erase([BOB]) == retry("unreadable_answer", http_status=200)


async def test_dst_003_and_021_a_silent_destination_meets_the_deadline(
    server: Receiver, webhook: Webhook
):
    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    server.answer = silent
    runner = Runner()
    call = Call("cal_1", Operation.ERASE, 1)
    deadline = dt.timedelta(seconds=0.1)
    found = await runner.run(webhook, "erase", [BOB], call=call, deadline=deadline)
    assert found == retry("timeout")
    runner.close()


async def test_dst_017_what_the_destination_says_about_a_person_goes_nowhere(
    server: Receiver, webhook: Webhook
):
    server.says(400, {"error": "bob@shop.example not found", "long": "x" * (1 << 19)})
    assert "bob@" not in repr(await webhook.erase([BOB]))
    server.says(200, {"error": "bob@shop.example\x00\ud800"})
    assert "bob@" not in repr(await webhook.erase([BOB]))


async def test_nobody_listening_is_unreachable(webhook: Webhook):
    closed = Webhook(Webhook.Settings(url="http://127.0.0.1:1/"), webhook.tools)
    runner = Runner()
    call = Call("cal_1", Operation.ERASE, 1)
    refused = await runner.run(closed, "erase", [BOB], call=call)
    assert refused == retry("address_refused", parks=True)
    assert outcome_of(httpx.ConnectError("x")) == retry("unreachable")
    runner.close()


# --- callbacks

REPORT = {"type": "quittance.job", "job": "https://hook.example/jobs/7", "status": "done"}


@pytest.fixture
def signed() -> Webhook:
    settings = Webhook.Settings.model_validate({"url": URL, "signing_secret": SECRET})
    return Webhook(settings, cast(Tools, FakeTools(httpx.AsyncClient())))


def headers_of(body: bytes, **changes: str) -> dict[str, str]:
    """A callback as the endpoint's library signs it; ``changes`` (``_`` for ``-``) come after."""
    now = dt.datetime.now(dt.UTC)
    named = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Verifier(SECRET).sign("msg_1", now, body.decode()),
    }
    return named | {name.replace("_", "-"): value for name, value in changes.items()}


def told(webhook: Webhook, message: object) -> object:
    body = json.dumps(message).encode()
    return webhook.callback(headers_of(body), body)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (REPORT, {REPORT["job"]: done()}),
        (REPORT | {"job": "/jobs/7"}, {REPORT["job"]: done()}),
        (REPORT | {"status": "absent"}, {REPORT["job"]: absent()}),
        (REPORT | {"status": "failed"}, {REPORT["job"]: failed("destination_failed")}),
        (REPORT | {"status": "error"}, {REPORT["job"]: failed("destination_error")}),
        (
            {"type": REPORT["type"], "job": REPORT["job"], "error": "bob@shop.example"},
            {REPORT["job"]: failed("destination_error")},
        ),
        (REPORT | {"status": "pending"}, {REPORT["job"]: accepted(REPORT["job"])}),
        (REPORT | {"status": ["done"]}, {REPORT["job"]: accepted(REPORT["job"])}),
        (REPORT | {"type": "quittance.erase"}, {}),
        ({}, {}),
    ],
)
def test_a_callback_says_what_its_jobs_address_would(
    signed: Webhook, message: object, expected: dict[str, Outcome]
):
    assert told(signed, message) == expected


@pytest.mark.parametrize(
    "message",
    [
        [], "done", None, REPORT | {"job": "https://evil.example/jobs/7"}, REPORT | {"job": 7},
        REPORT | {"job": ""}, {"type": "quittance.job"},
    ],
)  # fmt: skip
def test_a_genuine_body_that_names_no_job_of_ours_is_unreadable(signed: Webhook, message: object):
    with pytest.raises(ValueError, match=r"job|object"):
        told(signed, message)


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 60_000])
def test_a_genuine_body_that_is_no_json_is_unreadable(signed: Webhook, body: bytes):
    with pytest.raises(ValueError, match=r"deep|Expecting"):
        signed.callback(headers_of(body), body)


def test_of_several_signatures_one_must_fit(signed: Webhook):
    right = headers_of(b"{}")["webhook-signature"]
    headers = headers_of(b"{}", webhook_signature=f"v1,AAAA v1a,BBBB {right}")
    assert signed.callback(headers, b"{}") == {}


@pytest.mark.parametrize(
    ("off", "is_believed"), [(-301, False), (-299, True), (0, True), (299, True), (301, False)]
)
def test_a_callback_is_believed_for_five_minutes(off: int, is_believed: bool):
    stamp = str(int(NOW.timestamp()) + off)
    headers = {
        "webhook-id": "msg_1", "webhook-timestamp": stamp,
        "webhook-signature": sign(SECRET, "msg_1", stamp, b"{}"),
    }  # fmt: skip
    assert is_genuine(SECRET, headers, b"{}", NOW) is is_believed


NOW_STAMP = str(int(NOW.timestamp()))


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook_signature": ""},
        {"webhook_signature": "v1,"},
        {"webhook_signature": "v1,\u00fc"},
        {"webhook_signature": f"v2,{sign(SECRET, 'msg_1', NOW_STAMP, b'{}')[3:]}"},
        {"webhook_id": "msg_2"},
        {"webhook_id": ""},
        {"webhook_timestamp": "soon"},
        {"webhook_timestamp": "\u0661\u0662"},
        {"webhook_timestamp": "9" * 400},
    ],
)
def test_hook_002_a_callback_that_is_not_signed_just_now_is_not_believed(
    signed: Webhook, changes: dict[str, str]
):
    with pytest.raises(NotAuthentic):
        signed.callback(headers_of(b"{}", **changes), b"{}")


def test_a_full_stop_in_the_id_cannot_move_the_signed_bytes(signed: Webhook):
    """``a.STAMP.1.{}`` is what ``a`` with the body ``1.{}`` signs, too."""
    stamp = headers_of(b"")["webhook-timestamp"]
    signature = sign(SECRET, f"{stamp}.x", stamp, b"{}")
    headers = {
        "webhook-id": f"{stamp}.x", "webhook-timestamp": stamp, "webhook-signature": signature,
    }  # fmt: skip
    with pytest.raises(NotAuthentic):
        signed.callback(headers, b"{}")


@given(st.binary(max_size=40), st.integers(0, 39))
def test_no_other_body_fits_a_signature(body: bytes, at: int):
    stamp = str(int(NOW.timestamp()))
    headers = {
        "webhook-id": "msg_1", "webhook-timestamp": stamp,
        "webhook-signature": sign(SECRET, "msg_1", stamp, body),
    }  # fmt: skip
    assert is_genuine(SECRET, headers, body, NOW)
    assert not is_genuine(SECRET, headers, body[:at] + b"\x00" + body[at:], NOW)


def test_without_a_secret_nobody_is_believed():
    plain = Webhook(Webhook.Settings(url=URL), cast(Tools, FakeTools(httpx.AsyncClient())))
    with pytest.raises(NotAuthentic):
        told(plain, REPORT)


def test_our_own_calls_sent_back_to_us_say_nothing(signed: Webhook):
    body = b'{"type":"quittance.erase","call_id":"call_1","people":[]}'
    assert signed.callback(headers_of(body), body) == {}
