"""Proof that somebody changes in the database: refused, or else noticed."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from app.consent import guards
from app.core.db import Database
from app.sites.models import NoticeVersion
from tests.consent.conftest import Shop, open_shop
from tests.sites.stage import SHOP, Stage


async def run(database: Database, *statements: str) -> None:
    async with database.writing() as session:
        for each in statements:
            await session.execute(sa.text(each))


async def unguard(database: Database) -> None:
    """As somebody can who owns the tables."""
    on = "" if database.is_sqlite else " ON {table}"
    for table in guards.GUARDED:
        await run(database, f"DROP TRIGGER {table}_stays{on.format(table=table)}")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE consent_record SET method = 'accept_all'",
        "UPDATE consent_record SET choices = '{}' WHERE site_id <> ''",
        "UPDATE consent_record SET recorded_at = decided_at",
        "UPDATE notice_version SET content = '{}'",
        "UPDATE notice_version SET sha256 = '0'",
        "UPDATE notice_version SET content = '{}', sha256 = '0'",
        "UPDATE notice_version SET number = 7",
    ],
)
async def test_a_record_and_the_words_of_a_notice_refuse_to_be_changed(
    shop: Shop, change: str
) -> None:
    await shop.choose(method="custom")
    table = change.split()[1]
    before = await shop.service.rows(f"SELECT * FROM {table}")

    with pytest.raises(sa.exc.DBAPIError, match=f"a row of {table} is proof and never changes"):
        await run(shop.service.database, change)

    assert await shop.service.rows(f"SELECT * FROM {table}") == before


async def test_a_record_may_go_when_its_time_is_over(shop: Shop) -> None:
    await shop.choose()
    await run(shop.service.database, "DELETE FROM consent_record")

    assert await shop.count() == 0


async def test_what_the_service_concludes_from_a_notice_may_change(shop: Shop) -> None:
    await run(shop.service.database, "UPDATE notice_version SET material = NULL, news = NULL")


async def forge(stage: Stage, version_id: str) -> None:
    await unguard(stage.database)
    async with stage.database.writing() as session:
        version = await session.get_one(NoticeVersion, version_id)
        text = json.dumps(version.content)
        await session.execute(
            sa.text("UPDATE notice_version SET content = :content WHERE id = :id"),
            {"content": text.replace("Analytics", "Weather"), "id": version_id},
        )


async def test_words_that_are_not_those_published_are_not_shown_as_proof(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    other = await open_shop(shop.service)
    made, genuine = await shop.choose(), await other.choose()
    await forge(shop.service, shop.notice_version)
    client, auth = shop.service.client, shop.service.auth()

    for path in (
        f"/v1/consents/{made['consent_id']}",
        "/v1/consents/export?format=iso_27560",
        f"/v1/sites/{shop.site_key}/versions/1",
    ):
        answer = await client.get(path, headers=auth)
        assert answer.status_code == 500, path
        assert answer.json()["type"] == "urn:quittance:problem:notice-altered"
        assert "Weather" not in answer.text
    assert "notice_altered" in "".join(capsys.readouterr())

    assert (
        await client.get(f"/v1/consents/{genuine['consent_id']}", headers=auth)
    ).status_code == 200
    narrow = f"/v1/consents/export?format=iso_27560&site_key={other.site_key}"
    assert len((await client.get(narrow, headers=auth)).text.splitlines()) == 1
    listed = await client.get("/v1/consents/export", headers=auth)
    assert len(listed.text.splitlines()) == 2, "it holds no words"
    banner = await client.get(f"/v1/sites/{shop.site_key}/banner", headers={"Origin": SHOP})
    assert banner.status_code == 200, "visitors are still asked"
