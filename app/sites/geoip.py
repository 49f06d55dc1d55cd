"""The region of an address, from a GeoIP database in MaxMind's format that the operator supplies.
Addresses are only looked up: none is kept or logged."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import maxminddb

from app.core.logging import get_logger
from app.sites.regimes import region_named

log = get_logger(__name__)

_FOREIGN = (maxminddb.InvalidDatabaseError, TypeError, ValueError)
"""What opening a file of another make raises."""


class GeoIp:
    """One file, read anew when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._reader: maxminddb.Reader | None = None
        self.problem = "not read yet"
        """Why there is no region to be had from it; empty when all is well."""

    def region(self, address: str) -> str | None:
        """ISO 3166 code of an IP address; None where it is unknown or the file cannot be used."""
        self.refresh()
        if self._reader is None:
            return None
        try:
            return _region_in(self._reader.get(address))
        except ValueError:  # no address, or one of the other IP version
            return None
        except maxminddb.InvalidDatabaseError:
            self._fail("its data is damaged")
            return None

    def refresh(self) -> None:
        """Read the file if it is not the one that was read last."""
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            # In memory, not mapped: a file that is overwritten in place harms no reader.
            self._reader = maxminddb.open_database(self._path, maxminddb.MODE_MEMORY)
            self.problem = ""
        except OSError as error:
            self._stamp = None
            self._fail(f"it cannot be read ({error.strerror})")
        except _FOREIGN:
            self._fail("it is no database in MaxMind's format")

    def _fail(self, problem: str) -> None:
        if self.problem != problem:
            log.warning("geoip_unusable", reason=problem)
        self._reader, self.problem = None, problem


@lru_cache(maxsize=4)
def load(path: Path) -> GeoIp:
    """The file at ``path``, shared by all requests."""
    return GeoIp(path)


def _stamp(path: Path) -> tuple[int, int, int]:
    found = os.stat(path)  # noqa: PTH116 (called with every request)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _region_in(record: Any) -> str | None:
    """By the names that GeoIP2, GeoLite2 and DB-IP give them."""
    country = _at(record, "country", "iso_code")
    return region_named(country, _at(record, "subdivisions", 0, "iso_code"))


def _at(record: Any, *path: str | int) -> str:
    """The text at a place of a record; empty where there is none."""
    for step in path:
        try:
            record = record[step]
        except (LookupError, TypeError):
            return ""
    return record if isinstance(record, str) else ""
