"""Some weeks of consent records of invented visitors, made as the real ones are."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.consent.schemas import ConsentIn, Method
from app.consent.service import draft, fingerprint
from app.consent.state import Decision, withdrawn
from app.crypto.keyring import KeyRing
from app.sites.directory import Notice, PublishedSite

DAYS = 35
_PLACES = (
    ("DE", "de", 30),
    ("AT", "de", 7),
    ("FR", "fr", 12),
    ("ES", "es", 9),
    ("IT", "it", 7),
    ("NL", "nl", 6),
    ("GB", "en", 11),
    ("US-CA", "en", 8),
    ("US-NY", "en", 5),
    ("BR", "pt", 5),
)
_OPT_IN = ((Method.ACCEPT_ALL, 44), (Method.REJECT_ALL, 31), (Method.CUSTOM, 25))
_OPT_OUT = ((Method.ACCEPT_ALL, 62), (Method.DISMISSED, 38))
_PAGES = ("/demo/", "/demo/", "/demo/#beans", "/demo/#journal")
_WITHDRAWALS = (29, 23, 16, 8, 2)
"""Days ago on which somebody takes back what they had granted."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A record that took something back: what becomes a request of kind opt_out."""

    visitor_id: str
    regime: str
    purposes: list[str]
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Past:
    """``records`` are insertable rows of ``consent_record``, in order of time."""

    records: list[dict[str, Any]]
    withdrawals: list[Withdrawal]


def invent(
    ring: KeyRing,
    site: PublishedSite,
    notices: Sequence[tuple[dt.datetime, Notice]],
    origin: str,
    now: dt.datetime,
) -> Past:
    """The same visitors for the same ``now``. ``notices``: from when each was shown, the oldest
    first."""
    key = ring.derive("consent-event")[-1]
    invented = _Invented(site, notices, origin, key, now)
    records = [record for days_ago in range(DAYS, -1, -1) for record in invented.day(days_ago)]
    return Past(sorted(records, key=lambda each: str(each["id"])), invented.withdrawals)


class _Invented:
    def __init__(
        self,
        site: PublishedSite,
        notices: Sequence[tuple[dt.datetime, Notice]],
        origin: str,
        key: bytes,
        now: dt.datetime,
    ) -> None:
        self.withdrawals: list[Withdrawal] = []
        self._chance = random.Random(2021)  # noqa: S311 - invented visitors, no secrets
        self._site = site
        self._notices = notices
        self._origin = origin
        self._key = key
        self._now = now
        self._granted: list[ConsentIn] = []

    def day(self, days_ago: int) -> list[dict[str, Any]]:
        """A day's records: more at weekends, slowly growing, none in the future."""
        start = (self._now - dt.timedelta(days=days_ago)).replace(
            hour=6, minute=0, second=0, microsecond=0
        )
        busy = 1.4 if start.weekday() >= 5 else 1.0
        count = round((10 + (DAYS - days_ago) * 0.22 + self._chance.randrange(5)) * busy)
        moments = sorted(
            start + dt.timedelta(seconds=self._chance.randrange(16 * 3600)) for _ in range(count)
        )
        records = [self._record(self._choice(at), at) for at in moments if at < self._now]
        if days_ago in _WITHDRAWALS and self._granted:
            at = start + dt.timedelta(hours=9, minutes=days_ago)
            records.append(self._withdraw(self._granted.pop(0), at))
        return records

    def _choice(self, at: dt.datetime) -> ConsentIn:
        place, language, _ = self._one(_PLACES)
        gpc = place == "US-CA" and self._chance.random() < 0.4
        is_opt_out = place == "US-CA"
        method = Method.GPC if gpc else self._one(_OPT_OUT if is_opt_out else _OPT_IN)[0]
        return self._body(
            str(self._uuid()), place, language, method, self._choices(method), gpc=gpc, at=at
        )

    def _choices(self, method: Method) -> dict[str, bool]:
        match method:
            case Method.REJECT_ALL:
                functional = analytics = advertising = False
            case Method.CUSTOM:
                functional, advertising = True, False
                analytics = self._chance.random() < 0.55
            case Method.GPC:
                functional, analytics, advertising = True, True, False
            case _:
                functional = analytics = advertising = True
        return {"functional": functional, "analytics": analytics, "advertising": advertising}

    def _withdraw(self, before: ConsentIn, at: dt.datetime) -> dict[str, Any]:
        """Advertising alone, unticked in the banner's settings."""
        choices = before.choices | {"advertising": False}
        body = self._body(
            before.visitor_id,
            before.region or "DE",
            before.language,
            Method.CUSTOM,
            choices,
            gpc=False,
            at=at,
        )
        record = self._record(body, at)
        purposes = withdrawn(
            Decision(before.decided_at, before.choices), Decision(at, record["choices"])
        )
        self.withdrawals.append(Withdrawal(body.visitor_id, record["regime"], purposes, at))
        return record

    def _body(
        self,
        visitor_id: str,
        place: str,
        language: str,
        method: Method,
        choices: dict[str, bool],
        *,
        gpc: bool,
        at: dt.datetime,
    ) -> ConsentIn:
        notice = self._notice(at)
        if language not in notice.content["languages"]:
            language = notice.content["default_language"]
        decided_at = at - dt.timedelta(milliseconds=self._chance.randrange(60, 900))
        body = ConsentIn.model_validate(
            {
                "event_id": str(self._uuid()),
                "site_key": self._site.site_key,
                "visitor_id": visitor_id,
                "notice_version": notice.id,
                "choices": choices,
                "method": method,
                "language": language,
                "region": place,
                "gpc": gpc,
                "decided_at": decided_at.isoformat(),
                "page": self._origin + self._chance.choice(_PAGES),
            }
        )
        if method is Method.ACCEPT_ALL and place == "DE":
            self._granted.append(body)
        return body

    def _record(self, body: ConsentIn, at: dt.datetime) -> dict[str, Any]:
        digest = fingerprint(self._key, body)
        notice = self._notice(at)
        return draft(
            self._site, notice, body, digest=digest, has_gpc=body.gpc, region=None, now=at
        ).row

    def _notice(self, at: dt.datetime) -> Notice:
        return [notice for since, notice in self._notices if since <= at][-1]

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self._chance.getrandbits(128), version=4)

    def _one(self, options: Sequence[Any]) -> Any:
        return self._chance.choices(options, weights=[each[-1] for each in options])[0]
