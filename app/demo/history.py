"""The demo's past: its scenes played by the service's own functions at their own time.

What destinations answered is no invention: the connectors are really asked first (``rehearse``),
so the receipts state what happened to the shop's data. Only the moments are set back.
"""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.compose import Runtime
from app.core.ids import new_id
from app.crypto.keyring import sha256
from app.crypto.keystore import HolderKey
from app.delivery import finish, reports
from app.delivery.carry import Answered
from app.delivery.claim import Claimed, Lease, Traits, claim
from app.delivery.due import Member
from app.delivery.health import Sign
from app.demo.scenes import Scene, Turn
from app.destinations import human_tasks
from app.destinations.models import Destination, HumanTask
from app.destinations.service import matches
from app.identity import vault
from app.notifications.models import OutgoingMail
from app.receipts.models import Receipt
from app.receipts.signing import REQUEST_RECEIPT
from app.security.models import Workspace
from app.sites import regimes
from app.sites.models import Site
from app.subject_requests import decide, intake, people, resolve, settle
from app.subject_requests.models import ConfirmationLink, SubjectRequest
from app.subject_requests.states import OPERATIONS, Status
from app.subject_requests.timeline import note
from connectors.contract import (
    Call,
    Identifier,
    Operation,
    Outcome,
    Person,
    accepted,
    done,
    supports,
)

ACTOR = "demo"
_INSTRUCTIONS_OF = "instructions"
_LEASE = dt.timedelta(seconds=60)
_SECOND = dt.timedelta(seconds=1)

Answers = Mapping[tuple[str, str], Outcome]
"""(destination id, request id) -> what the destination really said."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    answers: Answers
    resolved: Mapping[str, Sequence[Identifier]]
    """Request id -> identifiers that the identity source knew."""
    call_ids: Sequence[str]
    off: Sequence[str]
    """Destinations that are off today."""

    def identifiers(self, scene: Scene) -> tuple[Identifier, ...]:
        """What the scene's person gave, and what was found for them."""
        return (scene.who, *self.resolved.get(scene.id, ()))


async def rehearse(
    runtime: Runtime, destinations: Sequence[Destination], off: Sequence[str], told: Sequence[Scene]
) -> Rehearsed:
    """Do now what the scenes say was done, in one call for each destination and operation.

    No transaction is open.
    """
    carried = [
        each
        for each in told
        if each.turn in {Turn.CARRIED_OUT, Turn.TICKED_OFF, Turn.HUMAN_TASK_OPEN}
    ]
    resolved = await _look_up(runtime, destinations, carried)
    asked: dict[tuple[str, Operation], list[Scene]] = defaultdict(list)
    by_id = {each.id: each for each in destinations}
    for destination in sorted(destinations, key=lambda each: each.is_identity_source):
        for scene in carried:
            if _concerns(runtime, destination, scene):
                asked[destination.id, OPERATIONS[scene.kind]].append(scene)
    answers: dict[tuple[str, str], Outcome] = {}
    call_ids: list[str] = []
    for (destination_id, operation), scenes in asked.items():
        group = [Person(each.id, (each.who, *resolved.get(each.id, ()))) for each in scenes]
        call = Call(new_id("call"), operation, 1)
        call_ids.append(call.id)
        answer = await runtime.ask(by_id[destination_id], call, operation, group)
        for scene in scenes:
            answers[destination_id, scene.id] = (
                answer if isinstance(answer, Outcome) else answer[scene.id]
            )
    return Rehearsed(answers, resolved, call_ids, off)


async def _look_up(
    runtime: Runtime, destinations: Sequence[Destination], told: Sequence[Scene]
) -> dict[str, list[Identifier]]:
    source = next(each for each in destinations if each.is_identity_source)
    people = [Person(each.id, (each.who,)) for each in told]
    answer = await runtime.ask(source, Call(new_id("call"), Operation.ERASE, 1), "lookup", people)
    if isinstance(answer, Outcome):
        raise RuntimeError(f"the demo shop does not answer: {answer.reason}")
    return {scene_id: list(found) for scene_id, found in answer.items()}


def operation_of(scene: Scene) -> Operation:
    return OPERATIONS[scene.kind]


def _concerns(runtime: Runtime, destination: Destination, scene: Scene) -> bool:
    connector = runtime.class_of(destination.connector)
    is_human = destination.connector == "manual"
    return (
        connector is not None
        and not is_human
        and supports(connector, OPERATIONS[scene.kind])
        and matches(destination, scene.kind, scene.regime, scene.purposes)
    )


class Busy(Exception):
    """A real request holds a queue that the scene needs; play it again in a moment."""


class Stage:
    """Plays one scene in one transaction of the caller."""

    def __init__(
        self,
        session: AsyncSession,
        runtime: Runtime,
        workspace: Workspace,
        site: Site,
        keys: Mapping[str, HolderKey],
        rehearsed: Rehearsed,
        now: dt.datetime,
    ) -> None:
        self._session = session
        self._runtime = runtime
        self._services = runtime.services
        self._workspace = workspace
        self._site = site
        self._keys = keys
        self._rehearsed = rehearsed
        self._now = now
        self._tasks: dict[str, str] = {}
        """Delivery id -> the task that a human ticked off."""
        self._chance = random.Random()  # noqa: S311 - durations of calls

    async def play(self, scene: Scene) -> None:
        request = await self._take_in(scene)
        at = scene.at
        if scene.channel == "form":
            if scene.turn in {Turn.AWAITS_VERIFICATION, Turn.EXPIRED}:
                await self._leave_unconfirmed(request, scene)
                return
            at += dt.timedelta(minutes=4, seconds=17)
            await self._confirm(request, scene, at)
        at = await self._turn(request, scene, at + _SECOND)
        if scene.is_ended:
            await self._end(request, at)
        await self._session.flush()
        await self._session.execute(
            sa.delete(OutgoingMail).where(col(OutgoingMail.holder_id) == scene.id)
        )

    # Intake

    async def _take_in(self, scene: Scene) -> SubjectRequest:
        is_form = scene.channel == "form"
        ask = intake.Ask(
            workspace=self._workspace,
            kind=scene.kind,
            regime=regimes.get(scene.regime),
            identifiers=[scene.who],
            channel=scene.channel,
            verification={"form": "email_link", "api": "api_key", "consent": "visitor"}[
                scene.channel
            ],
            received_at=scene.at,
            is_verified=not is_form,
            contact_email=scene.who.value if is_form else None,
            site_id=self._site.id if scene.channel != "api" else None,
            language=scene.language,
            purposes=scene.purposes,
            note=scene.note,
            id=scene.id,
        )
        await intake.write(self._session, self._services, [ask], self._keys, scene.at)
        return await self._session.get_one(SubjectRequest, scene.id)

    def _add_link(self, request: SubjectRequest, token: str) -> None:
        until = request.received_at + people.LINK_LIFETIME
        self._session.add(
            ConfirmationLink(
                token_sha256=sha256(token),
                request_id=request.id,
                created_at=request.received_at,
                expires_at=until,
            )
        )
        request.next_step_at = until

    async def _leave_unconfirmed(self, request: SubjectRequest, scene: Scene) -> None:
        """Nobody knows the link: the mail is part of the past, too."""
        self._add_link(request, new_id("unknown"))
        if scene.turn is Turn.EXPIRED:
            at = request.next_step_at or scene.at
            request.status, request.completed_at, request.forget_at = Status.EXPIRED, at, at
            note(self._session, request.id, "expired", "service", at)
            await self._forget(request, at)

    async def _confirm(self, request: SubjectRequest, scene: Scene, at: dt.datetime) -> None:
        if not regimes.get(scene.regime).needs_verification(scene.kind):
            request.status = Status.RESOLVING
            return
        token = new_id("demo")
        self._add_link(request, token)
        await self._session.flush()
        await people.confirm(self._session, self._services, token, at)

    # The turns

    async def _turn(self, request: SubjectRequest, scene: Scene, at: dt.datetime) -> dt.datetime:
        """Let it happen; returns when it was over."""
        session, workspace_id = self._session, self._workspace.id
        day = dt.timedelta(days=1)
        match scene.turn:
            case Turn.CARRIED_OUT | Turn.TICKED_OFF | Turn.HUMAN_TASK_OPEN:
                at = await self._fan_out(request, at)
                if scene.turn is Turn.TICKED_OFF:
                    return await self._tick_off(at + day)
            case Turn.ANSWERED:
                at += 2 * day
                text = "Below is all that our shop, archive and newsletter service hold about you."
                await decide.answer(
                    session, self._services, workspace_id, request.id, ACTOR, text, None, None, at
                )
            case Turn.DENIED:
                at += day
                text = "An unpaid invoice is with the court; ask again once it is settled."
                await decide.deny(
                    session,
                    self._services,
                    workspace_id,
                    request.id,
                    ACTOR,
                    "legal_claims",
                    text,
                    at,
                )
            case Turn.CANCELLED:
                at += dt.timedelta(minutes=2)
                await decide.cancel(
                    session, self._services, workspace_id, request.id, decide.PERSON, at
                )
            case Turn.EXTENDED:
                reason = "Old paper invoices have to be searched by hand"
                await decide.extend(
                    session,
                    workspace_id,
                    request.id,
                    ACTOR,
                    30,
                    reason,
                    min(at + 12 * day, self._now),
                )
            case Turn.ON_HOLD:
                reason = "The card issuer is looking into a disputed payment"
                await decide.hold(
                    session, workspace_id, request.id, ACTOR, reason, at + dt.timedelta(hours=1)
                )
            case Turn.AWAITS_APPROVAL:
                resolve.await_approval(session, request, at)
        return at

    async def _fan_out(self, request: SubjectRequest, at: dt.datetime) -> dt.datetime:
        """Resolve, plan, and carry out until nothing is due."""
        found = [each for each in self._rehearsed.resolved.get(request.id, ()) if each.value]
        if found:
            rows = [
                vault.identifier_row(
                    self._runtime.ring,
                    self._keys[request.id],
                    workspace_id=request.workspace_id,
                    holder_id=request.id,
                    identifier=each,
                    now=at,
                    origin="resolved",
                )
                for each in found
            ]
            await vault.add(self._session, rows)
            note(
                self._session, request.id, "resolved", "service", at, found={"user_id": len(found)}
            )
        await self._session.flush()
        await self._switch(is_enabled=True)
        await resolve.plan_requests(self._session, self._services, [request], at)
        at = await self._carry_out(at)
        await self._switch(is_enabled=False)
        return at

    async def _switch(self, *, is_enabled: bool) -> None:
        """Destinations that are off today took part in the scenes of their days."""
        await self._session.execute(
            sa.update(Destination)
            .where(col(Destination.id).in_(self._rehearsed.off))
            .values(is_enabled=is_enabled)
            .execution_options(synchronize_session=False)
        )

    async def _carry_out(self, at: dt.datetime) -> dt.datetime:
        for _ in range(4):
            leases = await claim(
                self._session,
                owner=ACTOR,
                room=200,
                traits_of=self._traits_of,
                now=at,
                lease=_LEASE,
            )
            if not leases:
                break
            answered = [
                await self._answer(lease, call, at) for lease in leases for call in lease.calls
            ]
            at += max(
                (dt.timedelta(milliseconds=each.duration_ms) for each in answered), default=_SECOND
            )
            for lease in leases:
                lease.signs = [Sign.WELL] * len(lease.calls)
            await finish.record(
                self._session,
                answered,
                leases,
                partial(settle.on_settled, self._services),
                settle.stopped,
                at,
                self._chance,
            )
        return at

    async def _answer(self, lease: Lease, call: Claimed, at: dt.datetime) -> Answered:
        outcomes = {
            each.delivery_id: await self._outcome(lease, call, each, at) for each in call.members
        }
        return Answered(lease, call, outcomes, self._chance.randrange(9, 140))

    async def _outcome(
        self, lease: Lease, call: Claimed, member: Member, at: dt.datetime
    ) -> Outcome:
        if lease.destination.connector != "manual":
            return self._rehearsed.answers[lease.queue_id, member.request_id]
        if call.job:
            return done()
        return accepted(self._open_task(lease.destination, call, member, at))

    def _open_task(
        self, destination: Destination, call: Claimed, member: Member, at: dt.datetime
    ) -> str:
        """As the manual connector's tools do it, in this transaction."""
        task_id = self._tasks[member.delivery_id] = new_id("tsk")
        self._session.add(
            HumanTask(
                id=task_id,
                workspace_id=self._workspace.id,
                destination_id=destination.id,
                delivery_id=member.delivery_id,
                operation=call.operation,
                instructions=destination.settings[_INSTRUCTIONS_OF],
                assignee=destination.settings.get("assignee"),
                due_at=member.deadline,
                created_at=at,
            )
        )
        return task_id

    async def _tick_off(self, at: dt.datetime) -> dt.datetime:
        await self._session.flush()
        for task_id in self._tasks.values():
            task = await human_tasks.close(
                self._session,
                workspace_id=self._workspace.id,
                task_id=task_id,
                answer="done",
                actor=ACTOR,
                now=at,
            )
            await reports.task_ended(self._session, task, at)
        return await self._carry_out(at)

    def _traits_of(self, name: str) -> Traits | None:
        connector = self._runtime.class_of(name)
        if connector is None:
            return None
        return Traits(*(getattr(connector, each.name) for each in fields(Traits)))

    # The end

    async def _end(self, request: SubjectRequest, at: dt.datetime) -> None:
        """Receipt signed, delivered, person forgotten: in the demo all on the same minute."""
        await self._session.flush()
        if request.receipt_id is None:
            raise Busy
        receipt = await self._session.get_one(Receipt, request.receipt_id)
        receipt.jws = self._services.signer().sign(receipt.claims, REQUEST_RECEIPT)
        receipt.signed_at = at + _SECOND
        settle.delivered(request, self._workspace, self._services, at + 2 * _SECOND)
        await self._forget(request, at + 3 * _SECOND)

    async def _forget(self, request: SubjectRequest, at: dt.datetime) -> None:
        """As ``forget.forget`` does it; the data key goes after the commit."""
        await self._session.flush()
        await vault.forget(self._session, [request.id])
        await self._session.execute(
            sa.delete(ConfirmationLink).where(col(ConfirmationLink.request_id) == request.id)
        )
        request.forgotten_at, request.next_step_at = at, None
        note(self._session, request.id, "forgotten", "service", at)
