"""Where a visitor is: edge headers, the operator's resolver, a GeoIP database; else unknown."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from app import checking
from app.core.settings import Settings
from app.sites import resolver
from app.sites.geoip import GeoIp
from app.sites.regimes import clean_region, region_named
from tests.sites import mmdb
from tests.sites.stage import Stage, stage

TRUSTED = {"trusted_proxies": "203.0.113.0/24"}
CLOUDFLARE = {**TRUSTED, "region_header": "CF-IPCountry, CF-Region-Code"}

Staged = Callable[..., AbstractAsyncContextManager[Stage]]


@pytest.fixture
def staged(sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path) -> Staged:
    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[Stage]:
        async with stage(sqlite_url, sqlite_keystore_url, tmp_path, **settings) as made:
            yield made

    return run


async def banner(service: Stage, query: str = "", **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"/v1/sites/{await service.add_site()}/banner{query}"
    answer = await service.client.get(path, headers=names)
    assert answer.status_code == 200
    return answer


def regime(answer: httpx.Response) -> str:
    return str(answer.json()["regime"])


# --- edge headers


@pytest.mark.parametrize(
    ("country", "subdivision", "region"),
    [
        ("US", "CA", "US-CA"),
        ("us", "ca", "US-CA"),
        ("US", "", "US"),
        ("GB", "ENG", "GB-ENG"),
        ("JP", "13", "JP-13"),
        ("DE", "Berlin", "DE"),
        ("XX", "CA", None),
        ("T1", "", None),
        ("EU", "", None),
        ("", "CA", None),
    ],
)
def test_two_parts_make_a_region(country: str, subdivision: str, region: str | None) -> None:
    assert region_named(country, subdivision) == region


async def test_an_edge_names_country_and_subdivision_in_two_headers(staged: Staged) -> None:
    async with staged(**CLOUDFLARE) as service:
        california = await banner(service, CF_IPCountry="US", CF_Region_Code="CA")
        texas = await banner(service, CF_IPCountry="US", CF_Region_Code="TX")
        brazil = await banner(service, CF_IPCountry="BR")
        tor = await banner(service, CF_IPCountry="T1", CF_Region_Code="CA")

    assert [regime(each) for each in (california, texas, brazil, tor)] == [
        "ccpa", "gdpr", "lgpd", "gdpr",
    ]  # fmt: skip
    assert "CF-IPCountry, CF-Region-Code" in california.headers["vary"]


@pytest.mark.parametrize("names", ["CF IPCountry", "A,B,C", "A,", "Bad\r\nName"])
def test_what_is_no_header_name_is_refused_at_the_start(names: str) -> None:
    with pytest.raises(ValidationError, match="region_header"):
        Settings(region_header=names)


# --- GeoIP

ADDRESSES = {
    "203.0.113.0/24": mmdb.city("US", "CA"),
    "198.51.100.7/32": mmdb.city("BR"),
    "2001:db8::/32": mmdb.city("DE", "BE"),
    "192.0.2.0/25": {"country": "US"},
    "192.0.2.128/25": {"country": {"iso_code": "US"}, "subdivisions": "CA"},
}


@pytest.fixture
def geoip(tmp_path: Path) -> Path:
    path = tmp_path / "city.mmdb"
    path.write_bytes(mmdb.database(ADDRESSES))
    return path


@pytest.mark.parametrize(
    ("address", "region"),
    [
        ("203.0.113.77", "US-CA"),
        ("198.51.100.7", "BR"),
        ("198.51.100.8", None),
        ("2001:db8::1", "DE-BE"),
        ("192.0.2.1", None),
        ("192.0.2.200", "US"),
        ("unknown", None),
        ("", None),
    ],
)
def test_an_address_has_the_region_that_the_file_gives(
    geoip: Path, address: str, region: str | None
) -> None:
    assert GeoIp(geoip).region(address) == region


async def test_without_a_header_the_clients_address_is_looked_up(
    staged: Staged, geoip: Path
) -> None:
    async with staged(**CLOUDFLARE, geoip_file=geoip) as service:
        direct = await banner(service)
        behind = await banner(service, X_Forwarded_For="198.51.100.7")
        named = await banner(service, CF_IPCountry="DE")
        tor = await banner(service, CF_IPCountry="T1")
        asked = await banner(service, "?region=BR")

    assert [regime(each) for each in (direct, behind, named, tor, asked)] == [
        "ccpa", "lgpd", "gdpr", "gdpr", "lgpd",
    ]  # fmt: skip


def test_a_changed_file_is_read_anew(geoip: Path) -> None:
    database = GeoIp(geoip)
    assert database.region("203.0.113.9") == "US-CA"

    geoip.write_bytes(mmdb.database({"203.0.113.0/24": mmdb.city("FR")}))
    os.utime(geoip, ns=(1, 1))
    assert database.region("203.0.113.9") == "FR"

    geoip.write_bytes(b"cut off")
    assert database.region("203.0.113.9") is None
    geoip.unlink()
    assert database.region("203.0.113.9") is None
    geoip.write_bytes(mmdb.database(ADDRESSES))
    assert database.region("203.0.113.9") == "US-CA"


def test_no_damaged_file_breaks_an_answer(geoip: Path) -> None:
    whole = geoip.read_bytes()
    for at in range(0, len(whole), 7):
        geoip.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        found = GeoIp(geoip).region("203.0.113.9")
        assert found is None or clean_region(found) == found
        geoip.write_bytes(whole[:at])
        assert GeoIp(geoip).region("203.0.113.9") is None


async def test_a_file_that_cannot_be_used_leaves_the_strictest_law_and_is_told(
    staged: Staged, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.mmdb"
    async with staged(geoip_file=path) as service:
        assert regime(await banner(service)) == "gdpr"
        assert regime(await banner(service)) == "gdpr"
        assert finding(service, "GeoIP file")["ok"] is False
        path.write_bytes(mmdb.database(ADDRESSES))
        assert finding(service, "GeoIP file")["ok"] is True
        assert regime(await banner(service)) == "ccpa"

    told = capfd.readouterr()
    assert (told.out + told.err).count("geoip_unusable") == 2  # the service's, and the doctor's
    assert "203.0.113.9" not in told.out + told.err


# --- the operator's own resolver


def by_header(headers: Mapping[str, str], address: str) -> str | None:
    return "us-ca" if headers.get("X-Shop-State") == "ca" else None


def by_address(headers: Mapping[str, str], address: str) -> str | None:
    return {"203.0.113.9": "BR", "198.51.100.7": "nonsense"}.get(address)


def broken(headers: Mapping[str, str], address: str) -> str | None:
    raise RuntimeError(address)


def wrong(headers: Mapping[str, str], address: str) -> Any:
    return 49


async def test_the_resolver_sees_the_requests_headers(staged: Staged) -> None:
    async with staged(region_resolver=f"{__name__}:by_header") as service:
        assert regime(await banner(service, X_Shop_State="ca")) == "ccpa"
        assert regime(await banner(service)) == "gdpr"


async def test_the_resolver_stands_between_the_headers_and_the_file(
    staged: Staged, geoip: Path
) -> None:
    async with staged(
        **CLOUDFLARE, region_resolver=f"{__name__}:by_address", geoip_file=geoip
    ) as service:
        assert regime(await banner(service)) == "lgpd"
        assert regime(await banner(service, CF_IPCountry="US", CF_Region_Code="CA")) == "ccpa"
        unresolved = await banner(service, X_Forwarded_For="198.51.100.7")
        assert regime(unresolved) == "lgpd"


@pytest.mark.parametrize("name", ["broken", "wrong", "missing"])
async def test_a_resolver_that_fails_leaves_the_region_unknown_and_is_told_once_a_minute(
    staged: Staged, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with staged(region_resolver=f"{__name__}:{name}") as service:
        assert regime(await banner(service)) == "gdpr"
        assert regime(await banner(service)) == "gdpr"
        assert finding(service, "region resolver")["ok"] is (name != "missing")

    told = capfd.readouterr()
    assert (told.out + told.err).count("region_resolver_failed") == 1
    assert "203.0.113.9" not in told.out + told.err


def test_the_resolver_is_found_on_pythons_path(tmp_path: Path) -> None:
    (tmp_path / "shop_regions.py").write_text("def region(headers, address): return 'DE'")
    sys.path.insert(0, str(tmp_path))
    try:
        found = resolver.imported("shop_regions:region")
    finally:
        sys.path.remove(str(tmp_path))
    assert found({}, "") == "DE"


@pytest.mark.parametrize("name", ["module", "module:", ":function", "a:b:c", "a b:c"])
def test_what_names_no_function_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(ValidationError, match="region_resolver"):
        Settings(region_resolver=name)


def finding(service: Stage, name: str) -> dict[str, Any]:
    """What ``quittance doctor`` says of one thing."""
    (found,) = [
        each for each in checking.doctor(service.app.state.settings) if each["name"] == name
    ]
    return found
