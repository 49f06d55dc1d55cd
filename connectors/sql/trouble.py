"""What a database error means for the delivery, read from its code and never from its words."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

import psycopg
import pymysql
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from connectors.contract import Outcome, failed, retry

Scope = Literal["person", "batch"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """``scope``: a savepoint can save the others ("person"), or all must try again ("batch")."""

    reason: str
    scope: Scope = "batch"
    parks: bool = False
    is_final: bool = False

    def outcome(self) -> Outcome:
        return failed(self.reason) if self.is_final else retry(self.reason, parks=self.parks)


AUTHENTICATION = Trouble("authentication_refused", parks=True)
PERMISSION = Trouble("permission_denied", parks=True)
NO_DATABASE = Trouble("database_missing", parks=True)
UNREADABLE = Trouble("database_unreadable", parks=True)
SCHEMA = Trouble("schema_changed", parks=True)
CONNECTION = Trouble("connection_lost")
UNREACHABLE = Trouble("connection_failed")
DEADLOCK = Trouble("deadlock")
LOCKED = Trouble("lock_timeout", scope="person")
SLOW = Trouble("statement_timeout", scope="person")
CONSTRAINT = Trouble("constraint_violation", scope="person", is_final=True)
UNFIT = Trouble("value_does_not_fit", scope="person", is_final=True)
READ_ONLY = Trouble("database_read_only")
OTHER = Trouble("database_error")

_SQLSTATES = {
    "28": AUTHENTICATION,
    "3D": NO_DATABASE,
    "42501": PERMISSION,
    "42": SCHEMA,
    "57014": SLOW,
    "57": CONNECTION,
    "55P03": LOCKED,
    "40": DEADLOCK,
    "08": CONNECTION,
    "25006": READ_ONLY,
    "23": CONSTRAINT,
    "22": UNFIT,
}
_MYSQL_CODES = {
    1044: PERMISSION,
    1045: AUTHENTICATION,
    1698: AUTHENTICATION,
    1142: PERMISSION,
    1143: PERMISSION,
    1227: PERMISSION,
    1049: NO_DATABASE,
    1054: SCHEMA,
    1146: SCHEMA,
    1205: LOCKED,
    1213: DEADLOCK,
    1290: READ_ONLY,
    1317: SLOW,
    1969: SLOW,
    3024: SLOW,
    1406: UNFIT,
    1366: UNFIT,
    2003: UNREACHABLE,
    2006: CONNECTION,
    2013: CONNECTION,
    2055: CONNECTION,
}
_SQLITE_NAMES = {
    "SQLITE_BUSY": LOCKED,
    "SQLITE_LOCKED": LOCKED,
    "SQLITE_INTERRUPT": SLOW,
    "SQLITE_READONLY": PERMISSION,
    "SQLITE_PERM": PERMISSION,
    "SQLITE_CANTOPEN": UNREADABLE,
    "SQLITE_NOTADB": UNREADABLE,
    "SQLITE_CORRUPT": UNREADABLE,
    "SQLITE_CONSTRAINT": CONSTRAINT,
}


def read(error: SQLAlchemyError) -> Trouble:
    """The meaning of an error; unknown ones are worth another try."""
    if isinstance(error, PoolTimeout):
        return UNREACHABLE
    if not isinstance(error, DBAPIError):
        return SCHEMA
    found = _of_driver(error.orig)
    if error.connection_invalidated and found in (OTHER, UNREACHABLE):
        return CONNECTION
    if found is OTHER and isinstance(error, IntegrityError):
        return CONSTRAINT
    return found


def _of_driver(error: BaseException | None) -> Trouble:
    match error:
        case psycopg.Error():
            return _of_postgres(error)
        case pymysql.err.Error() if error.args and isinstance(error.args[0], int):
            return _MYSQL_CODES.get(error.args[0], OTHER)
        case sqlite3.Error():
            name = getattr(error, "sqlite_errorname", "") or ""
            return _SQLITE_NAMES.get("_".join(name.split("_")[:2]), OTHER)
    return OTHER


def _of_postgres(error: psycopg.Error) -> Trouble:
    state = error.sqlstate or ""
    for length in (5, 2):
        if found := _SQLSTATES.get(state[:length]):
            return found
    # A refused start of a session carries no code: libpq only passes the server's words on.
    words = str(error)
    if "authentication failed" in words or "no pg_hba.conf entry" in words:
        return AUTHENTICATION
    if "does not exist" in words:
        return NO_DATABASE if 'database "' in words else AUTHENTICATION
    if isinstance(error, psycopg.OperationalError) and not state:
        return UNREACHABLE
    return OTHER
