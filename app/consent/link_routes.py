"""The route that links a visitor to a person: by key, or from the browser by host token."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.ext.asyncio import AsyncSession

from app.consent import devices, links, queries
from app.consent.audit_trail import mode_of
from app.consent.errors import OriginNotAllowed
from app.consent.models import ConsentOutbox
from app.consent.schemas import LinkIn
from app.consent.state import changed, standing
from app.consent.writer import outbox_rows
from app.core import errors
from app.core.clock import rfc3339, utc_now
from app.core.db import Database, hint_after_commit
from app.core.http import StrictRoute, client_network
from app.core.ids import new_id
from app.core.logging import get_logger
from app.crypto.keystore import HolderKey, KeyStore
from app.identity import host_tokens
from app.identity.host_tokens import Host, HostToken, HostTokenRefused
from app.identity.normalise import normalise_all
from app.security.access import Caller, needs
from app.security.idempotency import Work, once
from app.security.limits import RateLimits
from app.sites import cors, regimes, unlisted
from app.sites.directory import Notice, PublishedSite, directory_of
from app.sites.errors import UnknownSite
from connectors.contract import Identifier

log = get_logger(__name__)
router = APIRouter(route_class=StrictRoute)

_key_holder = needs("sites:write")


async def _linker(request: Request) -> Caller | None:
    """The holder of a key; None for a host token, which is judged once the site is known."""
    return None if _host_token(request) else await _key_holder(request)


_linker.scope = "sites:write"  # type: ignore[attr-defined]  # what a key needs, as `needs` says it


def _host_token(request: Request) -> str:
    """The bearer token, if there is one and it is no API key."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    return "" if scheme.lower() != "bearer" or token.startswith("qt_") else token


@router.post("/v1/visitors/link", tags=["consent"], status_code=201)
async def link_visitor(
    request: Request, caller: Annotated[Caller | None, Depends(_linker)], body: LinkIn
) -> JSONResponse:
    """Tell who a visitor is: their choices then hold on all their devices, and withdrawals and
    erasure reach them under these identifiers too. By key; or by a host token
    (``Authorization: Bearer``), also from a page, which names the account and its address.

    ``state`` is what holds for the visitor from now on, or null; ``stale``: ask again. ``signal``,
    if there: what an opt-out signal in any of the person's browsers denies over it.
    """
    if caller is None:
        return await _link_by_host_token(request, body)
    if body.identifiers is None:
        raise errors.Invalid("Name the `identifiers` that the visitor is known by.")
    site, notice = await directory_of(request.app.state.database).published(body.site_key)
    if site.workspace_id != caller.workspace_id:
        raise UnknownSite
    identifiers = normalise_all(body.identifiers)
    linking = _Linking(request, site, notice, body.visitor_id, identifiers, utc_now())
    return await linking.run(
        lambda work: once(request, caller, body.model_dump(mode="json"), work, linking.now)
    )


@router.options("/v1/visitors/link", tags=["consent"], include_in_schema=False)
async def link_preflight(request: Request) -> Response:
    return await cors.preflight(request, ["POST"], allowed="Authorization, Content-Type")


async def _link_by_host_token(request: Request, body: LinkIn) -> JSONResponse:
    """Every refusal can be read by the page that caused it."""
    database: Database = request.app.state.database
    limits: RateLimits = request.app.state.limits
    try:
        await limits.spend("consent", client_network(request))
        site, notice = await directory_of(database).published(body.site_key)
    except errors.Problem as problem:
        problem.headers |= cors.of_refusal(request)
        raise
    headers = cors.headers(site, request)
    now = utc_now()
    try:
        token = await _verified(request, site, now)
        if body.identifiers is not None:
            raise errors.Invalid("The token says who the visitor is; leave `identifiers` out.")
        linking = _Linking(request, site, notice, body.visitor_id, token.identifiers, now, token)
        answer = await linking.run(partial(_at_once, database))
    except errors.Problem as problem:
        problem.headers |= headers
        if isinstance(problem, HostTokenRefused):
            log.warning("host_token_refused", site_id=site.id, reason=problem.reason)
        raise
    answer.headers.update(headers)
    return answer


async def _verified(request: Request, site: PublishedSite, now: dt.datetime) -> HostToken:
    """The request's token, if the site's host made it for us and nobody used it yet."""
    origin = request.headers.get("origin")
    if origin is not None and not cors.allows(site, origin):
        await unlisted.notice(request, site)
        raise OriginNotAllowed
    state = request.app.state
    token = await host_tokens.verify(
        _host_token(request),
        Host(**site.host_identity) if site.host_identity else None,
        audience=state.settings.public_url,
        key_sets=state.key_sets,
        now=now,
    )
    async with state.database.reading() as session:
        if await host_tokens.is_used(session, site.workspace_id, token):
            raise HostTokenRefused("used")
    return token


async def _at_once(database: Database, work: Work) -> JSONResponse:
    async with database.writing() as session:
        status, answer = await work(session)
    return JSONResponse(answer, status)


@dataclass(frozen=True, slots=True)
class _Linking:
    """One call: identifiers for a visitor and the state that follows, in one transaction; it uses
    up the ``token`` that allows it.
    """

    request: Request
    site: PublishedSite
    notice: Notice
    visitor_id: str
    identifiers: list[Identifier]
    now: dt.datetime
    token: HostToken | None = None

    @property
    def _visitor(self) -> devices.Visitor:
        return self.site.id, self.visitor_id

    async def run(self, carry_out: Callable[[Work], Awaitable[JSONResponse]]) -> JSONResponse:
        keys: KeyStore = self.request.app.state.key_store
        for _ in range(3):
            known = await self._known()
            holder_id = known or new_id("vis")
            found = (  # committed before what it seals
                await keys.load([holder_id]) if known else await keys.create([holder_id], self.now)
            )
            if not found:
                await self._drop(holder_id)
                continue
            work = partial(self._work, holder_id, found[holder_id], is_new=known is None)
            try:
                return await carry_out(work)
            except (links.HolderChanged, errors.Problem) as error:
                if known is None:
                    await keys.forget([holder_id])
                if isinstance(error, errors.Problem):
                    raise
        raise errors.Unavailable(
            "The visitor is being linked elsewhere; try again.", headers={"Retry-After": "1"}
        )

    async def _known(self) -> str | None:
        database: Database = self.request.app.state.database
        async with database.reading() as session:
            return await links.holder_of(session, self.site.id, self.visitor_id)

    async def _drop(self, holder_id: str) -> None:
        """A link whose key is gone holds nothing: its end was cut short, or is under way."""
        database: Database = self.request.app.state.database
        async with database.writing() as session:
            await links.forget(session, [holder_id])

    async def _work(
        self, holder_id: str, key: HolderKey, session: AsyncSession, *, is_new: bool
    ) -> tuple[int, dict[str, Any]]:
        await devices.take_turns(session, {self._visitor})
        before = await devices.people_of(session, [self._visitor], self.now)
        if self.token:
            await host_tokens.use(session, self.site.workspace_id, self.token)
        made = await links.link(
            session,
            self.request.app.state.ring,
            site=self.site,
            visitor_id=self.visitor_id,
            holder_id=holder_id,
            is_new=is_new,
            key=key,
            identifiers=self.identifiers,
            now=self.now,
            expires_at=self.now + dt.timedelta(days=self.notice.content["expiry_days"]),
            is_one_account=self.token is not None,
        )
        after = await devices.people_of(session, [self._visitor], self.now)
        if after and after != before:
            await self._carry(session, after[self._visitor])
        directory = directory_of(self.request.app.state.database)
        held = await devices.held_by(session, directory, self.site, self.visitor_id, self.now)
        is_idle = self.token and held.state is None and held.signal is None
        until = self.now + links.IDLE if is_idle else None
        await links.set_idle(session, holder_id, until, is_new=is_new)
        answer = made | {"state": None} | devices.signal_json(held)
        if (state := held.state) is None:
            return 201, answer
        answered = await directory.notice(state.record.notice_version_id)
        has_lapsed = state.has_lapsed(answered, self.notice, self.now)
        mode = mode_of(state.record, answered or self.notice)
        return 201, answer | {"state": self._described(state, mode, has_lapsed=has_lapsed)}

    async def _carry(self, session: AsyncSession, person: devices.Person) -> None:
        """What was chosen here before we knew who it was is the person's from now on: destinations
        hear of what it takes back or grants again.
        """
        said = (await devices.said_by(session, {self._visitor: person}, self.now)).values()
        everywhere = [each for found in said for each in found]
        here = [each for each in everywhere if each.record.visitor_id == self.visitor_id]
        if not here:
            return
        elsewhere = [each for each in everywhere if each.record.visitor_id != self.visitor_id]
        record = max((each.record for each in here), key=lambda each: each.decided_at)
        taken_back, granted = changed(
            standing(each.word for each in elsewhere),
            standing(each.word for each in everywhere),
            asks_first=regimes.known(record.regime).mode == "opt_in",
        )
        if rows := outbox_rows(record.model_dump(), taken_back, granted, self.now):
            await session.execute(sa.insert(ConsentOutbox), rows)
            hint_after_commit(session, "withdrawals")

    def _is_joint(self, state: queries.CurrentState) -> bool:
        """Whether another device has a say: by the choice itself, or by what this one left be."""
        record = state.record
        return record.visitor_id != self.visitor_id or state.choices != record.choices

    def _described(
        self, state: queries.CurrentState, mode: str, *, has_lapsed: bool
    ) -> dict[str, Any]:
        """What a page may act on: of a lapsed state only the denials. ``mode``: how the person was
        asked, for what ran unasked is no consent where the law asks first.
        """
        record = state.record
        return {
            "choices": state.told(self.notice, is_lapsed=has_lapsed),
            "mode": mode,
            "decided_at": rfc3339(record.decided_at),
            "expires_at": rfc3339(record.expires_at),
            "notice_version": record.notice_version_id,
            "consent_id": record.id,
            "source": "other_device" if self._is_joint(state) else "this_device",
            "stale": has_lapsed and not state.is_left_alone(self.now),
        }
