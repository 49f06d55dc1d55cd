"""What requests need from the rest of the service, handed in by composition."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from app.core.db import Database
from app.core.settings import Settings
from app.crypto.keyring import KeyRing
from app.crypto.keystore import KeyStore
from app.receipts.signing import Signer
from connectors.contract import AnyConnector


@dataclass(frozen=True, slots=True)
class Services:
    """Everything is shared and long-lived; ``signer`` is asked for each time, because keys
    rotate.
    """

    settings: Settings
    database: Database
    keys: KeyStore
    ring: KeyRing
    signer: Callable[[], Signer]
    class_of: Callable[[str], type[AnyConnector] | None]
    ask: Callable[..., Awaitable[Any]]
    """``await ask(destination, call, method, *args)``, see app.delivery.carry."""
