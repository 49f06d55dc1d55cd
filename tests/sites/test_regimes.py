"""Clocks and regions by table, and what must hold for every date by hypothesis."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app import checking
from app.compose import Runtime
from app.core.errors import Invalid
from app.core.settings import Settings
from app.crypto import keyring
from app.sites import regimes
from app.sites.banner import regime_of, request_regime_of, show, strict
from app.sites.config import SiteConfig
from app.sites.directory import Notice, notice_of
from app.sites.models import NoticeVersion

REGIMES = tuple(regimes.load())
ZONES = ("UTC", "Europe/Berlin", "America/Los_Angeles", "America/Sao_Paulo", "Pacific/Kiritimati")

moments = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2090, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001
kinds = st.sampled_from(regimes.REQUEST_KINDS)
laws = st.sampled_from(REGIMES)
zones = st.sampled_from(ZONES)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def test_the_strictest_law_comes_first() -> None:
    states = [each for each in REGIMES if each.startswith("us_")]
    assert [*REGIMES] == ["gdpr", "uk_gdpr", "lgpd", "ccpa", *states, "au_privacy"]


@pytest.mark.parametrize(
    ("regime", "kind", "received", "zone", "due"),
    [
        ("gdpr", "erasure", "2026-01-31T10:00:00Z", "UTC", "2026-03-02T23:59:59Z"),
        ("ccpa", "erasure", "2026-01-31T10:00:00Z", "UTC", "2026-03-17T23:59:59Z"),
        ("gdpr", "access", "2026-11-23T00:00:00Z", "UTC", "2026-12-23T23:59:59Z"),
        ("gdpr", "erasure", "2027-01-30T12:00:00Z", "UTC", "2027-03-01T23:59:59Z"),
        ("gdpr", "erasure", "2028-01-31T12:00:00Z", "UTC", "2028-02-29T23:59:59Z"),
        ("uk_gdpr", "erasure", "2026-01-31T10:00:00Z", "Europe/London", "2026-03-02T23:59:59Z"),
        # In Los Angeles it is still the 30th; 45 days later summer time has begun.
        ("ccpa", "erasure", "2026-01-31T07:00:00Z", "America/Los_Angeles", "2026-03-17T06:59:59Z"),
        # 15 business days: three weeks, whatever weekday but a day off.
        ("ccpa", "opt_out", "2026-11-23T10:00:00Z", "UTC", "2026-12-14T23:59:59Z"),
        ("ccpa", "limit_use", "2026-11-21T10:00:00Z", "UTC", "2026-12-11T23:59:59Z"),
        ("lgpd", "access", "2026-11-23T10:00:00Z", "UTC", "2026-12-08T23:59:59Z"),
        (
            "lgpd",
            "access",
            "2026-11-20T10:00:00Z",
            "UTC",
            "2026-12-05T23:59:59Z",
        ),  # a Saturday stays
        ("gdpr", "erasure", "2026-12-31T23:30:00Z", "Europe/Berlin", "2027-02-01T22:59:59Z"),
    ],
)
def test_a_request_is_due_at_the_last_second_of_the_last_day(
    regime: str, kind: str, received: str, zone: str, due: str
) -> None:
    assert regimes.clocks(regimes.get(regime), kind, at(received), zone).due_at == at(due)


def test_california_wants_an_acknowledgement_in_ten_business_days() -> None:
    clocks = regimes.clocks(regimes.get("ccpa"), "erasure", at("2026-11-23T10:00:00Z"))

    assert clocks.acknowledge_by == at("2026-12-07T23:59:59Z")
    assert (
        regimes.clocks(regimes.get("gdpr"), "erasure", at("2026-11-23T10:00:00Z")).acknowledge_by
        is None
    )


@pytest.mark.parametrize(
    ("regime", "kind", "limit"),
    [
        ("gdpr", "erasure", "2026-04-30T23:59:59Z"),
        ("ccpa", "erasure", "2026-05-01T23:59:59Z"),
        ("ccpa", "opt_out", None),
        ("lgpd", "access", None),
    ],
)
def test_extensions_count_from_receipt(regime: str, kind: str, limit: str | None) -> None:
    found = regimes.extension_limit(regimes.get(regime), kind, at("2026-01-31T10:00:00Z"))

    assert found == (at(limit) if limit else None)


def test_a_holiday_of_the_law_file_is_a_day_off(tmp_path: Path) -> None:
    text = (Path(regimes.__file__).parent / "laws" / "gdpr.toml").read_text(encoding="utf-8")
    (tmp_path / "gdpr.toml").write_text(text.replace("holidays = []", "holidays = [2026-12-25]"))
    regime = regimes.load(tmp_path)["gdpr"]

    # 25 December 2026 is a Friday.
    assert regimes.clocks(regime, "erasure", at("2026-11-25T10:00:00Z")).due_at == at(
        "2026-12-28T23:59:59Z"
    )


def test_no_law_file_lets_an_erasure_pass_unverified(tmp_path: Path) -> None:
    text = (Path(regimes.__file__).parent / "laws" / "gdpr.toml").read_text(encoding="utf-8")
    (tmp_path / "gdpr.toml").write_text(
        text.replace('unverified = ["opt_out"]', 'unverified = ["erasure"]')
    )

    with pytest.raises(ValidationError):
        regimes.load(tmp_path)


def test_who_refused_is_left_alone_for_a_year_where_people_opt_out(tmp_path: Path) -> None:
    """Cal. Civ. Code 1798.135(c)(4): at least 12 months, of which one may have 29 days."""
    year = regimes.get("ccpa").left_alone
    assert dt.date(2027, 3, 1) + year >= dt.date(2028, 3, 1)
    assert [law.id for law in regimes.load().values() if law.left_alone] == ["ccpa"]

    laws = Path(regimes.__file__).parent / "laws"
    text = (laws / "gdpr.toml").read_text(encoding="utf-8")
    asks_first = 'mode = "opt_in"\n'
    (tmp_path / "gdpr.toml").write_text(
        text.replace(asks_first, f"{asks_first}reask_after_days = 365\n")
    )
    with pytest.raises(ValidationError, match="people opt out"):
        regimes.load(tmp_path)


@pytest.mark.parametrize(
    ("region", "allowed", "regime"),
    [
        ("DE", (), "gdpr"),
        ("de-by", (), "gdpr"),
        ("GB", (), "uk_gdpr"),
        ("US-CA", (), "ccpa"),
        ("US-NY", (), "gdpr"),
        ("BR", (), "lgpd"),
        (None, (), "gdpr"),
        ("", ("ccpa", "lgpd"), "lgpd"),
        ("JP", ("ccpa",), "ccpa"),
        ("AU-NSW", (), "au_privacy"),
        ("AU", ("gdpr", "ccpa"), "gdpr"),
        ("DE", ("ccpa", "lgpd"), "lgpd"),
        ("FR", ("au_privacy",), "au_privacy"),
        ("<script>", (), "gdpr"),
        ("US-CA", ("gone",), "ccpa"),
    ],
)
def test_the_law_of_a_region(region: str | None, allowed: tuple[str, ...], regime: str) -> None:
    assert regimes.regime_for(region, allowed).id == regime


@pytest.mark.parametrize(
    ("region", "allowed", "regime"),
    [
        ("DE", ("gdpr", "ccpa"), "gdpr"),
        ("US-CA", ("gdpr", "ccpa"), "ccpa"),
        (None, ("ccpa", "lgpd"), "lgpd"),
        ("US-NY", (), "gdpr"),
        # What a site leaves out takes no question away,
        ("DE", ("ccpa", "lgpd"), "gdpr"),
        ("FR", ("au_privacy",), "gdpr"),
        ("GB-SCT", ("au_privacy", "ccpa"), "uk_gdpr"),
        ("US-CA", ("au_privacy",), "ccpa"),
        (None, ("au_privacy",), "gdpr"),
        ("EU", ("au_privacy",), "gdpr"),
        ("XX", ("ccpa",), "gdpr"),
        # and loosens nothing either.
        ("US-CA", ("gdpr",), "gdpr"),
        ("GB", ("gdpr",), "gdpr"),
        ("BR", ("uk_gdpr",), "uk_gdpr"),
        ("US-CO", ("au_privacy",), "us_co"),
        ("US-CO", ("ccpa", "us_co"), "us_co"),
        ("US-CO", ("ccpa",), "ccpa"),
        # Where no law of ours is known to hold, the site's strictest does.
        ("JP", ("au_privacy",), "au_privacy"),
        ("US", ("ccpa",), "ccpa"),
    ],
)
def test_the_law_that_asks_in_a_region(
    region: str | None, allowed: tuple[str, ...], regime: str
) -> None:
    assert regimes.asking_regime_for(region, allowed).id == regime


regions = st.one_of(
    st.none(),
    st.sampled_from(sorted({each for law in regimes.load().values() for each in law.regions})),
    st.text("ABDEGRUSX-", max_size=5),
)


@given(regions, st.lists(laws, max_size=3))
def test_a_law_that_asks_first_is_taken_from_nobody(region: str | None, allowed: list[str]) -> None:
    found = regimes.asking_regime_for(region, allowed)
    assert regimes.may_ask(found.id, allowed)
    if regimes.asking_regime_for(region).mode == "opt_in" and found.mode != "opt_in":
        assert region is not None, "an unknown region is asked"
        covering = [law for law in regimes.load().values() if region[:2] in law.regions]
        assert all(law.mode != "opt_in" for law in covering)


def test_a_new_site_starts_with_laws_that_are_verified_and_offer_a_choice() -> None:
    assert regimes.offering_a_choice() == ("gdpr", "uk_gdpr", "lgpd", "ccpa")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    regimes.use(None)


def _copy(law: str, to: Path, **changes: str) -> None:
    text = (Path(regimes.__file__).parent / "laws" / f"{law}.toml").read_text(encoding="utf-8")
    for old, new in changes.items():
        text = text.replace(old, new)
    to.write_text(text, encoding="utf-8")


def test_an_operators_law_counts_beside_the_shipped_ones(own: Path) -> None:
    _copy("us_co", own / "us_va.toml", us_co="us_va", CO="VA", Colorado="Virginia")
    assert regimes.regime_for("US-VA").id == "gdpr"
    regimes.use(own)
    assert regimes.regime_for("US-VA").name == "Consumer privacy act of Virginia"
    assert SiteConfig(regimes=("gdpr", "us_va")).regimes == ("gdpr", "us_va")
    assert "us_va" not in regimes.offering_a_choice()
    regimes.use(None)
    assert "us_va" not in regimes.load()


def test_an_operators_law_takes_the_place_of_the_shipped_one_with_its_id(own: Path) -> None:
    _copy("lgpd", own / "lgpd.toml", **{"days = 15": "days = 10"})
    regimes.use(own)
    assert regimes.get("lgpd").clocks_of("access").answer.days == 10
    assert len(regimes.load()) == len(REGIMES)


def test_a_faulty_law_file_stops_the_start_and_is_named(own: Path) -> None:
    _copy("lgpd", own / "br.toml")
    with pytest.raises(ValueError, match="describes 'lgpd'") as caught:
        regimes.use(own)
    assert caught.value.__notes__ == ["in the law file br.toml"]
    assert tuple(regimes.load()) == REGIMES
    with pytest.raises(NotADirectoryError):
        regimes.use(own / "nowhere")


async def test_every_process_reads_the_directory_that_the_setting_names_and_so_does_the_doctor(
    own: Path,
) -> None:
    places = own / "laws"
    places.mkdir()
    _copy("us_co", places / "us_va.toml", us_co="us_va", CO="VA")
    settings = Settings(data_dir=own, laws_dir=places)
    keyring.create(settings.key_file)
    Runtime(settings)
    assert regimes.get("us_va").regions == {"US-VA"}
    assert _told_by_the_doctor(settings) == (True, f"1 in {places}")

    _copy("lgpd", places / "br.toml")
    regimes.load.cache_clear()
    is_fine, detail = _told_by_the_doctor(settings)
    assert not is_fine
    assert detail.endswith("in the law file br.toml")


def _told_by_the_doctor(settings: Settings) -> tuple[bool, str]:
    (found,) = [each for each in checking.doctor(settings) if each["name"] == "law files"]
    return found["ok"], found["detail"]


def test_no_region_has_two_laws() -> None:
    covered = [each for law in regimes.load().values() for each in law.regions]
    assert len(covered) == len(set(covered))


@pytest.mark.parametrize(
    "state", ["co", "ct", "tx", "mt", "or", "de", "nj", "nh", "ne", "mn", "md"]
)
def test_a_state_with_a_universal_opt_out_signal_has_it_honoured_where_a_site_lists_its_law(
    state: str,
) -> None:
    law = regimes.get(f"us_{state}")
    received = at("2026-11-23T10:00:00Z")
    assert regimes.clocks(law, "access", received).due_at == at("2027-01-07T23:59:59Z")
    assert regimes.extension_limit(law, "access", received) == at("2027-02-21T23:59:59Z")

    listed = _published("gdpr", law.id)
    answer = show(listed, ["en"], f"US-{state.upper()}", gpc=True)
    assert (answer["regime"], answer["mode"], answer["shown"]) == (law.id, "opt_out", False)
    assert [each["default"] for each in answer["purposes"]] == [False]
    assert show(listed, ["en"], "US-WY")["regime"] == "gdpr"


def test_a_law_may_ask_where_it_is_listed_or_stricter() -> None:
    found = [each for each in (*regimes.load(), "gone") if regimes.may_ask(each, ["lgpd"])]
    assert found == ["gdpr", "uk_gdpr", "lgpd"]
    assert regimes.may_ask("au_privacy", ["gone"])


def test_laws_that_ask_first_are_the_strictest() -> None:
    asks = [law.mode == "opt_in" for law in regimes.load().values()]
    assert asks == sorted(asks, reverse=True)


def test_an_unknown_regime_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match="gdpr, uk_gdpr"):
        regimes.get("hipaa")


def test_which_opt_outs_need_no_proof() -> None:
    ccpa = regimes.get("ccpa")

    assert ccpa.opt_out_business_days == 15
    assert regimes.get("gdpr").opt_out_business_days is None
    assert not ccpa.needs_verification("limit_use")
    assert ccpa.needs_verification("erasure")


@given(laws, kinds, moments, zones)
def test_every_due_moment_is_a_last_second_after_receipt(
    law: str, kind: str, received: dt.datetime, zone: str
) -> None:
    due = regimes.clocks(regimes.get(law), kind, received, zone).due_at
    local, following = (
        due.astimezone(ZoneInfo(zone)),
        (due + dt.timedelta(seconds=1)).astimezone(ZoneInfo(zone)),
    )

    assert due > received
    assert local.date() < following.date()


@given(laws, kinds, moments, zones)
def test_rolling_laws_never_end_on_a_day_off(
    law: str, kind: str, received: dt.datetime, zone: str
) -> None:
    regime = regimes.get(law)
    due = regimes.clocks(regime, kind, received, zone).due_at.astimezone(ZoneInfo(zone))
    rules = regime.clocks_of(kind)

    if rules.rolls or rules.answer.business_days:
        assert due.weekday() < 5


@given(laws, kinds, moments, st.timedeltas(dt.timedelta(0), dt.timedelta(days=400)), zones)
def test_a_later_request_is_never_due_earlier(
    law: str, kind: str, received: dt.datetime, later: dt.timedelta, zone: str
) -> None:
    regime = regimes.get(law)
    first = regimes.clocks(regime, kind, received, zone)
    second = regimes.clocks(regime, kind, received + later, zone)

    assert first.due_at <= second.due_at


@given(laws, kinds, moments, zones)
def test_an_extension_ends_after_the_first_clock(
    law: str, kind: str, received: dt.datetime, zone: str
) -> None:
    limit = regimes.extension_limit(regimes.get(law), kind, received, zone)

    assert limit is None or limit > regimes.clocks(regimes.get(law), kind, received, zone).due_at


@given(st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1)), st.integers(0, 60))
def test_months_keep_the_day_number_or_take_the_last_day(day: dt.date, months: int) -> None:
    found = regimes.add_months(day, months)

    assert (found.year * 12 + found.month) - (day.year * 12 + day.month) == months
    assert found.day == day.day or (found + dt.timedelta(days=1)).day == 1


def notice(**laws: Any) -> Notice:
    """A notice published when these laws were as they are told here."""
    content = {
        "format": 1, "site_key": "site_1", "controller": {"name": "Shop"}, "policy_url": "",
        "expiry_days": 1, "theme": {},
        "purposes": [{"id": "ads", "required": False, "denied_by_gpc": True}],
        "mapping": {}, "default_language": "en", "regimes": laws,
        "languages": {
            "en": {"direction": "ltr", "texts": {}, "purposes": {"ads": {"name": "Ads"}}}
        },
    }  # fmt: skip
    version = NoticeVersion(
        id="ntv_1", site_id="ste_1", number=1, sha256="", content=content, published_by="",
        published_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )  # fmt: skip
    return notice_of(version)


def test_a_notice_keeps_the_law_it_was_published_under() -> None:
    """A newer law file says opt-in and nothing of the signal; what visitors saw was otherwise."""
    then = notice(gdpr={"mode": "opt_out", "honours_gpc": True, "shown": True})
    regime = regime_of(then, "DE")
    assert (regime.id, regime.mode, regime.honours_gpc) == ("gdpr", "opt_out", True)
    assert regimes.get("gdpr").mode == "opt_in"

    answer = show(then, ["en"], "DE", gpc=True)
    assert (answer["mode"], answer["shown"], answer["honours_gpc"]) == ("opt_out", False, True)
    assert [each["default"] for each in answer["purposes"]] == [False]

    asks_first = notice(ccpa={"mode": "opt_in", "honours_gpc": True, "shown": True})
    assert show(asks_first, ["en"], "US-CA")["reask_after_days"] is None
    assert show(_published("ccpa"), ["en"], "US-CA")["reask_after_days"] == 366


def test_a_notice_whose_laws_are_all_gone_asks_as_the_regions_law_does() -> None:
    gone = notice(atlantis={"mode": "opt_out", "honours_gpc": False, "shown": False})
    answer = show(gone, ["en"], "DE")
    assert (answer["mode"], answer["shown"]) == ("opt_in", True)
    assert [each["default"] for each in answer["purposes"]] == [False]


def test_a_region_whose_law_the_site_left_out_is_asked_by_it() -> None:
    told = show(_published("au_privacy"), ["en"], "AU")
    assert (told["mode"], [each["default"] for each in told["purposes"]]) == ("notice", [True])
    for region, law in (("DE", "gdpr"), ("BR", "lgpd"), (None, "gdpr")):
        asked = show(_published("au_privacy"), ["en"], region)
        assert request_regime_of(_published("au_privacy"), region).id == "au_privacy"
        assert (asked["regime"], asked["mode"], asked["shown"]) == (law, "opt_in", True)
        assert [each["default"] for each in asked["purposes"]] == [False]


def test_every_time_zone_of_a_law_exists() -> None:
    known = available_timezones()
    for law in regimes.load().values():
        for zone in law.timezones:
            assert any(
                name.startswith(zone) if zone.endswith("/") else name == zone for name in known
            ), zone


def _published(*laws: str) -> Notice:
    return notice(
        **{
            each: {"mode": law.mode, "honours_gpc": law.honours_gpc, "shown": True}
            for each in laws
            for law in [regimes.get(each)]
        }
    )


def test_the_longest_name_of_a_time_zone_decides_among_the_laws_that_ask_first() -> None:
    everywhere = _published("gdpr", "uk_gdpr", "lgpd", "ccpa", "au_privacy")
    for region in ("US-CA", "AU"):
        found = strict(everywhere, show(everywhere, ["en"], region))
        zones = dict(found["zones"])
        assert list(zones)[-1] == "Europe/"
        assert (zones["Europe/"], zones["Europe/London"], zones["America/Sao_Paulo"]) == (
            "gdpr", "uk_gdpr", "lgpd",
        )  # fmt: skip
        assert found["honours_gpc"] == ["gdpr", "uk_gdpr"]

    here = _published("gdpr", "ccpa")
    assert "Europe/London" not in dict(strict(here, show(here, ["en"], "US-CA"))["zones"])


def test_nothing_is_tightened_where_the_law_asks_first_or_none_does() -> None:
    everywhere = _published("gdpr", "lgpd", "ccpa")
    assert strict(everywhere, show(everywhere, ["en"], "BR")) == {}
    assert strict(everywhere, show(everywhere, ["en"])) == {}
    california = _published("ccpa")
    assert strict(california, show(california, ["en"], "US-CA")) == {}


@pytest.mark.parametrize(
    ("region", "named", "regime"),
    [
        ("US-CA", "gdpr", "gdpr"),
        ("US-CA", "lgpd", "lgpd"),
        ("AU", "gdpr", "gdpr"),
        ("AU", "ccpa", "au_privacy"),
        ("US-CA", "au_privacy", "ccpa"),
        ("US-CA", "hipaa", "ccpa"),
        ("BR", "gdpr", "lgpd"),
        ("DE", "ccpa", "gdpr"),
        (None, "ccpa", "gdpr"),
    ],
)
def test_a_time_zone_only_ever_tightens(region: str | None, named: str, regime: str) -> None:
    then = _published("gdpr", "lgpd", "ccpa", "au_privacy")
    assert regime_of(then, region, named).id == regime
