"""``python -m benchmarks.consent.reference``: what Quittance's consent endpoint is measured by.

Two plain FastAPI applications on the same server program, which check the same body: one stores
nothing, the other adds one object and commits, for each request. ``REFERENCE_DATABASE``: an address
for SQLAlchemy; without it nothing is stored. Prints its port once it listens.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlmodel import Field, SQLModel

from app.consent.schemas import ConsentIn
from app.core.ids import new_id


class Choice(SQLModel, table=True):
    """The columns of a consent record."""

    id: str = Field(primary_key=True)
    site_key: str
    visitor_id: str = Field(index=True)
    event_id: str = Field(unique=True)
    notice_version: str
    choices: dict[str, bool] = Field(sa_type=sa.JSON)
    method: str
    language: str
    region: str | None
    gpc: bool
    page: str | None
    decided_at: dt.datetime = Field(sa_type=sa.DateTime(timezone=True))
    recorded_at: dt.datetime = Field(sa_type=sa.DateTime(timezone=True))


def storing_nothing() -> FastAPI:
    app = FastAPI()

    @app.post("/v1/consent", status_code=201)
    async def consent(body: ConsentIn) -> dict[str, Any]:
        return _answer(new_id("con"), dt.datetime.now(dt.UTC), body)

    return app


def committing_each(address: str) -> FastAPI:
    pool = {"pool_size": 20, "max_overflow": 0} if address.startswith("postgresql") else {}
    engine = create_async_engine(address, **pool)
    if not pool:
        sa.event.listen(engine.sync_engine, "connect", _durable)

    @asynccontextmanager
    async def tables(_app: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(SQLModel.metadata.tables["choice"].create)
        yield
        await engine.dispose()

    app = FastAPI(lifespan=tables)

    @app.post("/v1/consent", status_code=201)
    async def consent(body: ConsentIn) -> dict[str, Any]:
        said = body.model_dump(exclude={"regime"})
        made = Choice(id=new_id("con"), recorded_at=dt.datetime.now(dt.UTC), **said)
        answer = _answer(made.id, made.recorded_at, body)
        async with AsyncSession(engine) as session:
            session.add(made)
            await session.commit()
        return answer

    return app


def _durable(connection: Any, _record: Any) -> None:
    """As Quittance opens SQLite."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _answer(consent_id: str, recorded_at: dt.datetime, body: ConsentIn) -> dict[str, Any]:
    return {
        "consent_id": consent_id,
        "recorded_at": recorded_at,
        "expires_at": recorded_at + dt.timedelta(days=180),
        "choices": body.choices,
        "regime": "gdpr",
        "gpc_applied": False,
    }


def main() -> None:
    address = os.environ.get("REFERENCE_DATABASE")
    app = committing_each(address) if address else storing_nothing()
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
