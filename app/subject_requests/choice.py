"""The receipt of a consent as a page: what it says, with the words that were shown. Pure."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.consent.audit_trail import State
from app.consent.schemas import Method
from app.sites.banner import spoken, texts_under
from app.sites.directory import Notice
from app.sites.errors import NoticeAltered
from app.sites.genuine import is_genuine


@dataclass(frozen=True, slots=True)
class Asked:
    """A purpose. ``state``: what the receipt says of it, None if it is required. ``is_on``: it ran,
    or runs, from this choice on."""

    id: str
    name: str
    description: str
    state: State | None
    is_on: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """All the page says, in the language of the banner that was shown. ``how``: the words on what
    was pressed; where there are none, ``source`` says how the choice came about. ``signal``: the
    browser's signal decided, too. ``until``: when consent ends, where some was given.
    """

    id: str
    language: str
    direction: str
    title: str
    body: str
    purposes: list[Asked]
    always_on: str
    source: str
    how: str
    signal: str
    regime: str
    until: dt.datetime | None
    controller: str
    contact: str
    policy_url: str
    policy_link: str
    record: str
    version: str
    version_hash: str


_ON = frozenset({State.GIVEN, State.NOT_OBJECTED, State.UNKNOWN})


def record_of(jws: str) -> Mapping[str, Any]:
    """The record that a receipt of ours holds."""
    payload = jws.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    found: Mapping[str, Any] = claims["record"]
    return found


def seen(record: Mapping[str, Any], notice: Notice) -> Seen:
    """``NoticeAltered`` when the notice is not the one whose hash was signed."""
    processing, more = record["pii_processing"], record["extension"]
    content, version_hash = notice.content, more["version_hash"]
    if not is_genuine(content, version_hash):
        raise NoticeAltered(notice.id)
    language = processing["language"]
    said, regime = (
        content["languages"][language],
        content["regimes"].get(processing["jurisdiction"]),
    )
    mode = more.get("mode") or (regime["mode"] if regime else "opt_in")  # older ones lack it
    texts = texts_under(said["texts"], mode)
    states = {each["purpose_type"]: State(each["event_state"]) for each in processing["purposes"]}
    left_be = State.REFUSED if mode == "opt_in" else State.NOT_OBJECTED
    purposes = []
    for each in content["purposes"]:
        state = None if each["required"] else states.get(each["id"], left_be)
        told = said["purposes"][each["id"]]
        is_on = state is None or state in _ON
        purposes.append(Asked(each["id"], told["name"], told["description"], state, is_on))
    labels = spoken(texts, mode, content) | {"reject": texts["reject"]}
    source = Method(more["choice_source"])
    how = next((labels[each] for each in _PRESSED.get(source, ()) if each in labels), "")
    is_signalled = more["gpc_applied"] and source is not Method.GPC
    return Seen(
        id=record["record_id"],
        language=language,
        direction=said["direction"],
        title=texts["title"],
        body=texts["gpc_notice" if more["choice_source"] == "gpc" else "body"],
        purposes=purposes,
        always_on=texts["always_on"],
        source=source,
        how=how,
        signal=texts.get("gpc_badge", "") if is_signalled else "",
        regime=processing["jurisdiction"],
        until=_until(record, states.values()),
        controller=content["controller"]["name"],
        contact=content["controller"]["contact"],
        policy_url=content["policy_url"],
        policy_link=texts["policy_link"],
        record=_number(texts["record"], record),
        version=more["notice_version"],
        version_hash=version_hash,
    )


def _until(record: Mapping[str, Any], states: Iterable[State]) -> dt.datetime | None:
    """When what rests on consent ends; a refusal holds until its person says otherwise."""
    if not {State.GIVEN, State.UNKNOWN} & set(states):
        return None
    return dt.datetime.fromisoformat(record["event"]["validity_duration"])


_PRESSED = {
    Method.ACCEPT_ALL: ("accept",),
    Method.REJECT_ALL: ("reject",),
    Method.WITHDRAWAL: ("withdraw",),
    Method.DISMISSED: ("understood", "close"),
    Method.GPC: ("gpc_badge", "gpc_notice"),
}
"""The labels of which the first that there is was pressed, or what the signal did."""


def _number(text: str, record: Mapping[str, Any]) -> str:
    """As the banner's settings say it: see ``record`` in consent_widget/src/dialog.ts."""
    template = text if "{id}" in text else f"{text}: {{id}} ({{date}})"
    decided_at = dt.datetime.fromisoformat(record["event"]["event_time"])
    date = f"{decided_at.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
    return template.replace("{id}", record["record_id"]).replace("{date}", date)
