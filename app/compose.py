"""Composition: builds everything that is shared and long-lived, and says which pumps a process
runs.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI

from app.consent.receipts import ConsentReceipts
from app.consent.writer import ConsentWriter
from app.core.broker import EmbeddedWorker, Hints, make_celery
from app.core.clock import utc_now
from app.core.courtesy import Courtesy
from app.core.db import Database
from app.core.http import Cursors
from app.core.ops import Check
from app.core.outbound import Outbound
from app.core.pump import PUMPS, Pump, Pumps
from app.core.settings import Settings
from app.core.storage import Storage
from app.crypto import keyring
from app.crypto.keystore import KeyStore
from app.delivery import metrics
from app.delivery.archive import Archive
from app.delivery.engine import Engine
from app.delivery.gauges import Gauges
from app.delivery.reports import hearing, wake_recent
from app.delivery.states import State
from app.delivery.sweep import sweep
from app.delivery.waiting import is_stalled
from app.destinations.catalogue import Catalogue, NoConnector
from app.destinations.files import Files
from app.destinations.instances import CannotBuild, Instances
from app.destinations.models import Destination
from app.destinations.running import Runner, outcome_of
from app.identity.host_key_sets import KeySets
from app.notifications import alert_mail, alerts
from app.notifications.alert_webhook import tell_due
from app.notifications.models import OutgoingMail
from app.notifications.postmen import FilePostman, postman_for
from app.notifications.service import Letter, send_due
from app.receipts.signing import CONSENT_RECEIPT, Signer, load_signer
from app.security.limits import RateLimits
from app.sites import regimes
from app.subject_requests import (
    forget,
    mails,
    maintain,
    proof,
    resolve,
    settle,
    watch,
    withdrawals,
)
from app.subject_requests.people import StatusLinks
from app.subject_requests.services import Services
from connectors.contract import AnyConnector, Call


class Runtime:
    """One process's share of the service. ``start`` and ``stop`` belong to one event loop."""

    def __init__(
        self, settings: Settings, connectors: Mapping[str, type[AnyConnector]] | None = None,
        courtesy: Courtesy | None = None,
    ) -> None:  # fmt: skip
        """``connectors``: further ones beside those the catalogue finds. ``courtesy``: knows of
        requests to this process.
        """
        self.settings = settings
        regimes.use(settings.laws_dir)
        self.ring = keyring.load(settings.key_file)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.celery = make_celery(settings, PUMPS, self._wake)
        self._hints = Hints(self.celery)
        courtesy = courtesy or Courtesy()
        self.pumps = Pumps(self._hints.publish, courtesy)
        self.database = Database(settings.main_url, self._hint)
        self.key_database = Database(settings.keys_url)
        self.keys = KeyStore(self.key_database, self.ring)
        self.limits = RateLimits(settings)
        self.cursors = Cursors(self.ring.derive("cursor"))
        self.status_links = StatusLinks(self.ring)
        self.outbound = Outbound.of(settings)
        self.key_sets = KeySets(self.outbound.http)
        self.catalogue = Catalogue(settings.connectors_dir, dict(connectors or {}))
        self.instances = Instances(
            database=self.database,
            ring=self.ring,
            catalogue=self.catalogue,
            outbound=self.outbound,
            files=Files.of(settings),
        )
        self.runner = Runner()
        self.archive = Archive(self.database, self.keys, self.ring, Storage(settings.archive_place))
        self.consents = ConsentWriter(self.database)
        self.consent_receipts = ConsentReceipts(
            self.database,
            settings.public_url,
            lambda claims: self.signer().sign(claims, CONSENT_RECEIPT),
        )
        self.postman = postman_for(settings)
        self._signer: Signer | None = None
        self.services = Services(
            settings, self.database, self.keys, self.ring, self.signer, self.class_of, self.ask
        )
        self.engine = Engine(
            self.database,
            self.keys,
            class_of=self.class_of,
            ask=hearing(self.database, self.class_of, self.ask),
            on_settled=partial(settle.on_settled, self.services),
            stopped=settle.stopped,
            in_flight=settings.worker_in_flight,
            lease=dt.timedelta(seconds=settings.lease_seconds),
            host_of=self.instances.host_of,
            per_host=settings.host_in_flight,
            together=32 if settings.is_embedded else 500,
            courtesy=courtesy if settings.is_embedded else None,
            wake=lambda: self._hint(["dispatch"]),
        )
        self.gauges = Gauges(self.database)
        self._embedded_worker: EmbeddedWorker | None = None
        self._swept_at: dt.datetime | None = None
        self.closers: list[Callable[[], Awaitable[None]]] = []
        """Called first on ``stop``: whatever was started beside the runtime."""

    def attach(self, app: FastAPI) -> None:
        """Put what routes need on ``app.state`` (listed in app.core.context)."""
        app.state.settings = self.settings
        app.state.database = self.database
        app.state.ring = self.ring
        app.state.key_store = self.keys
        app.state.limits = self.limits
        app.state.cursors = self.cursors
        app.state.pumps = self.pumps
        app.state.catalogue = self.catalogue
        app.state.instances = self.instances
        app.state.runner = self.runner
        app.state.outbound = self.outbound
        app.state.key_sets = self.key_sets
        app.state.consents = self.consents
        app.state.consent_receipt = self.consent_receipts.find
        app.state.services = self.services
        app.state.status_links = self.status_links
        app.state.archive = self.archive
        app.state.engine = self.engine
        app.state.gauges = self.gauges
        app.state.outbox = self.postman if isinstance(self.postman, FilePostman) else None

    async def start(self, *, with_pumps: bool, with_worker: bool) -> None:
        """``with_pumps``: do background work here; ``with_worker``: with a Celery worker in a
        thread.
        """
        self._loop = asyncio.get_running_loop()
        self._signer = await load_signer(self.database, self.ring, utc_now())
        self.consents.start()
        if not with_pumps:
            return
        if self.settings.is_embedded:
            await self.engine.forget_leases()
            await resolve.forget_leases(self.services, utc_now())
        for pump in self._make_pumps():
            self.pumps.add(pump)
        self.engine.start()
        self.pumps.start()
        if with_worker:
            self._embedded_worker = EmbeddedWorker(self.celery)
            self._embedded_worker.start()

    async def stop(self) -> None:
        """In the order of dependence: no new work, what is under way, then what it stands on."""
        for close in self.closers:
            await close()
        await self.consents.stop()
        await self.pumps.stop()
        await self.engine.stop()
        if self._embedded_worker:
            await self._embedded_worker.stop()
        self._hints.close()
        await self.instances.close()
        self.runner.close()
        await self.outbound.close()
        await self.database.close()
        await self.key_database.close()

    def checks(self) -> dict[str, Check]:
        """What ``/readyz`` asks."""
        return {
            "database": lambda: _is_reached(self.database),
            "keystore": lambda: _is_reached(self.key_database),
            "disk": self._has_room,
            "clock": self._is_on_time,
            "dispatcher": self._is_dispatching,
            "pumps": self._is_pumping,
        }

    async def _has_room(self) -> bool:
        return self.database.has_room() and self.key_database.has_room()

    async def _is_on_time(self) -> bool:
        """This machine's clock is the database's, more or less: leases are moments, and a worker
        that is ahead by a lease would take other workers' queues.
        """
        if self.settings.is_embedded:
            return True
        async with self.database.reading() as session:
            asked = await session.execute(sa.select(sa.func.clock_timestamp()))
        there: dt.datetime = asked.scalar_one()
        return abs(utc_now() - there) < dt.timedelta(seconds=self.settings.lease_seconds) / 4

    async def _is_dispatching(self) -> bool:
        """Work that is due is being looked at: Celery workers can stall in silence, the database
        cannot.
        """
        after = dt.timedelta(seconds=self.settings.stall_seconds)
        async with self.database.reading() as session:
            return not await is_stalled(session, utc_now(), after)

    async def _is_pumping(self) -> bool:
        return not self.pumps.have_ended and all(pump.failures < 3 for pump in self.pumps)

    def signer(self) -> Signer:
        assert self._signer is not None  # noqa: S101 (an invariant of ours)
        return self._signer

    def class_of(self, name: str) -> type[AnyConnector] | None:
        try:
            return self.catalogue.find(name)
        except NoConnector:
            return None

    async def ask(self, destination: Destination, call: Call, method: str, *args: Any) -> Any:
        """A connector's answer; a destination that cannot even be built is an outcome like any
        other.
        """
        try:
            async with self.instances.use(destination) as connector:
                return await self.runner.run(connector, method, *args, call=call)
        except CannotBuild as error:
            return outcome_of(error)

    def _hint(self, names: Iterable[str]) -> None:
        """After a commit: this process looks at once if it is its work, else the others hear of it.
        Dispatching is everybody's: one process may have more to do than it can carry.
        """
        elsewhere = [name for name in names if not self.pumps.wake(name) or name == "dispatch"]
        self._hints.publish(elsewhere)

    def _wake(self, name: str) -> None:
        """Called by Celery's threads."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.pumps.wake, name)

    def _make_pumps(self) -> Iterable[Pump]:
        services = self.services
        return (
            Pump("dispatch", self.engine.step),
            # Ten together cost a quarter each. Elsewhere hints gather them.
            Pump("advance", self._advance, rest=2.0 if self.settings.is_embedded else 0.0),
            Pump("sign", lambda: proof.sign_due(services, utc_now())),
            Pump(
                "mail",
                lambda: send_due(
                    self.database,
                    self.postman,
                    self._compose,
                    partial(mails.on_sent, services),
                    utc_now(),
                ),
            ),
            Pump("withdrawals", lambda: withdrawals.take_withdrawals(services, utc_now())),
            Pump("sweep", self._sweep, every=5.0),
            Pump("archive", lambda: self.archive.write_due(utc_now()), every=30.0),
            Pump("watch", lambda: watch.watch(services, utc_now()), every=15.0),
            Pump(
                "alerts",
                lambda: tell_due(self.database, self.outbound.http, self.settings, utc_now()),
                every=5.0,
            ),
            Pump("maintain", self._maintain, every=3600.0),
        )

    async def _compose(self, mail: OutgoingMail) -> Letter | None:
        """To operators about alerts, or to a person about a request."""
        if mail.template == alerts.MAIL:
            return await alert_mail.compose(self.database, self.settings, mail)
        return await mails.compose(self.services, self.status_links, mail)

    async def _advance(self) -> bool:
        now = utc_now()
        stepped = await forget.step_due(self.services, now)
        return await resolve.resolve_due(self.services, now) or stepped

    async def _maintain(self) -> bool:
        now = utc_now()
        await self.archive.tidy(now)
        await forget.sweep_orphans(self.services, now, self._swept_at)
        self._swept_at = now
        await maintain.maintain(self.services, self.postman, now)
        return False

    async def _sweep(self) -> bool:
        async with self.database.writing() as session:
            now = utc_now()
            expired = await sweep(session, now)
            await wake_recent(session, now)
        metrics.ended(State.ARCHIVING, "expired", expired)
        return False


async def _is_reached(database: Database) -> bool:
    async with database.reading() as session:
        await session.execute(sa.select(sa.literal(1)))
    return True
