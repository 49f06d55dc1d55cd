"""Consent: checking a choice against the notice that was shown, and turning it into a record. Pure
but for lookups."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable

from app.consent.errors import ChoicesDoNotFit, UnknownNotice
from app.consent.schemas import ConsentIn, Method
from app.consent.writer import Draft
from app.core.ids import new_id
from app.sites.banner import regime_of
from app.sites.directory import Notice, PublishedSite
from app.sites.regimes import Regime

MAX_AHEAD = dt.timedelta(minutes=5)
"""How far a device's clock may run ahead of ours."""

_EXPLICIT = frozenset({Method.ACCEPT_ALL, Method.CUSTOM})
"""A person's own act on this site: the only grants that stand against the GPC signal."""
_GRANTS_NOTHING = frozenset({Method.REJECT_ALL, Method.WITHDRAWAL})
_ACTS = frozenset({Method.REJECT_ALL, Method.CUSTOM, Method.WITHDRAWAL, Method.API})


def fingerprint(key: bytes, body: ConsentIn) -> bytes:
    """Keyed digest of a posted choice: a repeat has the same one."""
    said = {**body.__dict__, "choices": sorted(body.choices.items())}
    said |= {"decided_at": body.decided_at.timestamp(), "method": body.method.value}
    return hashlib.blake2b(repr(said).encode(), key=key, digest_size=32).digest()


def draft(
    site: PublishedSite, notice: Notice | None, body: ConsentIn, *, digest: bytes, has_gpc: bool,
    region: str | None, now: dt.datetime,
) -> Draft:  # fmt: skip
    """The record of a choice, or a problem when it does not fit what the visitor can have seen.

    ``has_gpc``: the request carried the signal; ``region``: used when the body names none.
    """
    if notice is None or notice.site_id != site.id:
        raise UnknownNotice
    if body.language not in notice.content["languages"]:
        raise ChoicesDoNotFit(
            "`language` is not one the notice was published in: "
            f"{_listed(notice.content['languages'])}."
        )
    region = body.region or region
    if body.regime and body.regime not in notice.content["regimes"]:
        raise ChoicesDoNotFit(
            "`regime` is not one the notice was published for: "
            f"{_listed(notice.content['regimes'])}."
        )
    regime = regime_of(notice, region, body.regime)
    gpc = has_gpc or body.gpc
    asked = _asked(notice, regime, body)
    choices, is_gpc_applied = apply_gpc(notice, regime, body.method, asked, gpc=gpc)
    decided_at = min(body.decided_at, now + MAX_AHEAD)
    row = {
        "id": new_id("con", now.timestamp()),
        "workspace_id": site.workspace_id,
        "site_id": site.id,
        "notice_version_id": notice.id,
        "visitor_id": body.visitor_id,
        "event_id": body.event_id,
        "choices": choices,
        "method": body.method.value,
        "language": body.language,
        "region": region,
        "regime": regime.id,
        "gpc": gpc,
        "is_gpc_applied": is_gpc_applied,
        "page": body.page,
        "fingerprint": digest,
        "decided_at": decided_at,
        "recorded_at": now,
        "expires_at": decided_at + _lasts(notice, regime, choices),
    }
    by_default = _granted_by_default(notice, regime, body.method, gpc=gpc)
    denied = notice.denied_by_gpc if is_gpc_applied else frozenset()
    return Draft(row, by_default, denied, asks_first=regime.mode == "opt_in")


def _lasts(notice: Notice, regime: Regime, choices: dict[str, bool]) -> dt.timedelta:
    """Until people are asked again, or what they granted ends; the law may leave those alone for
    longer who refused.
    """
    lasts = dt.timedelta(days=notice.content["expiry_days"])
    return lasts if any(choices.values()) else max(lasts, regime.left_alone)


def _asked(notice: Notice, regime: Regime, body: ConsentIn) -> dict[str, bool]:
    """The choices without the required purposes, which may be named but not denied. Where the law
    does not ask first, a person may decide on some purposes (``custom``) and leave the others be.
    """
    is_partial = body.method is Method.CUSTOM and regime.mode != "opt_in"
    missing = notice.choices - body.choices.keys()
    if missing and not (is_partial and missing < notice.choices):
        raise ChoicesDoNotFit(
            "`choices` must name every purpose that is not required; add "
            f"{_listed(sorted(missing))}."
        )
    if body.choices.keys() - notice.choices - notice.required:
        raise ChoicesDoNotFit(
            "`choices` names a purpose that is not in the notice, which has "
            f"{_listed(sorted(notice.choices | notice.required))}."
        )
    if denied := [each for each in notice.required if not body.choices.get(each, True)]:
        raise ChoicesDoNotFit(
            f"`choices` denies what is required: leave out {_listed(sorted(denied))}."
        )
    choices = {each: body.choices[each] for each in sorted(notice.choices - missing)}
    _check_method(body.method, choices, regime)
    return choices


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in names)


def _check_method(method: Method, choices: dict[str, bool], regime: Regime) -> None:
    """Refuse what contradicts itself. The widget's buttons for all answer all alike, under the GPC
    signal too; ``gpc`` and ``migrated`` carry what held before, so nothing of theirs is impossible.
    """
    if any(choices.values()):
        if method in _GRANTS_NOTHING:
            raise ChoicesDoNotFit(f"`{method.value}` grants nothing; send `custom`.")
        if method is Method.DISMISSED and regime.mode == "opt_in":
            raise ChoicesDoNotFit(
                f"Under this law (`{regime.id}`), dismissing the banner grants nothing; deny every "
                "purpose in `choices`."
            )
    if method is Method.ACCEPT_ALL and not all(choices.values()):
        raise ChoicesDoNotFit("`accept_all` denies nothing; send `custom`.")


def apply_gpc(
    notice: Notice, regime: Regime, method: Method, choices: dict[str, bool], *, gpc: bool
) -> tuple[dict[str, bool], bool]:
    """The signal and the choice together: the opt-out wins unless a person granted it here
    (accept_all, custom).

    Also tells whether the signal decided: it turned a grant down, or the record was made because of
    it.
    """
    if not gpc or not regime.honours_gpc or method in _EXPLICIT:
        return choices, False
    effective = {
        each: value and each not in notice.denied_by_gpc for each, value in choices.items()
    }
    return effective, effective != choices or method is Method.GPC


def _granted_by_default(
    notice: Notice, regime: Regime, method: Method, *, gpc: bool
) -> frozenset[str]:
    """What ran before any choice and was then denied by a person's act.

    A first visit under GPC is none: the gates stayed closed, nothing was passed on.
    """
    if regime.mode == "opt_in" or method not in _ACTS:
        return frozenset()
    return notice.choices - (notice.denied_by_gpc if gpc and regime.honours_gpc else frozenset())
