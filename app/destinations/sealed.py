"""What a destination keeps sealed: its secrets, and a random key of its own for masks."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field

from app.crypto.keyring import KeyRing
from app.destinations.secrets import Secrets


def _random_key() -> bytes:
    return os.urandom(32)


@dataclass(frozen=True, slots=True)
class Sealed:
    """``mask_key`` stays the same for the destination's life, whatever master key seals it."""

    secrets: Secrets = field(default_factory=dict, repr=False)
    mask_key: bytes = field(default_factory=_random_key, repr=False)


def seal(ring: KeyRing, workspace_id: str, destination_id: str, content: Sealed) -> bytes:
    document = {
        "secrets": content.secrets,
        "mask_key": base64.b64encode(content.mask_key).decode(),
    }
    return ring.seal(json.dumps(document).encode(), _place(workspace_id, destination_id))


def unseal(ring: KeyRing, workspace_id: str, destination_id: str, sealed: bytes) -> Sealed:
    document = json.loads(ring.unseal(sealed, _place(workspace_id, destination_id)))
    return Sealed(document["secrets"], base64.b64decode(document["mask_key"]))


def _place(workspace_id: str, destination_id: str) -> str:
    return f"{workspace_id}|destination|{destination_id}|secrets|1"
