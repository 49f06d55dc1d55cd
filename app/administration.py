"""What the command line does to an instance: plain functions over its databases, answering
JSON-like rows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app import bootstrap
from app.compose import Runtime
from app.core.clock import rfc3339, utc_now
from app.core.errors import Invalid, NotFound
from app.core.http import wrong_members
from app.core.ids import new_id
from app.core.settings import Settings
from app.delivery import service as deliveries
from app.demo import seed
from app.destinations import service as destinations
from app.destinations.schemas import DestinationIn
from app.destinations.settings import prepare, problems
from app.identity.normalise import InvalidIdentifier, normalise_all
from app.security import accounts, api_keys, audit
from app.security.models import Admin, ApiKey, Role, Workspace
from app.security.routes import key_json
from app.sites import regimes, script
from app.sites import service as sites
from app.sites.config import SiteConfig, unsaid
from app.sites.directory import directory_of
from app.sites.models import Site
from app.subject_requests import intake, queries
from app.subject_requests.models import Batch
from app.subject_requests.states import Kind
from connectors.contract import Identifier

Row = dict[str, Any]
ACTOR = "cli"
BITE = 500


class Administration:
    """Opens the instance without its background work; what it writes is found by the running
    service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __aenter__(self) -> Administration:
        if self._settings.is_embedded:
            bootstrap.prepare(self._settings)
        self._public_url = bootstrap.running_at(self._settings) or self._settings.public_url
        self._runtime = Runtime(self._settings)
        try:
            await self._runtime.start(with_pumps=False, with_worker=False)
        except BaseException:
            await self._runtime.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runtime.stop()

    async def create_workspace(self, name: str, timezone: str) -> Row:
        async with self._runtime.database.writing() as session:
            made = await bootstrap.create_workspace(session, name, utc_now(), timezone=timezone)
            return _workspace(made)

    async def update_workspace(
        self, workspace_id: str, name: str | None, timezone: str | None
    ) -> Row:
        """Deadlines that were counted already stay as they are."""
        if name is None and timezone is None:
            raise Invalid("Say what to change: --name, --timezone, or both.")
        async with self._runtime.database.writing() as session:
            found = await self._workspace(session, workspace_id)
            if name is not None:
                found.name = bootstrap.checked_name(name)
            if timezone is not None:
                found.timezone = bootstrap.checked_zone(timezone)
            audit.record(
                session, workspace_id=found.id, actor=ACTOR, verb="workspace.update",
                target=found.id, now=utc_now(),
            )  # fmt: skip
            await session.flush()
            return _workspace(found)

    async def list_workspaces(self) -> list[Row]:
        async with self._runtime.database.reading() as session:
            rows = await session.execute(sa.select(Workspace).order_by(col(Workspace.id)))
            return [_workspace(each) for each in rows.scalars()]

    async def create_site(
        self, workspace: str | None, name: str, origins: Sequence[str], draft: Row
    ) -> Row:
        """``draft`` as in the API's ``config``; ``tag`` is for the site's pages, ``page`` is where
        it is changed, and ``unsaid`` what its visitors are not told.
        """
        try:
            config = SiteConfig.model_validate(draft)
        except ValidationError as error:
            listed = wrong_members(error.errors()).errors
            raise Invalid("Correct what is listed.", errors=listed) from None
        async with self._runtime.database.writing() as session:
            owner = await self._workspace(session, workspace)
            now = utc_now()
            site = await sites.create_site(
                session, workspace_id=owner.id, name=name, origins=origins, config=config,
                actor=ACTOR, now=now,
            )  # fmt: skip
            await sites.publish_site(session, site, actor=ACTOR, now=now)
            tag = script.live_tag(self._public_url, site.site_key, site.draft)
            page = f"{self._public_url}/dashboard/sites/{site.id}"
            return _site(site) | {
                "workspace_name": owner.name, "tag": tag, "page": page, "unsaid": unsaid(config)
            }  # fmt: skip

    async def list_sites(self, workspace: str | None) -> list[Row]:
        async with self._runtime.database.reading() as session:
            owner = await self._workspace(session, workspace)
            rows = await session.execute(
                sa.select(Site)
                .where(col(Site.workspace_id) == owner.id, col(Site.deleted_at).is_(None))
                .order_by(col(Site.id))
            )
            return [_site(each) for each in rows.scalars()]

    async def site_script(
        self, site_key: str, lang: str, region: str, name: str
    ) -> tuple[bytes, Row]:
        """The script and what to know of it; ``tag`` is for a page beside the file ``name``."""
        site, notice = await directory_of(self._runtime.database).published(site_key)
        body, regime = script.pinned(
            site, notice, lang=lang, region=region, base_url=self._public_url,
            widget=script.WIDGET,
        )  # fmt: skip
        return body, {
            "notice_version": notice.id,
            "regime": regime,
            "integrity": script.integrity(body),
            "tag": script.tag(name, body, notice.content),
        }

    async def create_destination(
        self, workspace: str | None, name: str, connector: str, settings: Row
    ) -> Row:
        try:
            wanted = DestinationIn(name=name, connector=connector, settings=settings)
        except ValidationError as error:
            raise Invalid("Correct what is listed.", errors=problems(error)) from None
        async with self._runtime.database.reading() as session:
            owner = await self._workspace(session, workspace)
        prepared = await prepare(self._runtime.instances, owner.id, connector, settings)
        async with self._runtime.database.writing() as session:
            made = await destinations.create(
                session,
                workspace_id=owner.id,
                actor=ACTOR,
                wanted=wanted,
                prepared=prepared,
                now=utc_now(),
            )
            return destinations.view(made)

    async def list_destinations(self, workspace: str | None) -> list[Row]:
        async with self._runtime.database.reading() as session:
            owner = await self._workspace(session, workspace)
            return [
                destinations.view(each)
                for each in await destinations.page(session, owner.id, limit=1000)
            ]

    async def create_key(self, workspace: str | None, name: str, scopes: Sequence[str]) -> Row:
        async with self._runtime.database.writing() as session:
            owner = await self._workspace(session, workspace)
            key, secret = await api_keys.create(
                session,
                workspace_id=owner.id,
                name=name,
                scopes=scopes,
                created_by=ACTOR,
                grantor_scopes=["all"],
                now=utc_now(),
            )
            return {"id": key.id, "key": secret}

    async def list_keys(self, workspace: str | None) -> list[Row]:
        async with self._runtime.database.reading() as session:
            owner = await self._workspace(session, workspace)
            rows = await session.execute(
                sa.select(ApiKey)
                .where(col(ApiKey.workspace_id) == owner.id)
                .order_by(col(ApiKey.id))
            )
            return [key_json(each) for each in rows.scalars()]

    async def invite_admin(self, workspace: str | None, role: str) -> Row:
        if role not in list(Role):
            raise Invalid(f"Roles are: {', '.join(Role)}.")
        async with self._runtime.database.writing() as session:
            owner = await self._workspace(session, workspace)
            token = await accounts.create_invite(
                session, owner.id, Role(role), now=utc_now(), actor=ACTOR
            )
        return {"link": f"{self._public_url}/dashboard/invite/{token}", "role": role}

    async def list_admins(self, workspace: str | None) -> list[Row]:
        async with self._runtime.database.reading() as session:
            owner = await self._workspace(session, workspace)
            rows = await session.execute(
                sa.select(Admin).where(col(Admin.workspace_id) == owner.id).order_by(col(Admin.id))
            )
            return [
                {
                    "id": each.id,
                    "email": each.email,
                    "role": each.role,
                    "disabled_at": rfc3339(each.disabled_at),
                }
                for each in rows.scalars()
            ]

    async def create_request(
        self, workspace: str | None, kind: str, pairs: Sequence[tuple[str, str]], regime: str | None
    ) -> Row:
        made = await self._take_in(workspace, kind, [pairs], regime, None)
        return await self.show_request(workspace, made[0])

    async def import_requests(
        self,
        workspace: str | None,
        kind: str,
        people: Sequence[Sequence[tuple[str, str]]],
        regime: str | None,
        progress: Callable[[int], None],
    ) -> Row:
        """All people are checked before the first is taken in; they are committed in bites."""
        for number, pairs in enumerate(people, 1):
            try:
                _identifiers(pairs)
            except InvalidIdentifier as error:
                raise InvalidIdentifier(f"Person {number}: {error.detail}") from None
        batch_id = new_id("bat")
        async with self._runtime.database.writing() as session:
            owner = await self._workspace(session, workspace)
            session.add(
                Batch(id=batch_id, workspace_id=owner.id, total=len(people), created_at=utc_now())
            )
        for start in range(0, len(people), BITE):
            bite = people[start : start + BITE]
            await self._take_in(workspace, kind, bite, regime, batch_id)
            progress(len(bite))
        return {"batch_id": batch_id, "accepted": len(people)}

    async def show_request(self, workspace: str | None, request_id: str) -> Row:
        async with self._runtime.database.reading() as session:
            owner = await self._workspace(session, workspace)
            return (
                await queries.as_json(session, [await queries.get(session, owner.id, request_id)])
            )[0]

    async def list_archived(self, workspace: str | None, destination: str | None) -> list[Row]:
        async with self._runtime.database.reading() as session:
            owner = await self._workspace(session, workspace)
            which = deliveries.Selection(owner.id, queue_id=destination)
            return [
                {
                    "id": each.delivery_id,
                    "request_id": each.request_id,
                    "destination_id": each.queue_id,
                    "archived_at": rfc3339(each.archived_at),
                }
                for each in await deliveries.archived(session, which)
            ]

    async def replay_archived(
        self,
        workspace: str | None,
        destination: str | None,
        since: dt.datetime | None,
        until: dt.datetime | None,
    ) -> Row:
        """In bites, until nothing is left that can be replayed."""
        async with self._runtime.database.reading() as session:
            owner = await self._workspace(session, workspace)
        which = deliveries.Selection(owner.id, queue_id=destination, since=since, until=until)
        await self._runtime.archive.mend(which)
        count = 0
        while True:
            now = utc_now()
            async with self._runtime.database.writing() as session:
                done = await deliveries.replay_many(session, which, now)
                audit.record(
                    session,
                    workspace_id=owner.id,
                    actor=ACTOR,
                    verb="replay_archived",
                    target=destination or owner.id,
                    now=now,
                    replayed=done.replayed,
                    since=rfc3339(since),
                    until=rfc3339(until),
                )
            count += done.replayed
            if not done.remaining:
                return {"replayed": count, "forgotten": done.forgotten}

    async def check_archive(self) -> Row:
        written, missing = await self._runtime.archive.missing()
        return {"in_files": written - len(missing), "missing": missing}

    async def seed_demo(self) -> Row:
        await seed.ensure(self._runtime, utc_now())
        return {"demo": "ready"}

    async def _take_in(
        self,
        workspace: str | None,
        kind: str,
        people: Sequence[Sequence[tuple[str, str]]],
        regime: str | None,
        batch_id: str | None,
    ) -> list[str]:
        if kind not in list(Kind):
            raise Invalid(f"Kinds are: {', '.join(Kind)}.")
        now = utc_now()
        services = self._runtime.services
        async with self._runtime.database.reading() as session:
            owner = await self._workspace(session, workspace)
        asks = [
            intake.Ask(
                workspace=owner,
                kind=Kind(kind),
                regime=regimes.get(regime or intake.DEFAULT_REGIME),
                identifiers=_identifiers(pairs),
                channel="cli",
                verification="operator",
                received_at=now,
                is_verified=True,
                batch_id=batch_id,
            )
            for pairs in people
        ]
        keys = await intake.take_in(services, asks, now)
        async with self._runtime.database.writing() as session:
            await intake.write(session, services, asks, keys, now)
        return [ask.id for ask in asks]

    async def _workspace(self, session: AsyncSession, workspace_id: str | None) -> Workspace:
        found = (
            await session.get(Workspace, workspace_id)
            if workspace_id
            else await bootstrap.first_workspace(session)
        )
        if found is None:
            raise NotFound(
                "There is no such workspace; see `quittance workspace list`, or make "
                "one with `workspace create`."
            )
        return found


def _identifiers(pairs: Sequence[tuple[str, str]]) -> list[Identifier]:
    return normalise_all(Identifier(*each) for each in pairs)


def _workspace(each: Workspace) -> Row:
    return {"id": each.id, "name": each.name, "timezone": each.timezone, "is_demo": each.is_demo}


def _site(each: Site) -> Row:
    return {"id": each.id, "site_key": each.site_key, "name": each.name, "origins": each.origins}
