"""Builds connectors from their destinations, and keeps the ones in use."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from app.core.clock import utc_now
from app.core.db import Database
from app.core.logging import get_logger
from app.core.outbound import Outbound
from app.crypto.keyring import KeyRing, Unsealable
from app.destinations import sealed, secrets
from app.destinations.catalogue import Catalogue, NoConnector
from app.destinations.files import Files
from app.destinations.human_tasks import HumanTasks
from app.destinations.models import Destination
from app.destinations.tools import ToolBox
from connectors.contract import AnyConnector, ConnectorError, Tools

log = get_logger(__name__)


class CannotBuild(ConnectorError):
    """The connector is gone, the settings no longer fit it, or the secrets do not open."""


@dataclass(slots=True)
class _Kept:
    connector: AnyConnector
    users: int = 0
    is_dropped: bool = False
    is_settled: bool = False
    """Older ones have made room for it."""


class Instances:
    """``async with instances.use(destination) as connector``: one instance per destination version.

    The least recently used ones beyond ``size`` are closed once nobody uses them.
    """

    def __init__(
        self, *, database: Database, ring: KeyRing, catalogue: Catalogue, outbound: Outbound,
        files: Files, now: Callable[[], dt.datetime] = utc_now, size: int = 256,
    ) -> None:  # fmt: skip
        self.catalogue = catalogue
        self.outbound = outbound
        self.ring = ring
        self._database = database
        self._files = files
        self._now = now
        self._size = size
        self._threads = ThreadPoolExecutor(8, "check")  # a hanging check must not hold others up
        self._kept: OrderedDict[tuple[str, int], _Kept] = OrderedDict()

    @asynccontextmanager
    async def use(self, destination: Destination) -> AsyncIterator[AnyConnector]:
        """The connector of this destination; ``CannotBuild``."""
        kept = self._keep(destination)
        kept.users += 1
        try:
            if not kept.is_settled:
                kept.is_settled = True
                await self._drop_old(destination)
            yield kept.connector
        finally:
            kept.users -= 1
            if kept.is_dropped and not kept.users:
                await self._close(kept.connector)

    def host_of(self, destination: Destination) -> str | None:
        """Whose server the destination is on; None also when it cannot be said."""
        try:
            return self._keep(destination).connector.host()
        except CannotBuild:
            return None
        except Exception as error:  # whatever somebody's own connector does, its queue goes on
            log.warning("host_unknown", destination_id=destination.id, error=type(error).__name__)
            return None

    def _keep(self, destination: Destination) -> _Kept:
        """The instance of this version."""
        key = (destination.id, destination.version)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept(self._of(destination))
        self._kept.move_to_end(key)
        return kept

    def build(
        self, *, workspace_id: str, destination_id: str, connector: str,
        settings: Mapping[str, Any], mask_key: bytes,
    ) -> AnyConnector:  # fmt: skip
        """A fresh instance, the caller's to close. ``NoConnector``, ``ValidationError``."""
        kind = self.catalogue.find(connector)
        tasks = HumanTasks(self._database, workspace_id, destination_id, self._now)
        box = ToolBox(
            destination_id=destination_id, outbound=self.outbound, files=self._files, tasks=tasks,
            secret=mask_key, now=self._now,
        )  # fmt: skip
        # The protocol's members are read only by connectors; mypy would have them writable.
        return kind(kind.Settings.model_validate(settings), cast(Tools, box))

    async def in_thread(self, function: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def secrets_of(self, destination: Destination) -> sealed.Sealed:
        return sealed.unseal(
            self.ring, destination.workspace_id, destination.id, destination.secrets_sealed
        )

    async def close(self) -> None:
        for kept in self._kept.values():
            await self._close(kept.connector)
        self._kept.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _of(self, destination: Destination) -> AnyConnector:
        try:
            kept = self.secrets_of(destination)
            return self.build(
                workspace_id=destination.workspace_id, destination_id=destination.id,
                connector=destination.connector, mask_key=kept.mask_key,
                settings=secrets.join(destination.settings, kept.secrets),
            )  # fmt: skip
        except NoConnector as error:
            raise CannotBuild(str(error)) from None
        except ValidationError:
            raise CannotBuild("The settings no longer fit; save them again.") from None
        except ConnectorError as error:
            raise CannotBuild(str(error)) from None
        except (Unsealable, ValueError, KeyError):
            raise CannotBuild("The secrets cannot be opened; enter them again.") from None
        except Exception as error:
            problem = f"The connector does not start ({type(error).__name__})."
            raise CannotBuild(problem) from None

    async def _drop_old(self, destination: Destination) -> None:
        """Forget older versions of this destination, and the least recently used of the rest."""
        old = [
            key for key in self._kept if key[0] == destination.id and key[1] < destination.version
        ]
        old += list(self._kept)[: max(0, len(self._kept) - self._size)]
        dropped = [self._kept.pop(key) for key in dict.fromkeys(old)]  # before anybody else can
        for kept in dropped:
            kept.is_dropped = True
        for kept in [each for each in dropped if not each.users]:  # of the others, their last user
            await self._close(kept.connector)

    async def _close(self, connector: AnyConnector) -> None:
        try:
            await self.in_thread(connector.close)
        except Exception as error:  # closing must not fail the call that came after it
            log.warning("connector_close_failed", error=type(error).__name__)
