"""Whose host tokens a site believes: it acts at once, and is no part of a notice."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import Invalid
from app.core.http import Schema
from app.core.outbound import Outbound
from app.identity import host_keys
from app.security import audit
from app.sites import directory
from app.sites.models import Site
from connectors.contract import AddressRefused


class HostIdentity(Schema):
    """Whose tokens tell who is signed in on the site, and the public keys they are checked with:
    given here, or published at an address.
    """

    issuer: Annotated[str, Field(min_length=1, max_length=300)]
    jwks: Annotated[dict[str, Any], AfterValidator(host_keys.read_set)] | None = None
    jwks_url: Annotated[str, Field(max_length=2000)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> HostIdentity:
        if (self.jwks is None) == (self.jwks_url is None):
            raise ValueError("give either `jwks` or `jwks_url`")
        return self


async def check_reachable(identity: HostIdentity | None, outbound: Outbound) -> None:
    """The rules for destinations' addresses hold for key sets too: ``Invalid``. Call it before a
    transaction, for a name may be looked up.
    """
    if identity is None or identity.jwks_url is None:
        return
    try:
        await asyncio.to_thread(outbound.check_url, identity.jwks_url)
    except AddressRefused as error:
        raise Invalid(f"`jwks_url` cannot be used. {error}") from None


async def set_host_identity(
    session: AsyncSession,
    site: Site,
    identity: HostIdentity | None,
    *,
    actor: str,
    now: dt.datetime,
) -> None:
    """Believe this host, or none."""
    given = identity.model_dump(exclude_none=True) if identity else None
    if site.host_identity == given:
        return
    site.host_identity = given
    audit.record(
        session,
        workspace_id=site.workspace_id,
        actor=actor,
        verb="site.host_identity",
        target=site.id,
        now=now,
        issuer=identity.issuer if identity else None,
    )
    directory.forget_after_commit(session, site.site_key)
    await session.flush()
