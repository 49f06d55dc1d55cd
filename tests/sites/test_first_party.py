"""The address under which a site's own host serves this service."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from app.sites.config import SiteConfig
from tests.sites.stage import Stage
from tests.sites.test_sites import change, inlined


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ""),
        (" ", ""),
        ("https://privacy.shop.example", "https://privacy.shop.example"),
        ("https://Privacy.Shop.Example:443/", "https://privacy.shop.example"),
        ("https://shop.example/consent/", "https://shop.example/consent"),
        ("https://shop.example/.well-known/c", None),
        ("https://shop.example/a.b/c-d", "https://shop.example/a.b/c-d"),
        ("http://127.0.0.1:8000/consent", "http://127.0.0.1:8000/consent"),
        ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
        ("http://shop.example", None),
        ("https://shop.example/../x", None),
        ("https://shop.example//x", None),
        ("https://shop.example/%2e%2e", None),
        ("https://shop.example/x?y", None),
        ("https://shop.example/x#y", None),
        ("https://user@shop.example", None),
        ("https://shop.example\\@evil.example", None),
        ("//shop.example", None),
        ("/consent", None),
        ("javascript:alert(1)", None),
        ("https://[", None),
        (None, None),
    ],
)
def test_it_is_an_origin_with_at_most_a_plain_path(given: Any, kept: str | None) -> None:
    if kept is None:
        with pytest.raises(ValidationError):
            SiteConfig(first_party=given)
    else:
        assert SiteConfig(first_party=given).first_party == kept


async def test_it_acts_at_once_and_is_no_part_of_what_visitors_are_shown(service: Stage) -> None:
    site_key = await service.add_site()
    path = f"/b/{site_key}.js"
    before = inlined((await service.client.get(path)).text)
    assert "first_party" not in before

    await change(service, site_key, first_party="https://privacy.shop.example/")

    after = inlined((await service.client.get(path)).text)
    assert after.pop("first_party") == "https://privacy.shop.example"
    assert after == before
    described = await service.client.get(f"/v1/sites/{site_key}", headers=service.auth())
    assert described.json()["has_unpublished_changes"] is False


async def test_a_draft_of_before_it_existed_has_none(service: Stage) -> None:
    site_key = await service.add_site()
    (draft,) = (await service.rows("SELECT draft FROM site"))[0]
    assert "first_party" in str(draft)
    without = "json_remove(draft, '$.first_party')"
    if service.database.engine.dialect.name == "postgresql":
        without = "draft - 'first_party'"
    async with service.database.writing() as session:
        await session.execute(sa.text(f"UPDATE site SET draft = {without}"))

    assert (await service.client.get(f"/b/{site_key}.js")).status_code == 200
