"""Makes the demo once: workspace, site, destinations, consents, newsletter service.

All of it is one transaction in the main database, so an interrupted start leaves nothing behind but
files, which are made anew. The requests of its past follow in the background (``app.demo.past``).
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app import bootstrap
from app.compose import Runtime
from app.consent.models import ConsentRecord
from app.core.ids import new_id
from app.core.logging import get_logger
from app.demo import cast, newsletter, past, store
from app.demo.find import demo_workspace, first_site
from app.demo.newsletter import Newsletter
from app.demo.store import Places
from app.destinations import service as destinations
from app.destinations.models import Destination
from app.destinations.schemas import DestinationChange, DestinationIn
from app.destinations.settings import prepare
from app.security.models import Workspace
from app.sites import service as sites
from app.sites.config import Controller, SiteConfig, Theme
from app.sites.errors import InvalidOrigin
from app.sites.models import Site
from app.sites.origins import clean_origin

log = get_logger(__name__)

NAME = "Fernweh Coffee"
ACTOR = "demo"
_HOST = "127.0.0.1"
_TASK = (
    "Addresses for the printed catalogue are drawn from the shop's database each month. Put "
    "this person on the do-not-post list of the printer (orange folder, extension 12), then tick "
    "this off."
)


async def ensure(runtime: Runtime, now: dt.datetime, *, waits: bool = False) -> None:
    """The demo is there and its newsletter service listens; ``waits``: its past is told, too.

    Nothing happens beside workspaces that are not a demo.
    """
    if not runtime.settings.is_embedded:
        log.info("demo_skipped", reason="distributed")
        return
    async with runtime.database.reading() as session:
        workspace = await demo_workspace(session)
        is_taken = workspace is None and await bootstrap.first_workspace(session) is not None
    if is_taken:
        log.info("demo_skipped", reason="other_workspace")
        return
    if workspace is None:
        await _make(runtime, now)
    else:
        await _welcome_back(runtime, workspace, now)
    await _let_past_follow(runtime, waits=waits)


async def _let_past_follow(runtime: Runtime, *, waits: bool) -> None:
    """Told beside the first requests, so that nobody waits for it; a stop lets it end."""
    try:
        script = await past.rehearse(runtime)
    except Exception as error:  # what is left of the shop no longer fits: a start matters more
        log.exception("demo_rehearsal_failed", error=type(error).__name__)
        return
    if script is None:
        return
    telling = asyncio.create_task(past.tell(runtime, script), name="demo-past")

    async def end() -> None:
        await asyncio.wait([telling], timeout=15)

    runtime.closers.insert(0, end)
    if waits:
        await telling


# The newsletter service


async def _welcome_back(runtime: Runtime, workspace: Workspace, now: dt.datetime) -> None:
    """A later start: the newsletter service where it was, and the site at today's addresses."""
    async with runtime.database.reading() as session:
        rows = await session.execute(
            sa.select(Destination)
            .where(
                col(Destination.workspace_id) == workspace.id,
                col(Destination.connector) == "webhook",
                col(Destination.deleted_at).is_(None),
            )
            .order_by(col(Destination.id))
        )
        found = next((each for each in rows.scalars() if _port_of(each)), None)
    if found is not None:
        await _reopen(runtime, found, now)
    async with runtime.database.reading() as session:
        site = await first_site(session, workspace.id)
    if site is not None and (missing := set(_origins(runtime)) - set(site.origins)):
        await _add_origins(runtime, workspace.id, site.site_key, sorted(missing), now)


def _port_of(destination: Destination) -> int | None:
    """The port, if the destination is the demo's newsletter service still."""
    url = urlsplit(str(destination.settings.get("url", "")))
    return url.port if url.hostname == _HOST and url.path == newsletter.PATH else None


async def _reopen(runtime: Runtime, destination: Destination, now: dt.datetime) -> None:
    port = _port_of(destination) or 0
    secret = runtime.instances.secrets_of(destination).secrets.get("/signing_secret", "")
    service = _service(runtime, secret)
    _allow(runtime, port)
    try:
        await service.start(port)
    except OSError:
        if await _is_running(runtime, port, secret):
            return  # beside a running service, from the command line
        runtime.outbound.policy.extra_allowed.discard((_HOST, port))
        await service.start(0)
        _allow(runtime, service.port)
        await _move(runtime, destination, service.port, secret, now)
    runtime.closers.append(service.stop)


def _service(runtime: Runtime, secret: str) -> Newsletter:
    return Newsletter(Places.of(runtime.settings).newsletter, secret, _mark(secret))


def _mark(secret: str) -> str:
    return hashlib.sha256(f"mark|{secret}".encode()).hexdigest()[:16]


def _allow(runtime: Runtime, port: int) -> None:
    """The one loopback address that destinations of the demo may reach."""
    runtime.outbound.policy.extra_allowed.add((_HOST, port))


async def _is_running(runtime: Runtime, port: int, secret: str) -> bool:
    try:
        answer = await runtime.outbound.http.get(f"http://{_HOST}:{port}/", timeout=2)
        return bool(answer.json().get("mark") == _mark(secret))
    except (httpx.HTTPError, ValueError, AttributeError):
        return False


async def _move(
    runtime: Runtime, destination: Destination, port: int, secret: str, now: dt.datetime
) -> None:
    """Its port was taken by somebody else: the destination follows it to another."""
    settings = {"url": f"http://{_HOST}:{port}{newsletter.PATH}", "signing_secret": secret}
    prepared = await prepare(
        runtime.instances, destination.workspace_id, destination.connector, settings, destination
    )
    async with runtime.database.writing() as session:
        await destinations.update(
            session,
            workspace_id=destination.workspace_id,
            destination_id=destination.id,
            actor=ACTOR,
            change=DestinationChange(settings=settings),
            prepared=prepared,
            now=now,
        )


# The site


def _origins(runtime: Runtime) -> list[str]:
    settings = runtime.settings
    wanted = [
        settings.public_url,
        f"http://localhost:{settings.port}",
        f"http://{_HOST}:{settings.port}",
    ]
    found = []
    for each in wanted:
        parts = urlsplit(each)
        try:
            found.append(clean_origin(f"{parts.scheme}://{parts.netloc}"))
        except InvalidOrigin:
            log.info("demo_origin_refused")
    return list(dict.fromkeys(found))


async def _add_origins(
    runtime: Runtime, workspace_id: str, site_key: str, missing: list[str], now: dt.datetime
) -> None:
    async with runtime.database.writing() as session:
        site = await sites.find_site(session, workspace_id, site_key)
        await sites.update_site(
            session, site, origins=[*site.origins, *missing], actor=ACTOR, now=now
        )


def _config(texts: Mapping[str, dict[str, str]] | None = None) -> SiteConfig:
    return SiteConfig(
        controller=Controller(name=NAME, contact="privacy@example.com"),
        theme=Theme(accent="#8a3b12", radius=12),
        texts=dict(texts or {}),
        mapping={"fw_tracker": "analytics", "fw_pixel": "advertising", "fw_video": "functional"},
    )


_SECOND_TEXTS = {
    "en": {
        "body": "We would like to count visits, show our films and advertise our coffee elsewhere. "
        "None of it runs before you agree, and all of it stops when you change your mind."
    },
    "de": {
        "body": "Wir möchten Besuche zählen, unsere Filme zeigen und anderswo für unseren Kaffee "
        "werben. Nichts davon läuft, bevor Sie zustimmen, und alles endet, wenn Sie es sich anders "
        "überlegen."
    },
}


async def _open_site(
    session: AsyncSession, runtime: Runtime, workspace_id: str, now: dt.datetime
) -> Site:
    opened = now - past.OPENED
    site = await sites.create_site(
        session,
        workspace_id=workspace_id,
        name=NAME,
        origins=_origins(runtime),
        config=_config(),
        actor=ACTOR,
        now=opened,
    )
    await sites.publish_site(session, site, actor=ACTOR, now=opened)
    again = now - past.SECOND_NOTICE
    await sites.update_site(session, site, config=_config(_SECOND_TEXTS), actor=ACTOR, now=again)
    await sites.publish_site(session, site, actor=ACTOR, now=again)
    return site


# The destinations


def _wanted(port: int, secret: str) -> list[DestinationIn]:
    base = f"http://{_HOST}:{port}"
    return [
        DestinationIn(name="Event archive", connector="archive", settings=store.ARCHIVE_SETTINGS),
        DestinationIn(
            name="Newsletter service",
            connector="webhook",
            purposes=["advertising"],
            settings={"url": base + newsletter.PATH, "signing_secret": secret},
        ),
        DestinationIn(
            name="Loyalty app (contract ended)",
            connector="webhook",
            kinds=["erasure"],
            regimes=["ccpa"],
            enabled=False,
            settings={"url": base + newsletter.CLOSED_PATH, "signing_secret": secret},
        ),
        DestinationIn(
            name="Printed catalogue",
            connector="manual",
            kinds=["opt_out"],
            purposes=["post"],
            settings={"instructions": _TASK, "assignee": "Front desk"},
        ),
        DestinationIn(name="Shop database", connector="sql", settings=store.SQL_SETTINGS),
    ]


# All of it together


async def _make(runtime: Runtime, now: dt.datetime) -> None:
    """What the first page needs; the past follows (``past.tell``)."""
    places = Places.of(runtime.settings)
    everybody = cast.customers()
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    await asyncio.to_thread(store.make, places, everybody, now.date())
    readers = [each.email for each in everybody if each.has_newsletter]
    await asyncio.to_thread(newsletter.make, places.newsletter, readers)
    service = _service(runtime, secret)
    await service.start(0)
    runtime.closers.append(service.stop)
    _allow(runtime, service.port)
    workspace_id = new_id("ws")
    made = [
        (each, await prepare(runtime.instances, workspace_id, each.connector, each.settings))
        for each in _wanted(service.port, secret)
    ]
    opened = now - past.OPENED
    async with runtime.database.writing() as session:
        session.add(
            Workspace(
                id=workspace_id,
                name=NAME,
                timezone=past.TIMEZONE,
                jurisdiction="DE",
                contact="privacy@example.com",
                is_demo=True,
                created_at=opened,
            )
        )
        await session.flush()
        site = await _open_site(session, runtime, workspace_id, now)
        consents_made = await past.consents_of(session, runtime, site, now)
        await session.execute(sa.insert(ConsentRecord), consents_made.records)
        for wanted, prepared in made:
            await destinations.create(
                session,
                workspace_id=workspace_id,
                actor=ACTOR,
                wanted=wanted,
                prepared=prepared,
                now=opened,
            )
    log.info("demo_made", count=len(consents_made.records))
