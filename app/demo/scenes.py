"""The demo's requests, past and open: a table of who, what, when and how it went."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from app.core.ids import base62
from app.demo import cast
from app.demo.consents import Withdrawal
from app.sites import regimes
from app.subject_requests.states import Kind
from connectors.contract import Identifier
from connectors.contract import Kind as IdentifierKind


class Turn(StrEnum):
    """How a request goes on after its intake."""

    CARRIED_OUT = "carried_out"
    """All deliveries answered, receipt delivered, person forgotten."""
    TICKED_OFF = "ticked_off"
    """The same, with a human task done on the next day."""
    ANSWERED = "answered"
    DENIED = "denied"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    HUMAN_TASK_OPEN = "human_task_open"
    WAITS_FOR_ANSWER = "waits_for_answer"
    EXTENDED = "extended"
    ON_HOLD = "on_hold"
    AWAITS_APPROVAL = "awaits_approval"
    AWAITS_VERIFICATION = "awaits_verification"


ENDED = frozenset(
    {Turn.CARRIED_OUT, Turn.TICKED_OFF, Turn.ANSWERED, Turn.DENIED, Turn.CANCELLED, Turn.EXPIRED}
)


@dataclass(frozen=True, slots=True)
class Scene:
    """One request; ``channel``: form, api or consent."""

    kind: Kind
    who: Identifier
    at: dt.datetime
    turn: Turn
    channel: str = "form"
    regime: str = "gdpr"
    language: str = "en"
    note: str | None = None
    purposes: Sequence[str] = ()
    id: str = field(default="")

    @property
    def is_ended(self) -> bool:
        return self.turn in ENDED


def scenes(
    withdrawals: Sequence[Withdrawal], workspace_id: str, now: dt.datetime, timezone: str
) -> list[Scene]:
    """What has ended in order of time, then what is open, an open human task last.

    The ids are the same every time.
    """
    told = [*_ended(now), *(_of_withdrawal(each) for each in withdrawals)]
    told.sort(key=lambda each: each.at)
    everything = (*told, *_open(now, timezone))
    return [
        replace(each, id=_id(workspace_id, number, each.at))
        for number, each in enumerate(everything)
    ]


def _id(workspace_id: str, number: int, at: dt.datetime) -> str:
    """Like ``new_id``, with a digest for random bits: an interrupted past is resumed."""
    digest = hashlib.blake2b(f"{workspace_id}|{number}".encode(), digest_size=16).digest()
    return f"req_{base62(int(at.timestamp() * 1000) << 128 | int.from_bytes(digest, 'big'), 30)}"


def _ended(now: dt.datetime) -> list[Scene]:
    erased = [_email(cast.email_of(name)) for name in cast.FORMER]
    done = Turn.CARRIED_OUT

    def at(days: int, hour: int, minute: int) -> dt.datetime:
        return (now - dt.timedelta(days=days)).replace(
            hour=hour, minute=minute, second=11, microsecond=0
        )

    return [
        Scene(Kind.ERASURE, erased[0], at(33, 9, 12), done, language="de"),
        Scene(Kind.ERASURE, erased[8], at(31, 17, 40), done, "api", "ccpa"),
        Scene(
            Kind.OPT_OUT,
            _email("max.frey@example.net"),
            at(30, 11, 5),
            Turn.TICKED_OFF,
            language="de",
        ),
        Scene(Kind.ERASURE, erased[1], at(27, 20, 31), done, language="de"),
        Scene(Kind.ACCESS, _of("Tomasz Zielinski"), at(26, 8, 55), Turn.ANSWERED),
        Scene(Kind.ERASURE, erased[2], at(21, 14, 2), done, "api", "uk_gdpr"),
        Scene(Kind.ERASURE, _of("Bruno Keller"), at(19, 10, 47), Turn.DENIED, language="de"),
        Scene(Kind.ERASURE, erased[3], at(17, 16, 20), done, language="fr"),
        Scene(Kind.SUPPRESSION, _email("no-mail@example.net"), at(14, 13, 33), done, "api"),
        Scene(Kind.ERASURE, erased[4], at(12, 7, 58), done),
        Scene(Kind.ERASURE, _of("Greta Holm"), at(11, 21, 15), Turn.CANCELLED),
        Scene(Kind.ERASURE, erased[5], at(9, 12, 44), done, language="es"),
        Scene(Kind.UNSUPPRESSION, _email("no-mail@example.net"), at(7, 9, 9), done, "api"),
        Scene(Kind.ERASURE, _email("typo@example.org"), at(6, 18, 3), Turn.EXPIRED),
        Scene(Kind.ERASURE, erased[6], at(5, 15, 26), done, language="de"),
        Scene(Kind.ERASURE, erased[7], at(1, 10, 37), done),
    ]


def _open(now: dt.datetime, timezone: str) -> list[Scene]:
    ago = dt.timedelta
    return [
        Scene(
            Kind.ACCESS,
            _of("Youssef Haddad"),
            _nearly_due(now, timezone),
            Turn.WAITS_FOR_ANSWER,
            language="fr",
        ),
        Scene(Kind.ACCESS, _of("Nadia Petrova"), now - ago(days=20), Turn.EXTENDED),
        Scene(
            Kind.ERASURE,
            _of("Dario Conti"),
            now - ago(days=8, hours=3),
            Turn.ON_HOLD,
            language="it",
        ),
        Scene(Kind.ERASURE, _email(cast.KITCHEN), now - ago(days=3, hours=1), Turn.AWAITS_APPROVAL),
        Scene(
            Kind.RECTIFICATION,
            _of("Camille Laurent"),
            now - ago(days=2, hours=5),
            Turn.WAITS_FOR_ANSWER,
            language="fr",
            note="I have moved. My new street is Rue de la Roquette 88.",
        ),
        Scene(
            Kind.ERASURE, _of("Elif Kaya"), now - ago(hours=3, minutes=20), Turn.AWAITS_VERIFICATION
        ),
        Scene(
            Kind.OPT_OUT,
            _of("Lucie Moreau"),
            now - ago(days=1, hours=6),
            Turn.HUMAN_TASK_OPEN,
            language="fr",
        ),
    ]


def _of_withdrawal(each: Withdrawal) -> Scene:
    who = Identifier(IdentifierKind.ANONYMOUS_ID, each.visitor_id)
    return Scene(
        Kind.OPT_OUT,
        who,
        each.at + dt.timedelta(seconds=1),
        Turn.CARRIED_OUT,
        "consent",
        each.regime,
        purposes=each.purposes,
    )


def _nearly_due(now: dt.datetime, timezone: str) -> dt.datetime:
    """The oldest moment from which a copy of one's data is still owed for more than a day."""
    law = regimes.get("gdpr")
    for days in range(34, 20, -1):
        at = now - dt.timedelta(days=days)
        if regimes.clocks(law, Kind.ACCESS, at, timezone).due_at > now + dt.timedelta(days=1):
            return at
    return now - dt.timedelta(days=27)


def _of(name: str) -> Identifier:
    return _email(cast.email_of(name))


def _email(value: str) -> Identifier:
    return Identifier(IdentifierKind.EMAIL, value)
