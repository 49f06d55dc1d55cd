"""Regimes: which law applies to a visitor or a request, and the clocks it sets. Pure functions over
``laws/*.toml`` and an operator's own law files."""

from __future__ import annotations

import calendar
import datetime as dt
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.core.errors import Invalid

_LAWS = Path(__file__).parent / "laws"
_REGION = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")
_ONE_DAY = dt.timedelta(days=1)

REQUEST_KINDS = (
    "erasure",
    "access",
    "portability",
    "rectification",
    "restriction",
    "objection",
    "opt_out",
    "limit_use",
    "suppression",
    "unsuppression",
)
"""Every kind of data subject request; a law file sets clocks for some and a default for the
rest."""

_ALWAYS_VERIFIED = frozenset({"erasure", "access", "portability", "rectification", "unsuppression"})


Mode = Literal["opt_in", "opt_out", "notice"]
"""May purposes run before a choice? ``notice``: they may, and the law only wants people told."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Period(_Strict):
    """A length of time as laws count it; exactly one member is set."""

    months: int | None = Field(None, ge=1, le=24)
    days: int | None = Field(None, ge=1, le=400)
    business_days: int | None = Field(None, ge=1, le=100)

    @model_validator(mode="after")
    def _one(self) -> Period:
        if len(self.model_fields_set) != 1:
            raise ValueError("a period is given in months, days or business_days")
        return self


class KindClocks(_Strict):
    """The clocks of one request kind. ``rolls``: a last day that is a day off moves to the next
    working day."""

    acknowledge: Period | None = None
    answer: Period
    extension: Period | None = None
    rolls: bool

    @model_validator(mode="after")
    def _same_unit(self) -> KindClocks:
        if self.extension and self.extension.model_fields_set != self.answer.model_fields_set:
            raise ValueError("answer and extension are counted in the same unit")
        return self


class _Consent(_Strict):
    mode: Mode
    honours_gpc: bool
    reask_after_days: int | None = Field(None, ge=1, le=400)

    @model_validator(mode="after")
    def _opt_out(self) -> _Consent:
        if self.reask_after_days and self.mode != "opt_out":
            raise ValueError("reask_after_days is for laws under which people opt out")
        return self


class _Requests(_Strict):
    unverified: frozenset[str]

    @model_validator(mode="after")
    def _careful(self) -> _Requests:
        if not self.unverified <= frozenset(REQUEST_KINDS) - _ALWAYS_VERIFIED:
            raise ValueError("these kinds are unknown or need verification under every law")
        return self


class _LawFile(_Strict):
    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,31}$")]
    name: str
    source: str
    read_on: dt.date
    for_new_sites: bool = True
    regions: frozenset[Annotated[str, Field(pattern=f"^{_REGION.pattern}$")]]
    timezones: frozenset[Annotated[str, Field(pattern=r"^[A-Z]\w+/([\w/+-]*\w)?$")]] = frozenset()
    strictness: int
    holidays: frozenset[dt.date] = frozenset()
    consent: _Consent
    requests: _Requests
    clocks: dict[str, KindClocks]

    @model_validator(mode="after")
    def _known_kinds(self) -> _LawFile:
        if "default" not in self.clocks or not self.clocks.keys() <= {"default", *REQUEST_KINDS}:
            raise ValueError("clocks are set for `default` and for request kinds")
        return self


@dataclass(frozen=True, slots=True)
class Regime:
    """One law. ``strictness`` ranks them; ``mode`` says what may run before a choice.
    ``reask_after_days``: whoever refused is not asked again before.

    ``timezones``: IANA names, or beginnings of names that end in a slash.
    """

    id: str
    name: str
    source: str
    read_on: dt.date
    is_for_new_sites: bool
    regions: frozenset[str]
    timezones: frozenset[str]
    strictness: int
    holidays: frozenset[dt.date]
    mode: Mode
    honours_gpc: bool
    reask_after_days: int | None
    unverified_kinds: frozenset[str]
    _clocks: MappingProxyType[str, KindClocks]

    @property
    def left_alone(self) -> dt.timedelta:
        """For how long after a refusal nobody asks again, whatever else has changed."""
        is_opt_out = self.mode == "opt_out"
        return dt.timedelta(days=(self.reask_after_days or 0) if is_opt_out else 0)

    def clocks_of(self, kind: str) -> KindClocks:
        return self._clocks.get(kind) or self._clocks["default"]

    def needs_verification(self, kind: str) -> bool:
        """False where a request takes effect at once, without proof of who asks."""
        return kind not in self.unverified_kinds

    @property
    def opt_out_business_days(self) -> int | None:
        """How long an opt-out may take, where the law counts that in business days."""
        return self.clocks_of("opt_out").answer.business_days


@dataclass(frozen=True, slots=True)
class Clocks:
    """When a request must be acknowledged (if the law asks for it) and answered: last seconds of
    days, in UTC."""

    acknowledge_by: dt.datetime | None
    due_at: dt.datetime


# --- which law
# --------------------------------------------------------------------------------------------------


_own: list[Path] = []
"""The operator's directory of law files, if there is one; for this process, as the files themselves
are."""


def use(directory: Path | None) -> None:
    """Have an operator's law files count beside those that are shipped; one with the same id takes
    its place. A faulty file stops the start, with pydantic's reasons."""
    found = [directory] if directory else []
    for place in found:
        if not place.is_dir():
            raise NotADirectoryError(f"{place} is no directory with law files")
        load(place)
    if found != _own:
        _own[:] = found
        load.cache_clear()


@cache
def load(directory: Path | None = None) -> MappingProxyType[str, Regime]:
    """The laws by id, strictest first: those of a directory, else all that count."""
    places = [directory] if directory else [_LAWS, *_own]
    found = {law.id: law for place in places for law in map(_read, sorted(place.glob("*.toml")))}
    ranked = sorted(found.values(), key=lambda each: (-each.strictness, each.id))
    return MappingProxyType({each.id: each for each in ranked})


def _read(path: Path) -> Regime:
    try:
        law = _LawFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        if law.id != path.stem:
            raise ValueError(f"it describes {law.id!r}")
    except ValueError as error:
        error.add_note(f"in the law file {path.name}")
        raise
    return Regime(
        law.id,
        law.name,
        law.source,
        law.read_on,
        law.for_new_sites,
        law.regions,
        law.timezones,
        law.strictness,
        law.holidays,
        law.consent.mode,
        law.consent.honours_gpc,
        law.consent.reask_after_days,
        law.requests.unverified,
        MappingProxyType(law.clocks),
    )


def get(regime_id: str) -> Regime:
    """The law with this id, or 422."""
    if regime := load().get(regime_id):
        return regime
    raise Invalid(f"Regimes are: {', '.join(load())}.")


def known(regime_id: str) -> Regime:
    """The law of something stored: the strictest in place of one whose file is gone, or has not
    reached this process yet.
    """
    return load().get(regime_id) or next(iter(load().values()))


def offering_a_choice() -> tuple[str, ...]:
    """The laws a new site starts with. One that only wants people told, or is not verified, is for
    its operator to add: no upgrade may take the question away from a visitor."""
    return tuple(
        each.id for each in load().values() if each.is_for_new_sites and each.mode != "notice"
    )


def clean_region(text: str | None) -> str | None:
    """``de`` -> ``DE``, ``us-ca`` -> ``US-CA``; None for anything that is not an ISO 3166 code."""
    region = (text or "").strip().upper()
    return region if _REGION.fullmatch(region) else None


_NOWHERE = frozenset({"AP", "EU", "XX", "ZZ"})
"""What edges and databases say where they know no country (Cloudflare: ``XX``) or only a
continent."""


def region_named(country: str, subdivision: str = "") -> str | None:
    """``us`` and ``ca`` -> ``US-CA``; the country alone where the subdivision says nothing. None:
    unknown."""
    region = clean_region(country)
    if region is None or region in _NOWHERE:
        return None
    return clean_region(f"{region}-{subdivision.strip()}") or region


def regime_for(region: str | None, allowed: Iterable[str] = ()) -> Regime:
    """The law of a region among those a site allows (none named: all).

    The whole code counts first (``US-CA``), then its country. A region that is unknown, or that no
    allowed law covers, gets the strictest allowed one.
    """
    candidates = _allowed(allowed)
    code = clean_region(region)
    return (code and _covering(code, candidates)) or candidates[0]


def asking_regime_for(region: str | None, allowed: Iterable[str] = ()) -> Regime:
    """The law that says whether people of a region are asked first: as ``regime_for``, but what a
    site leaves out takes no question away.

    Where no allowed law covers the region, its own holds if that is stricter than what is allowed.
    An unknown region could be any, so its law asks first.
    """
    laws = load().values()  # strictest first
    candidates = _allowed(allowed)
    code = clean_region(region)
    if code is None or code in _NOWHERE:
        return next((law for law in (candidates[0], *laws) if law.mode == "opt_in"), candidates[0])
    if covering := _covering(code, candidates):
        return covering
    own = _covering(code, laws)
    return own if own and own.strictness > candidates[0].strictness else candidates[0]


def may_ask(regime_id: str, allowed: Iterable[str]) -> bool:
    """Whether ``asking_regime_for`` can name this law on a site that allows these."""
    law, candidates = load().get(regime_id), _allowed(allowed)
    return law is not None and (law in candidates or law.strictness > candidates[0].strictness)


def _allowed(ids: Iterable[str]) -> list[Regime]:
    """Strictest first; all where none of them is known."""
    wanted = set(ids)
    return [law for law in load().values() if law.id in wanted] or list(load().values())


def _covering(code: str, laws: Iterable[Regime]) -> Regime | None:
    listed = list(laws)
    for name in (code, code.partition("-")[0]):
        for law in listed:
            if name in law.regions:
                return law
    return None


# --- clocks ---------------------------------------------------------------------------------------
# --------------


def clocks(regime: Regime, kind: str, received_at: dt.datetime, timezone: str = "UTC") -> Clocks:
    """When a request that came in at ``received_at`` is due, counted in the days of ``timezone``
    (IANA name)."""
    rules, zone = regime.clocks_of(kind), ZoneInfo(timezone)
    day = received_at.astimezone(zone).date()

    def end(period: Period) -> dt.datetime:
        return _end_of(_after(day, period, regime, rolls=rules.rolls), zone)

    return Clocks(end(rules.acknowledge) if rules.acknowledge else None, end(rules.answer))


def extension_limit(
    regime: Regime, kind: str, received_at: dt.datetime, timezone: str = "UTC"
) -> dt.datetime | None:
    """The latest moment a request may be extended to, counted from receipt; None where the law
    knows no extension."""
    rules, zone = regime.clocks_of(kind), ZoneInfo(timezone)
    if rules.extension is None:
        return None
    unit = next(iter(rules.answer.model_fields_set))
    total = Period.model_validate(
        {unit: getattr(rules.answer, unit) + getattr(rules.extension, unit)}
    )
    return _end_of(
        _after(received_at.astimezone(zone).date(), total, regime, rolls=rules.rolls), zone
    )


def _after(day: dt.date, period: Period, regime: Regime, *, rolls: bool) -> dt.date:
    """The last day of a period that begins the day after ``day``."""
    if period.business_days is not None:
        return _add_business_days(day, period.business_days, regime)
    last = (
        day + dt.timedelta(days=period.days)
        if period.days is not None
        else add_months(day, period.months or 0)
    )
    while rolls and _is_day_off(last, regime):
        last += _ONE_DAY
    return last


def add_months(day: dt.date, months: int) -> dt.date:
    """The same day number, or that month's last day when it has no such number."""
    years, month = divmod(day.month - 1 + months, 12)
    year, month = day.year + years, month + 1
    return dt.date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


def _add_business_days(day: dt.date, count: int, regime: Regime) -> dt.date:
    while count:
        day += _ONE_DAY
        count -= not _is_day_off(day, regime)
    return day


def _is_day_off(day: dt.date, regime: Regime) -> bool:
    return day.weekday() >= calendar.SATURDAY or day in regime.holidays


def _end_of(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    """The day's last second, in UTC: one second before the next day begins, whatever the clocks do
    that night."""
    return dt.datetime.combine(day + _ONE_DAY, dt.time(), zone).astimezone(dt.UTC) - dt.timedelta(
        seconds=1
    )
