"""First steps of an instance: directories, keys, schema, the first workspace, and the lock on the
data directory.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core import migrate
from app.core.clock import is_zone
from app.core.errors import Invalid
from app.core.ids import new_id
from app.core.settings import Settings
from app.crypto import keyring
from app.crypto.models import SigningKey
from app.security import accounts, api_keys
from app.security.models import ApiKey, Role, Workspace
from app.sites.models import Site

UP_KEY = "printed by quittance up"


class CannotStart(Exception):
    """Something outside stands in the way; the text says what, and what to do."""


class InUse(CannotStart):
    """Another process holds the data directory; the text says which."""


@contextmanager
def lock(data_dir: Path, url: str) -> Iterator[None]:
    """Hold the data directory for this process, or ``InUse``."""
    with (data_dir / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            try:
                holder = json.loads(file.read())
                who = f"process {holder['pid']} at {holder['url']}"
            except (ValueError, KeyError):
                who = "another process"
            raise InUse(
                f"{data_dir} is already in use by {who}. Stop it, or set QUITTANCE_DATA_DIR "
                f"to another directory."
            ) from None
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "url": url}, file)
        file.flush()
        yield


@contextmanager
def hold(settings: Settings) -> Iterator[None]:
    """Hold the data directory if the database lies in it, or may; others have many processes."""
    if not settings.main_url.startswith("sqlite"):
        yield
        return
    make_data_dir(settings)
    with lock(settings.data_dir, settings.public_url):
        yield


def make_data_dir(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(
            f"QUITTANCE_DATA_DIR={settings.data_dir} cannot be used as a directory "
            f"({error.strerror})."
        ) from None


def running_at(settings: Settings) -> str | None:
    """Where the embedded service of this data directory runs, or ran last."""
    try:
        return str(json.loads((settings.data_dir / "lock").read_text())["url"])
    except (OSError, ValueError, KeyError):
        return None


def prepare(settings: Settings) -> None:
    """Directories, both schemas, and on a fresh database the key file; quick when all is there."""
    make_data_dir(settings)
    for path in settings.shared_paths:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CannotStart(
                f"QUITTANCE_ALLOWED_PATHS: {path} cannot be made ({error.strerror})."
            ) from None
    migrate.upgrade(settings.main_url, "main")
    migrate.upgrade(settings.keys_url, "keystore")
    if (
        settings.master_key_file is None
        and not settings.key_file.exists()
        and not _has_sealed_values(settings)
    ):
        keyring.create(settings.key_file)


def _has_sealed_values(settings: Settings) -> bool:
    """A database that was used with another key file must not get a new one, which would open
    nothing.
    """
    engine = sa.create_engine(settings.main_url.replace("+aiosqlite", ""), hide_parameters=True)
    try:
        with engine.connect() as connection:
            return (
                connection.execute(
                    sa.select(sa.literal(1)).select_from(SigningKey).limit(1)
                ).first()
                is not None
            )
    finally:
        engine.dispose()


async def first_workspace(session: AsyncSession) -> Workspace | None:
    return (
        await session.execute(sa.select(Workspace).order_by(col(Workspace.id)).limit(1))
    ).scalar_one_or_none()


async def create_workspace(
    session: AsyncSession,
    name: str,
    now: dt.datetime,
    *,
    is_demo: bool = False,
    timezone: str = "UTC",
) -> Workspace:
    workspace = Workspace(
        id=new_id("ws"), name=checked_name(name), is_demo=is_demo,
        timezone=checked_zone(timezone), created_at=now,
    )  # fmt: skip
    session.add(workspace)
    await session.flush()
    return workspace


def checked_name(name: str) -> str:
    """A workspace's name, or ``Invalid``."""
    name = name.strip()
    if not name or len(name) > 100 or not name.isprintable():
        raise Invalid("Give the workspace a name of at most 100 printable characters.")
    return name


def checked_zone(name: str) -> str:
    """A zone that deadlines can be counted in, or ``Invalid``."""
    if not is_zone(name):
        raise Invalid("There is no such time zone here: write one as UTC or Europe/Berlin.")
    return name


async def fresh_key(session: AsyncSession, workspace_id: str, now: dt.datetime) -> str:
    """A key for whoever started the service; the one printed at the last start ends."""
    await session.execute(
        sa.update(ApiKey)
        .where(
            col(ApiKey.workspace_id) == workspace_id,
            col(ApiKey.name) == UP_KEY,
            col(ApiKey.revoked_at).is_(None),
        )
        .values(revoked_at=now)
    )
    _, secret = await api_keys.create(
        session,
        workspace_id=workspace_id,
        name=UP_KEY,
        scopes=["all"],
        created_by="up",
        grantor_scopes=["all"],
        now=now,
    )
    return secret


async def fresh_invite(
    session: AsyncSession, settings: Settings, workspace_id: str, now: dt.datetime
) -> str:
    """A one-time link into the dashboard, as an owner."""
    token = await accounts.create_invite(session, workspace_id, Role.OWNER, now=now, actor="up")
    return f"{settings.public_url}/dashboard/invite/{token}"


async def first_site_key(session: AsyncSession, workspace_id: str) -> str | None:
    found = await session.execute(
        sa.select(col(Site.site_key))
        .where(col(Site.workspace_id) == workspace_id, col(Site.deleted_at).is_(None))
        .order_by(col(Site.id))
        .limit(1)
    )
    return found.scalar_one_or_none()
