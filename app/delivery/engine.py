"""The engine of one process: claims from the database, keeps calls in flight, records them as they
settle.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Callable

import sqlalchemy as sa
from sqlmodel import col

from app.core.clock import utc_now
from app.core.db import Database
from app.core.ids import new_id
from app.core.logging import get_logger
from app.crypto.keystore import KeyStore
from app.delivery import finish
from app.delivery.carry import Answered, Ask, carry_out, people_of
from app.delivery.claim import Claimed, Lease, Traits, claim
from app.delivery.models import VirtualQueue
from app.identity import vault
from connectors.contract import AnyConnector, Verdict, failed, retry

log = get_logger(__name__)

ClassOf = Callable[[str], type[AnyConnector] | None]
"""Connector name -> class; None when it is not installed."""

CLAIMED_AHEAD = 8
"""Calls claimed at once, as a multiple of those under way: the rest waits for its queue's turn."""
RECORD_ATTEMPTS = 12
"""After these, about half a minute, the answers are let go: the lease runs out and the calls are
made again.
"""
GATHER = 0.002
"""Seconds the finisher waits for more answers to record in the same transaction."""


class Engine:
    """``step`` is the dispatch pump's work; everything else happens in tasks of the same loop."""

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        *,
        class_of: ClassOf,
        ask: Ask,
        on_settled: finish.OnSettled,
        stopped: finish.Stopped,
        in_flight: int,
        lease: dt.timedelta,
        chance: random.Random | None = None,
    ) -> None:
        self.owner = new_id("wrk")
        self._database = database
        self._keys = keys
        self._class_of = class_of
        self._ask = ask
        self._on_settled = on_settled
        self._stopped = stopped
        self._capacity = in_flight
        self._lease = lease
        self._chance = chance or random.Random()  # noqa: S311 (jitter, not a secret)
        self._held: dict[str, Lease] = {}
        self._in_flight = 0
        self._places = asyncio.Semaphore(in_flight)
        self._answers: asyncio.Queue[Answered | Lease] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._services: list[asyncio.Task[None]] = []
        self._is_stopping = False

    def start(self) -> None:
        self._services = [
            asyncio.create_task(self._finish_forever(), name="finisher"),
            asyncio.create_task(self._renew_forever(), name="lease-renewal"),
        ]

    async def stop(self, patience: float = 5.0) -> None:
        """Let calls in flight come home for a while; what does not is made again after the
        lease.
        """
        self._is_stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for _ in range(100):
            if not self._held or self._in_flight:
                break
            await asyncio.sleep(0.01)
        for task in (*self._tasks, *self._services):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._services, return_exceptions=True)

    def _traits_of(self, name: str) -> Traits | None:
        connector = self._class_of(name)
        if connector is None:
            return None
        return Traits(
            connector.batch,
            connector.limits,
            connector.concurrency,
            connector.timeout,
            connector.poll_every,
            connector.gives_up_after,
        )

    @property
    def is_idle(self) -> bool:
        return not self._held and self._answers.empty()

    async def forget_leases(self) -> None:
        """Embedded start: nobody else can hold a lease on this database, so none has to run out
        first.
        """
        async with self._database.writing() as session:
            await session.execute(
                sa.update(VirtualQueue)
                .where(col(VirtualQueue.lease_until).is_not(None))
                .values(lease_until=None, lease_owner=None, next_due=utc_now())
            )

    async def step(self) -> bool:
        """Claim once, if there is room; True when there was something to claim."""
        room = self._capacity - self._in_flight
        if room <= 0 or len(self._tasks) >= CLAIMED_AHEAD * self._capacity or self._is_stopping:
            await asyncio.sleep(0.01)
            return not self._is_stopping
        async with self._database.writing() as session:
            leases = await claim(
                session,
                owner=self.owner,
                queues=min(50, room),
                room=room,
                traits_of=self._traits_of,
                now=utc_now(),
                lease=self._lease,
            )
        for lease in leases:
            self._hold(lease)
        return bool(leases)

    def _hold(self, lease: Lease) -> None:
        self._held[lease.queue_id] = lease
        lease.open = len(lease.calls)
        if not lease.calls:
            self._answers.put_nowait(lease)
            return
        slots = asyncio.Semaphore(max(1, lease.concurrency))
        for call in lease.calls:
            task = asyncio.create_task(self._carry(lease, call, slots))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, lease: Lease, call: Claimed, slots: asyncio.Semaphore) -> None:
        # A call that waits for its own queue's turn takes no place from other queues.
        async with slots, self._places:
            self._in_flight += 1
            try:
                answered = await self._answer(lease, call)
            finally:
                self._in_flight -= 1
        lease.open -= 1
        lease.answers.append(_is_healthy(answered))
        if any(each.parks for each in answered.outcomes.values()):
            lease.parked = (
                next(each.reason for each in answered.outcomes.values() if each.parks) or "refused"
            )
        self._answers.put_nowait(answered)
        if lease.open == 0:
            self._answers.put_nowait(lease)

    async def _answer(self, lease: Lease, call: Claimed) -> Answered:
        try:
            if lease.destination.deleted_at is not None:
                gone = failed("destination_deleted")
                return Answered(lease, call, {each.delivery_id: gone for each in call.members}, 0)
            async with self._database.reading() as session:
                opened = await vault.open_ids(
                    session,
                    self._keys,
                    {each for member in call.members for each in member.identifier_ids},
                )
            connector = self._class_of(lease.destination.connector)
            assert connector is not None  # noqa: S101 (an invariant of ours)
            return await carry_out(
                lease, call, people_of(call.members, opened), connector, self._ask
            )
        except Exception as error:  # a bug or an outage of ours: the delivery must live on
            log.exception(
                "call_failed", call_id=call.id, queue_id=lease.queue_id, error=type(error).__name__
            )
            outcome = retry("internal_error")
            return Answered(
                lease, call, {member.delivery_id: outcome for member in call.members}, 0
            )

    async def _finish_forever(self) -> None:
        while True:
            batch = [await self._answers.get()]
            await asyncio.sleep(GATHER)
            while not self._answers.empty() and len(batch) < 500:
                batch.append(self._answers.get_nowait())
            answered = [each for each in batch if isinstance(each, Answered)]
            released = [each for each in batch if isinstance(each, Lease)]
            await self._record(answered, released)

    async def _record(self, answered: list[Answered], released: list[Lease]) -> None:
        """Record, for as long as the database is away or the leases last; nothing is lost if
        neither returns.
        """
        for attempt in range(RECORD_ATTEMPTS):
            try:
                async with self._database.writing() as session:
                    fenced = await finish.record(
                        session,
                        answered,
                        released,
                        self._on_settled,
                        self._stopped,
                        utc_now(),
                        self._chance,
                    )
                break
            except (
                Exception
            ) as error:  # database away, deadlock: the answers are still in our hands
                log.exception("record_failed", count=len(answered), error=type(error).__name__)
                if (
                    attempt >= 2 and len(answered) > 1
                ):  # perhaps one of them cannot be written: find out which
                    for each in answered:
                        await self._record([each], [])
                    answered = []
                await asyncio.sleep(min(0.1 * 2**attempt, 5.0))
        else:
            fenced = {each.lease.key for each in answered} | {lease.key for lease in released}
        for queue_id, token in fenced:
            log.warning("fenced_out", queue_id=queue_id, token_number=token)
        for queue_id, token in fenced | {lease.key for lease in released}:
            held = self._held.get(queue_id)
            if held is not None and held.token == token:
                del self._held[queue_id]

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            if not self._held:
                continue
            try:
                until = utc_now() + self._lease
                async with self._database.writing() as session:
                    await session.execute(
                        sa.update(VirtualQueue)
                        .where(
                            col(VirtualQueue.id).in_(sorted(self._held)),
                            col(VirtualQueue.lease_owner) == self.owner,
                        )
                        .values(lease_until=until)
                        .execution_options(synchronize_session=False)
                    )
            except Exception as error:
                log.exception("renewal_failed", error=type(error).__name__)


def _is_healthy(answered: Answered) -> bool:
    """The destination answered; what it said about a person is another matter."""
    return not all(
        each.verdict is Verdict.RETRY and not each.parks for each in answered.outcomes.values()
    )
