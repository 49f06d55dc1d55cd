"""The key file: master keys that wrap everything sealed at rest, and the peppers behind subject
references.

Format (JSON, mode 0600): ``{"master": {"current": "m1", "keys": {"m1": base64}}, "peppers":
[base64, ...]}``. Every ciphertext names its key: ``0x01 | length of id | id | 96-bit nonce |
AES-256-GCM``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION = 1


class KeyFileError(Exception):
    """The key file is missing, unreadable or lacks a key that is still in use; the text says what
    to do.
    """


class Unsealable(Exception):
    """A ciphertext was made with another key, for another place, or was changed."""


class KeyRing:
    """All long-lived secrets of an instance, in memory."""

    def __init__(self, master: dict[str, bytes], current: str, peppers: list[bytes]) -> None:
        self._master = master
        self._current = current
        self._peppers = peppers

    @property
    def master_ids(self) -> frozenset[str]:
        return frozenset(self._master)

    def seal(self, plaintext: bytes, place: str) -> bytes:
        """Encrypt for one place (workspace|table|row|column): elsewhere it does not open."""
        nonce = os.urandom(12)
        sealed = AESGCM(self._master[self._current]).encrypt(nonce, plaintext, place.encode())
        key_id = self._current.encode()
        return bytes((_VERSION, len(key_id))) + key_id + nonce + sealed

    def unseal(self, sealed: bytes, place: str) -> bytes:
        key_id = master_id(sealed)
        rest = sealed[2 + len(key_id) :]
        try:
            return AESGCM(self._master[key_id]).decrypt(rest[:12], rest[12:], place.encode())
        except (KeyError, InvalidTag, ValueError) as error:
            raise Unsealable(f"cannot open a value sealed with master key {key_id!r}") from error

    def derive(self, label: str) -> list[bytes]:
        """32-byte keys for one use, oldest master key first, the current one last (itsdangerous'
        order).
        """
        ordered = sorted(self._master, key=lambda each: each == self._current)
        return [
            HKDF(
                algorithm=hashes.SHA256(), length=32, salt=None, info=f"quittance|{label}".encode()
            ).derive(self._master[each])
            for each in ordered
        ]

    def digest(self, label: str, message: bytes) -> bytes:
        """Keyed digest for one use, for fingerprints that are compared but never opened."""
        return hmac.digest(self.derive(label)[-1], message, "sha256")

    def subject_ref(self, workspace_id: str, kind: str, value: str) -> bytes:
        """Subject reference: chained HMAC-SHA-256 over the peppers, apart for every workspace (32
        bytes).
        """
        digest = f"{kind}|{value}".encode()
        for pepper in self._peppers:
            digest = hmac.digest(
                hmac.digest(pepper, workspace_id.encode(), "sha256"), digest, "sha256"
            )
        return digest


def master_id(sealed: bytes) -> str:
    """The id of the master key a ciphertext was made with."""
    if len(sealed) < 2 or sealed[0] != _VERSION:
        raise Unsealable("unknown ciphertext version")
    return sealed[2 : 2 + sealed[1]].decode(errors="replace")


def load(path: Path) -> KeyRing:
    """Read the key file."""
    try:
        content = json.loads(path.read_text())
        master = {name: base64.b64decode(key) for name, key in content["master"]["keys"].items()}
        peppers = [base64.b64decode(pepper) for pepper in content["peppers"]]
        current = str(content["master"]["current"])
    except FileNotFoundError:
        raise KeyFileError(
            f"The key file {path} does not exist. A new installation gets one from `quittance "
            "migrate` where QUITTANCE_MASTER_KEY_FILE is not set; that of an older one is restored "
            "from its backup: without it nothing sealed can be opened."
        ) from None
    except OSError as error:
        raise KeyFileError(f"The key file {path} cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KeyFileError(
            f"The key file {path} is not what `quittance migrate` writes: restore it from its "
            f"backup ({type(error).__name__})."
        ) from None
    if (
        current not in master
        or not peppers
        or any(len(key) != 32 for key in (*master.values(), *peppers))
    ):
        raise KeyFileError(
            f"The key file {path} is incomplete: it needs 32-byte master keys and at "
            f"least one pepper."
        )
    return KeyRing(master, current, peppers)


def create(path: Path) -> KeyRing:
    """Write a fresh key file (0600), or read it when another process was faster."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {
        "master": {"current": "m1", "keys": {"m1": _random_key()}},
        "peppers": [_random_key()],
    }
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(scratch, path)  # fails when the file exists: the first one wins
    except FileExistsError:
        pass
    finally:
        scratch.unlink()
    return load(path)


def _random_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def sha256(secret: str) -> bytes:
    """What is stored of a secret of 128 bits or more that only its holder keeps."""
    return hashlib.sha256(secret.encode()).digest()
