"""The code on the how-to pages does what the pages say."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.clock import utc_now
from app.destinations.catalogue import Catalogue
from app.identity import host_tokens
from app.identity.host_key_sets import KeySets
from app.identity.host_keys import read_set
from connectors.contract import Verdict
from connectors.webhook import sign
from tests.docs.markdown import ROOT, blocks

HOW_TO = ROOT / "docs" / "how-to"


def code_of(page: str) -> str:
    (block,) = [each for each in blocks("python") if each.page == HOW_TO / page]
    return block.text


def test_the_webhook_example_believes_our_calls_and_no_others() -> None:
    example: dict[str, Any] = {}
    exec(code_of("connect-a-webhook.md"), example)  # noqa: S102 (our own page)
    is_genuine = example["is_genuine"]
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
    body, now = b'{"type":"quittance.erase"}', str(int(time.time()))
    headers = {
        "webhook-id": "call_1",
        "webhook-timestamp": now,
        "webhook-signature": sign(secret, "call_1", now, body),
    }
    assert is_genuine(secret, headers, body)
    rotated = headers | {"webhook-signature": f"v1,AAAA {headers['webhook-signature']}"}
    assert is_genuine(secret, rotated, body)
    assert not is_genuine(secret, headers, body + b" ")
    assert not is_genuine(secret, headers | {"webhook-id": "call_2"}, body)
    assert not is_genuine("whsec_" + "A" * 32, headers, body)
    assert not is_genuine(secret, {}, body)
    old = str(int(now) - 3600)
    stale = {"webhook-timestamp": old, "webhook-signature": sign(secret, "call_1", old, body)}
    assert not is_genuine(secret, headers | stale, body)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.DONE),
        (404, Verdict.ABSENT),
        (401, Verdict.RETRY),
        (503, Verdict.RETRY),
        (400, Verdict.FAILED),
    ],
)
async def test_the_example_connector_loads_and_answers(
    tmp_path: Path, status: int, verdict: Verdict
) -> None:
    (tmp_path / "acme.py").write_text(code_of("write-a-connector.md"))
    catalogue = Catalogue(tmp_path)
    acme = catalogue.find("acme")
    assert "acme" in {each["name"] for each in catalogue.describe()}
    assert catalogue.broken == {}
    settings = acme.Settings(url="https://acme.example", token="t")  # type: ignore[call-arg]

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["idempotency-key"] == "call_1"
        return httpx.Response(status)

    class Tools:
        http = httpx.AsyncClient(transport=httpx.MockTransport(answer))

        class call:  # noqa: N801 (an attribute in the contract)
            id = "call_1"

    connector: Any = acme(settings, Tools())  # type: ignore[arg-type]
    async with Tools.http:
        outcomes = await connector.erase("email", ["a@example.com"])
    assert outcomes["a@example.com"].verdict is verdict


async def test_the_example_hosts_tokens_are_believed() -> None:
    example: dict[str, Any] = {}
    exec(code_of("link-visitors.md"), example)  # noqa: S102 (our own page)
    service = "https://privacy.shop.example"
    host = host_tokens.Host("https://shop.example", read_set(example["key_set"]()))
    nothing_fetched = KeySets(httpx.AsyncClient())

    token = await host_tokens.verify(
        example["host_token"](service, "u-1", "bob@shop.example"), host,
        audience=service, key_sets=nothing_fetched, now=utc_now(),
    )  # fmt: skip

    assert [each.value for each in token.identifiers] == ["u-1", "bob@shop.example"]
