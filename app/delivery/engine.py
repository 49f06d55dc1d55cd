"""The engine of one process: claims from the database, keeps calls in flight, records them as they
settle.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from app.core import bulk
from app.core.clock import utc_now
from app.core.courtesy import Courtesy
from app.core.db import Database, table_of
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.logging import get_logger
from app.crypto.keystore import KeyStore
from app.delivery import finish, metrics
from app.delivery.carry import Answered, Ask, carry_out, people_of
from app.delivery.claim import Claimed, Lease, Traits, claim
from app.delivery.health import Sign
from app.delivery.models import VirtualQueue
from app.delivery.places import Places, breathe
from app.delivery.stats import Activity
from app.destinations.models import Destination
from app.identity import vault
from connectors.contract import AnyConnector, failed, retry

log = get_logger(__name__)

ClassOf = Callable[[str], type[AnyConnector] | None]
"""Connector name -> class; None when it is not installed."""
HostOf = Callable[[Destination], str | None]
"""Whose server a destination is on; None: nobody else's."""

AHEAD = 2
"""Calls that may wait for a place, as a multiple of the places."""
HELD_MOST = 16
"""Calls that may wait for their own queue's or host's turn, as a multiple of the places."""
RECORD_ATTEMPTS = 12
"""After these, about half a minute, the answers are let go: the lease runs out and the calls are
made again.
"""
GATHER = 0.002
"""Seconds the finisher waits for more answers to record in the same transaction."""
ACTIVITY_EVERY = 10.0
INTERNAL_ERROR = "internal_error"


class Engine:
    """``step`` is the dispatch pump's work; everything else happens in tasks of the same loop.

    ``in_flight``: calls under way at once; ``per_host``: those to one host, shared with the other
    processes that hold a lease. ``together``: answers recorded in one transaction at most.
    ``courtesy``: others need this event loop, too: give way to them, and make fewer calls at once
    when it runs late.
    ``wake``: called when a queue that was given back has work that is due.
    """

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
        host_of: HostOf = lambda _: None,
        per_host: int = 128,
        together: int = 500,
        courtesy: Courtesy | None = None,
        wake: Callable[[], None] = lambda: None,
        chance: random.Random | None = None,
    ) -> None:
        self.owner = new_id("wrk")
        self._database = database
        self._keys = keys
        self._class_of = class_of
        self._ask = ask
        self._on_settled = on_settled
        self._stopped = stopped
        self._most = in_flight
        self._lease = lease
        self._host_of = host_of
        self._per_host = per_host
        self._together = together
        self._shares_its_loop = courtesy is not None
        self._courtesy = courtesy or Courtesy()
        self._wake = wake
        self._chance = chance or random.Random()  # noqa: S311 (jitter, not a secret)
        self._held: dict[str, Lease] = {}
        self._wanting = 0
        """Calls under way, and those that only wait for a place."""
        self._freed = asyncio.Event()
        self._places = Places(in_flight)
        self._hosts: dict[str, Places] = {}
        self._dispatchers = 1
        self._answers: asyncio.Queue[Answered | Lease] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._services: list[asyncio.Task[None]] = []
        self._activity = Activity()
        self._is_stopping = False

    def start(self) -> None:
        self._services = [
            asyncio.create_task(self._finish_forever(), name="finisher"),
            asyncio.create_task(self._renew_forever(), name="lease-renewal"),
            asyncio.create_task(self._tell_forever(), name="activity"),
        ]
        if self._shares_its_loop:
            breathing = breathe(self._places, self._most)
            self._services.append(asyncio.create_task(breathing, name="breathing"))

    async def stop(self, patience: float = 5.0) -> None:
        """Let calls in flight come home for a while; what does not is made again after the
        lease.
        """
        self._is_stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for _ in range(100):
            if not self._held or self._tasks:
                break
            await asyncio.sleep(0.01)
        for task in (*self._tasks, *self._services):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._services, return_exceptions=True)
        if patience:
            await self._tell()

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
        queue = table_of(VirtualQueue)
        async with self._database.writing() as session:
            await session.execute(
                sa.update(queue)
                .where(queue.c.lease_until.is_not(None))
                .values(lease_until=None, lease_owner=None, next_due=utc_now())
            )

    def _ended_service(self) -> str | None:
        """The name of one that should run as long as the engine does."""
        return next((each.get_name() for each in self._services if each.done()), None)

    # Claiming

    async def step(self) -> bool:
        """Claim once, if there is room; True when there was something to claim."""
        if self._is_stopping:
            return False
        if ended := self._ended_service():
            raise RuntimeError(f"the engine's {ended} has ended; restart this process")
        room = AHEAD * self._places.limit - self._wanting
        is_full = len(self._tasks) >= HELD_MOST * self._places.limit
        if is_full or room < max(1, self._places.limit // 4):
            self._freed.clear()
            try:
                async with asyncio.timeout(0.05):
                    await self._freed.wait()
            except TimeoutError:
                pass
            return True
        began = time.monotonic()
        async with self._database.writing() as session:
            leases = await claim(
                session,
                owner=self.owner,
                room=room,
                traits_of=self._traits_of,
                now=utc_now(),
                lease=self._lease,
            )
            if leases:
                failpoint("claim.before_commit")
        if not leases:
            return False
        failpoint("claim.after_commit")
        for lease in leases:
            metrics.leased(lease.lag)
        opened = await self._open(leases)
        for lease in leases:
            lease.good_until = began + self._lease.total_seconds()
            self._hold(lease, opened)
        return True

    async def _open(self, leases: Sequence[Lease]) -> Mapping[str, Any] | None:
        """The identifiers that the leases' calls name; None: they could not be had (which is an
        outage of ours, and the deliveries must live on).
        """
        wanted = {
            each
            for lease in leases
            for call in lease.calls
            for member in call.members
            for each in member.identifier_ids
        }
        if not wanted:
            return {}
        try:
            async with self._database.reading() as session:
                return await vault.open_ids(session, self._keys, wanted)
        except Exception as error:
            log.exception("open_failed", count=len(wanted), error=type(error).__name__)
            return None

    def _hold(self, lease: Lease, opened: Mapping[str, Any] | None) -> None:
        self._held[lease.queue_id] = lease
        lease.open = len(lease.calls)
        if not lease.calls:
            self._answers.put_nowait(lease)
            return
        slots = Places(1 if lease.breaker.probing else max(1, lease.concurrency))
        host = self._host(lease.destination)
        for call in lease.calls:
            task = asyncio.create_task(self._carry(lease, call, opened, slots, host))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _host(self, destination: Destination) -> Places:
        """The places of the destination's host in this process."""
        name = self._host_of(destination) or destination.id
        if name not in self._hosts:
            self._hosts[name] = Places(self._host_share())
        return self._hosts[name]

    def _host_share(self) -> int:
        return max(1, self._per_host // self._dispatchers)

    # Calling

    async def _carry(
        self,
        lease: Lease,
        call: Claimed,
        opened: Mapping[str, Any] | None,
        slots: Places,
        host: Places,
    ) -> None:
        # A call that waits for its own queue's or host's turn takes no place from others.
        async with slots, host:
            self._wanting += 1
            try:
                async with self._places:
                    await self._courtesy.give_way()
                    answered = await self._answer(lease, call, opened)
            finally:
                self._wanting -= 1
                self._freed.set()
        if lease.signs and lease.signs[-1] is Sign.OVERLOADED:
            slots.change(max(1, lease.concurrency // 2))
        lease.open -= 1
        self._answers.put_nowait(answered)
        if lease.open == 0:
            self._answers.put_nowait(lease)

    async def _answer(
        self, lease: Lease, call: Claimed, opened: Mapping[str, Any] | None
    ) -> Answered:
        if lease.is_held_back or time.monotonic() > lease.good_until:
            return Answered(lease, call, {}, 0)
        if lease.destination.deleted_at is not None:
            gone = failed("destination_deleted")
            return Answered(lease, call, {each.delivery_id: gone for each in call.members}, 0)
        connector = self._class_of(lease.destination.connector)
        try:
            if opened is None or connector is None:
                raise LookupError("no identifiers or no connector")
            people = people_of(call.members, opened)
            failpoint("call.before_send")
            answered = await carry_out(lease, call, people, connector, self._ask)
            failpoint("call.after_answer")
            metrics.called(answered.duration_ms)
        except Exception as error:  # a bug or an outage of ours: the delivery must live on
            log.exception(
                "call_failed", call_id=call.id, queue_id=lease.queue_id, error=type(error).__name__
            )
            outcome = retry(INTERNAL_ERROR)
            return Answered(
                lease, call, {member.delivery_id: outcome for member in call.members}, 0
            )
        if people:  # else nothing was sent, and nothing learnt
            took = dt.timedelta(milliseconds=answered.duration_ms)
            lease.learn(call, answered.outcomes.values(), took, utc_now(), self._chance.random())
        return answered

    # Recording

    async def _finish_forever(self) -> None:
        while True:
            batch = [await self._answers.get()]
            await asyncio.sleep(GATHER)
            await self._courtesy.give_way()
            while not self._answers.empty() and len(batch) < self._together:
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
                recorded = await self._try_to_record(answered, released)
            except Exception as error:  # database away, deadlock: the answers are in our hands
                log.exception("record_failed", count=len(answered), error=type(error).__name__)
                metrics.record_failed()
                if attempt >= 2 and len(answered) > 1:
                    # Perhaps one of them cannot be written: find out which.
                    for each in answered:
                        await self._record([each], [])
                    answered = []
                await asyncio.sleep(min(0.1 * 2**attempt, 5.0))
                continue
            self._let_go(recorded.fenced | {lease.key for lease in released})
            for queue_id, token in recorded.fenced:
                log.warning("fenced_out", queue_id=queue_id, token_number=token)
            self._activity.add(recorded.steps, answered)
            metrics.fenced_out(len(recorded.fenced))
            metrics.recorded(
                [(step, finish.attempt_of(member, step)) for _, member, step in recorded.steps]
            )
            if recorded.has_more:
                self._wake()
            return
        self._let_go({each.lease.key for each in answered} | {lease.key for lease in released})

    async def _try_to_record(
        self, answered: Sequence[Answered], released: Sequence[Lease]
    ) -> finish.Recorded:
        async with self._database.writing() as session:
            recorded = await finish.record(
                session,
                answered,
                released,
                self._on_settled,
                self._stopped,
                utc_now(),
                self._chance,
            )
            failpoint("finish.before_commit")
        failpoint("finish.after_commit")
        return recorded

    def _let_go(self, leases: Iterable[tuple[str, int]]) -> None:
        for queue_id, token in leases:
            held = self._held.get(queue_id)
            if held is not None and held.token == token:
                del self._held[queue_id]

    # Keeping and telling

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            if self._ended_service():
                return  # let the leases run out: somebody else must make these calls
            if not self._held:
                continue
            try:
                await self._renew()
            except Exception as error:
                log.exception("renewal_failed", error=type(error).__name__)

    async def _renew(self) -> None:
        queue, now, began = table_of(VirtualQueue), utc_now(), time.monotonic()
        held = list(self._held.values())
        async with self._database.writing() as session:
            renewed = await session.execute(
                sa.update(queue)
                .where(
                    bulk.among(queue.c.id, sorted(each.queue_id for each in held)),
                    queue.c.lease_owner == self.owner,
                )
                .values(lease_until=now + self._lease)
                .returning(queue.c.id, queue.c.token)
            )
            still_ours = {(queue_id, token) for queue_id, token in renewed}
            owners = await session.execute(
                sa.select(queue.c.lease_owner).where(queue.c.lease_until > now).distinct()
            )
            dispatchers = max(1, len(owners.all()))
        for lease in held:
            if lease.key in still_ours:
                lease.good_until = began + self._lease.total_seconds()
        if dispatchers != self._dispatchers:
            self._dispatchers = dispatchers
            for host in self._hosts.values():
                host.change(self._host_share())

    async def _tell_forever(self) -> None:
        while True:
            await asyncio.sleep(ACTIVITY_EVERY)
            try:
                await self._tell()
            except Exception as error:
                log.exception("activity_failed", error=type(error).__name__)

    async def _tell(self) -> None:
        """Write down what happened in the queues, for people's eyes."""
        if self._activity:
            async with self._database.writing() as session:
                await self._activity.write(session, utc_now())
