"""Consent records as a file, newest first: one JSON object a line, or CSV. Read a page at a time,
so that it may be as large as it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Literal

from fastapi.responses import StreamingResponse

from app.consent import queries
from app.core import sheets
from app.core.db import Database

Format = Literal["ndjson", "csv"]
_TYPES: dict[Format, str] = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}


def answer(
    database: Database,
    wanted: queries.Filter,
    format: Format,
    headers: Mapping[str, str] | None = None,
) -> StreamingResponse:
    lines = _csv(database, wanted) if format == "csv" else _ndjson(database, wanted)
    named = {"Content-Disposition": f'attachment; filename="consents.{format}"'}
    return StreamingResponse(lines, media_type=_TYPES[format], headers={**(headers or {}), **named})


async def _ndjson(database: Database, wanted: queries.Filter) -> AsyncIterator[str]:
    async with database.reading() as session:
        async for record in queries.export(session, wanted):
            yield json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


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
