"""Consent records as a file, newest first: one JSON object a line, also by the names of ISO/IEC TS
27560, or CSV. Read a page at a time, so that it may be as large as it is."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from fastapi.responses import StreamingResponse

from app.consent import iso_export, queries
from app.core import sheets
from app.core.db import Database
from app.sites.directory import Notice

Format = Literal["ndjson", "csv", "iso_27560"]


async def answer(
    database: Database,
    wanted: queries.Filter,
    format: Format,
    kept: dt.timedelta,
    headers: Mapping[str, str] | None = None,
) -> StreamingResponse:
    """``kept``: how long records stay."""
    if format == "csv":
        lines = _csv(database, wanted)
    elif format == "ndjson":
        lines = _ndjson(database, wanted)
    else:
        lines = _iso_27560(database, wanted, await iso_export.notices(database, wanted), kept)
    name = "consents.iso_27560.ndjson" if format == "iso_27560" else f"consents.{format}"
    return StreamingResponse(
        lines,
        media_type="text/csv; charset=utf-8" if format == "csv" else "application/x-ndjson",
        headers={**(headers or {}), "Content-Disposition": f'attachment; filename="{name}"'},
    )


async def _ndjson(database: Database, wanted: queries.Filter) -> AsyncIterator[str]:
    async with database.reading() as session:
        async for record in queries.export(session, wanted):
            yield _line(record)


async def _iso_27560(
    database: Database, wanted: queries.Filter, notices: Mapping[str, Notice], kept: dt.timedelta
) -> AsyncIterator[str]:
    async for record in iso_export.iso_records(database, wanted, notices, kept):
        yield _line(record)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


async def _csv(database: Database, wanted: queries.Filter) -> AsyncIterator[str]:
    """Choices stand in two columns, purposes separated by spaces."""
    names = [name for name in queries.RECORD_MEMBERS if name != "choices"]
    yield sheets.line([*names, "granted", "denied"])
    async with database.reading() as session:
        async for record in queries.export(session, wanted):
            choices = record["choices"]
            granted, denied = (
                " ".join(each for each in choices if choices[each] is answer)
                for answer in (True, False)
            )
            yield sheets.line([*(record[name] for name in names), granted, denied])
