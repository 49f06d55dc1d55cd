"""The request's state machine: a table of allowed moves and the kinds it knows."""

from __future__ import annotations

from enum import StrEnum

from app.core.errors import Conflict
from connectors.contract import Operation


class Status(StrEnum):
    AWAITING_VERIFICATION = "awaiting_verification"
    AWAITING_APPROVAL = "awaiting_approval"
    ON_HOLD = "on_hold"
    COOLING_OFF = "cooling_off"
    RESOLVING = "resolving"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    COMPLETED_WITH_EXCEPTIONS = "completed_with_exceptions"
    DENIED = "denied"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Kind(StrEnum):
    ERASURE = "erasure"
    ACCESS = "access"
    PORTABILITY = "portability"
    RECTIFICATION = "rectification"
    RESTRICTION = "restriction"
    OBJECTION = "objection"
    OPT_OUT = "opt_out"
    LIMIT_USE = "limit_use"
    SUPPRESSION = "suppression"
    UNSUPPRESSION = "unsuppression"


OPERATIONS = {
    Kind.ERASURE: Operation.ERASE,
    Kind.OPT_OUT: Operation.SUPPRESS,
    Kind.SUPPRESSION: Operation.SUPPRESS,
    Kind.UNSUPPRESSION: Operation.UNSUPPRESS,
}
"""Kinds carried out automatically; the others become a task of an operator."""

FINAL = frozenset(
    {
        Status.COMPLETED,
        Status.COMPLETED_WITH_EXCEPTIONS,
        Status.DENIED,
        Status.CANCELLED,
        Status.EXPIRED,
    }
)
BEFORE_FAN_OUT = frozenset(
    {
        Status.AWAITING_VERIFICATION,
        Status.AWAITING_APPROVAL,
        Status.ON_HOLD,
        Status.COOLING_OFF,
        Status.RESOLVING,
    }
)

MOVES: dict[str, dict[Status, Status]] = {
    "verify": {Status.AWAITING_VERIFICATION: Status.RESOLVING},
    "approve": {Status.AWAITING_APPROVAL: Status.RESOLVING},
    "deny": dict.fromkeys(BEFORE_FAN_OUT | {Status.IN_PROGRESS}, Status.DENIED),
    "cancel": dict.fromkeys(BEFORE_FAN_OUT | {Status.IN_PROGRESS}, Status.CANCELLED),
    "hold": dict.fromkeys(
        BEFORE_FAN_OUT - {Status.ON_HOLD, Status.AWAITING_VERIFICATION}, Status.ON_HOLD
    ),
    "extend": {each: each for each in Status if each not in FINAL},
    "release": {Status.ON_HOLD: Status.RESOLVING},
}


class WrongState(Conflict):
    slug, title = "wrong-state", "The request is not in a state that allows this"


def move(status: str, event: str) -> Status:
    """The status after an event, or ``WrongState``."""
    try:
        return MOVES[event][Status(status)]
    except KeyError:
        allowed = ", ".join(sorted(MOVES[event]))
        raise WrongState(f"`{event}` needs one of: {allowed}. The request is `{status}`.") from None
