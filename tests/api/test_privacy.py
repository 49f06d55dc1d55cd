"""Planted identifiers and secrets turn up nowhere but in sealed values."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from kombu.transport.memory import Channel

from connectors.contract import Identifier, Residual, accepted, done, failed, retry
from tests.running import Service, source_connector

CANARIES = {
    "email": "canary.e7q@customer.example", "user_id": "canary-user-88431",
    "phone": "+4930555012345", "device_id": "canary-device-1f2e",
}  # fmt: skip
OTHERS = ["canary.contact@customer.example", "canary-ticket-9931", "canary-resolved-5521"]
WORDS = [*CANARIES.values(), *OTHERS]


def found_in(text: str) -> list[str]:
    return [each for each in WORDS if each in text]


async def test_no_identifier_leaves_the_sealed_values(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    known = {CANARIES["email"]: [Identifier("user_id", OTHERS[2])]}
    await service.destination("users", source_connector, known, settings={"identity_source": True})
    moods: list[Any] = [
        retry("down"), RuntimeError(f"cannot delete {CANARIES['email']}"), accepted("job-1"),
        ValueError(CANARIES["phone"]), {"nonsense": CANARIES["user_id"]}, failed("no"),
        done(residuals=[Residual("invoices", "tax records")]),
    ]  # fmt: skip
    crm = await service.destination("crm", batch=5)
    crm.answers = list(moods)
    identifiers = [{"kind": kind, "value": value} for kind, value in CANARIES.items()]
    texts = []
    for verb in ("cancel", "hold", None):
        made = await service.ask(
            identifiers=identifiers, contact_email=OTHERS[0], external_id=OTHERS[1]
        )
        texts.append(str(made))
        if verb:
            body = {"reason": "litigation"} if verb == "hold" else None
            texts.append(str(await service.post(f"/v1/requests/{made['id']}/{verb}", body)))
    wrong = [{"kind": "email", "value": f"{each}, x"} for each in WORDS]
    bodies: list[tuple[str, Any]] = [
        ("/v1/requests", {"kind": "erasure", "identifiers": wrong}),
        ("/v1/requests", {"kind": WORDS[0], "identifiers": identifiers}),
        ("/v1/requests/search", {"identifiers": identifiers}),
        ("/v1/suppressions/check", {"identifiers": identifiers}),
        ("/v1/requests/bulk", {"kind": "erasure", "subjects": [{"identifiers": wrong[:1]}]}),
    ]
    for path, given in bodies:
        texts.append((await service.call("POST", path, given, idempotency_key=path)).text)
    for _ in range(8):
        await service.work()
        service.later(hours=2)
    for path in (f"/v1/requests/{made['id']}", f"/v1/requests/{made['id']}/timeline",
                 f"/v1/requests/{made['id']}/receipt", "/v1/requests", "/v1/queues",
                 "/v1/suppressions", "/metrics"):  # fmt: skip
        texts.append((await service.call("GET", path)).text)
    texts.append(str(await service.claims(made["id"])))

    assert len(crm.asked) > 3
    assert found_in("\n".join(texts)) == [], "in an answer"
    assert found_in(caplog.text) == [], "in a log line"
    for table, rows in (await service.dump()).items():
        text = "\n".join(str(row) for row in rows)
        assert found_in(text) == [], f"in the table {table}"
        assert service.keys["alice"] not in text
    messages = [str(each) for queue in Channel.queues.values() for each in list(queue.queue)]
    assert found_in("\n".join(messages)) == [], "in a broker message"
    assert service.keys["alice"] not in caplog.text


async def test_log_lines_keep_only_known_fields(caplog: pytest.LogCaptureFixture) -> None:
    from app.core.logging import drop_unknown  # noqa: PLC0415 - the only test that needs it

    line = drop_unknown(None, "info", {
        "event": "x", "email": WORDS[0], "request_id": "req_1", "reason": "a\r\nSet-Cookie: x",
    })  # fmt: skip

    assert "email" not in line
    assert line["request_id"] == "req_1"
    assert "\n" not in line["reason"]
    assert len(drop_unknown(None, "info", {"reason": "x" * 9999})["reason"]) == 500
    assert caplog.text == ""
