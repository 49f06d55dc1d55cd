"""The shop's pages, and what they are there for: a customer asks to be erased, and is gone."""

from __future__ import annotations

import re

import pytest

from app.core.clock import utc_now
from app.demo import cast, store
from app.receipts.signing import jwks
from app.receipts.verify import verify
from app.security.models import Workspace
from app.subject_requests import people
from app.subject_requests.states import Kind
from connectors.contract import Identifier
from tests.demo.conftest import Demo, Start, site_key_in

pytestmark = pytest.mark.slow

BOB = cast.email_of("Emil Novak")


async def ask(demo: Demo, kind: Kind, email: str) -> None:
    async with demo.runtime.database.reading() as session:
        (workspace_id,) = (await demo.rows("SELECT id FROM workspace"))[0]
        (site_id,) = (await demo.rows("SELECT id FROM site"))[0]
        workspace = await session.get_one(Workspace, workspace_id)
    form = people.FormIn(kind, Identifier("email", email), "gdpr", "en")
    await people.submit(
        demo.runtime.services, demo.runtime.limits, workspace, site_id, form, utc_now()
    )


async def confirm(demo: Demo) -> str:
    """Use the link of the mail; returns the request's id."""

    async def link() -> str | None:
        links = [link for mail in demo.mails() for link in mail["links"] if "/confirm/" in link]
        return links[0] if links else None

    token = str(await demo.eventually(link)).rpartition("/")[2]
    async with demo.runtime.database.writing() as session:
        request = await people.confirm(session, demo.runtime.services, token, utc_now())
        return request.id


async def test_an_erased_customer_leaves_database_archive_and_newsletter(start: Start) -> None:
    async with start() as demo:
        before = store.overview(demo.places)
        (bob,) = [each for each in before.customers if each["email"] == BOB]
        assert bob["event_count"]
        dossier = await demo.page(f"/demo/customers/{bob['id']}")
        calls = (await demo.page("/demo/received")).count("<li>")
        await ask(demo, Kind.ERASURE, BOB)
        request_id = await confirm(demo)

        async def jws() -> str | None:
            rows = await demo.rows(
                "SELECT jws FROM receipt WHERE request_id = :id AND is_final", id=request_id
            )
            return str(rows[0][0]) if rows and rows[0][0] else None

        receipt = await demo.eventually(jws)
        async with demo.runtime.database.reading() as session:
            claims = verify(receipt, await jwks(session)).claims
        after = store.overview(demo.places)
        page = await demo.page("/demo/customers")
        gone = await demo.page(f"/demo/customers/{bob['id']}", 404)
        received = await demo.page("/demo/received")

    assert BOB in dossier
    assert bob["user_id"] in dossier
    assert len(after.customers) == len(before.customers) - 1
    assert after.event_count == before.event_count - bob["event_count"]
    assert len(after.kept_orders) == len(before.kept_orders) + bob["order_count"]
    assert BOB not in page + gone + received
    assert received.count("<li>") == calls + 1
    assert received.count("Signature valid") == calls + 1
    kinds = {each["kind"]: each["assurance"] for each in claims["destinations"]}
    assert kinds == {"sql": "verified_absent", "archive": "verified_absent", "webhook": "confirmed"}
    assert claims["outcome"] in {"complete", "complete_with_residuals"}


async def test_an_opt_out_waits_for_a_human(start: Start) -> None:
    async with start() as demo:
        await ask(demo, Kind.OPT_OUT, BOB)

        async def tasks() -> bool:
            rows = await demo.rows("SELECT count(*) FROM human_task WHERE state = 'open'")
            return bool(rows[0][0] == 2)

        assert await demo.eventually(tasks)


async def test_whatever_tracks_is_held_back_in_the_markup(start: Start) -> None:
    async with start() as demo:
        answer = await demo.client.get("/demo/")
        site_key = site_key_in(answer.text)

    page, policy = answer.text, answer.headers["content-security-policy"]
    assert f'<script src="/b/{site_key}.js" async></script>' in page
    nonce = re.search(r"'nonce-([^']+)'", policy)
    assert nonce
    assert f'<script type="text/plain" data-purpose="analytics" nonce="{nonce[1]}">' in page
    assert (
        '<script type="text/plain" data-purpose="analytics" data-src="/demo/static/tracker.js">'
        in page
    )
    assert re.search(r'<iframe data-purpose="functional" data-src="/demo/film"', page)
    assert re.search(r'<img data-purpose="advertising" data-src="/demo/static/pixel.svg"', page)
    assert not re.search(r'\ssrc="/demo/(film|static/(tracker|pixel))', page)
    assert "unsafe-inline" not in policy
    assert policy.startswith("default-src 'none'")


async def test_every_script_and_style_of_the_pages_is_there(start: Start) -> None:
    async with start() as demo:
        for path in (
            "/demo/",
            "/demo/customers",
            "/demo/customers/3",
            "/demo/received",
            "/demo/film",
        ):
            page = await demo.page(path)
            assert "<style" not in page
            assert "style=" not in page
            for asset in set(re.findall(r'"(/demo/static/[^"]+)"', page)):
                await demo.page(asset)
        await demo.page("/demo/static/nothing.js", 404)
        await demo.page("/demo/customers/99999999999999999999", 404)


async def test_a_form_of_the_shop_needs_no_identifier_in_an_address(start: Start) -> None:
    async with start() as demo:
        page = await demo.page("/demo/customers")

    assert not [
        link for link in re.findall(r'href="([^"]*)"', page) if "@" in link or "u-1" in link
    ]
