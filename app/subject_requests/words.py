"""What people read, in their language: texts from ``texts/*.json``, fixed substitution, dates in
words.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from app.sites.languages import best, direction

_TEXTS = Path(__file__).parent / "texts"
FALLBACK = "en"
LANGUAGES = (FALLBACK, *sorted({path.stem for path in _TEXTS.glob("*.json")} - {FALLBACK}))


@dataclass(frozen=True, slots=True)
class Words:
    """One language. Values are put in as they are and never read as templates."""

    tag: str
    name: str
    date_form: str
    months: tuple[str, ...]
    texts: dict[str, str]

    @property
    def direction(self) -> str:
        """The value of ``dir``."""
        return direction(self.tag)

    def __call__(self, key: str, **values: object) -> str:
        return self.texts[key].format_map(values) if values else self.texts[key]

    def first(self, *keys: str, **values: object) -> str:
        """The first of several keys that there is a text for."""
        return self(next(key for key in keys if key in self.texts), **values)

    def date(self, moment: dt.datetime, zone: str) -> str:
        """``23 November 2026``, the day in the IANA zone."""
        day = moment.astimezone(ZoneInfo(zone))
        return self.date_form.format(
            day=day.day, month=self.months[day.month - 1], year=f"{day:%Y}"
        )

    def minute(self, moment: dt.datetime, zone: str) -> str:
        """``23 November 2026, 14:05``."""
        return f"{self.date(moment, zone)}, {moment.astimezone(ZoneInfo(zone)):%H:%M}"


@cache
def words_of(tag: str) -> Words:
    """The language with this tag (``de-AT`` finds ``de``), else English."""
    found = best(LANGUAGES, [tag]) or FALLBACK
    content = json.loads((_TEXTS / f"{found}.json").read_text(encoding="utf-8"))
    return Words(
        found, content["name"], content["date"], tuple(content["months"]), content["texts"]
    )


def choose(wanted: Sequence[str], default: str = FALLBACK) -> Words:
    """The first wanted language that we speak, else the default."""
    return words_of(best(LANGUAGES, wanted) or default)
