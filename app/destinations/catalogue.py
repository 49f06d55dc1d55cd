"""Finds connectors by name: built in, in the operator's directory, or in installed packages.

Nothing is imported before it is asked for; an own connector that does not load is reported, not
fatal.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import connectors
from app.core.logging import get_logger
from app.destinations import secrets
from connectors.contract import (
    AnyConnector,
    Connector,
    ConnectorSettings,
    PeopleConnector,
    supports,
)

log = get_logger(__name__)

ConnectorType = type[AnyConnector]
GROUP = "quittance.connectors"
OPERATIONS = (
    "erase", "suppress", "unsuppress", "export", "lookup", "resolve", "poll", "callback", "test",
)  # fmt: skip
_NEEDED = ("erase", "suppress", "unsuppress", "lookup")
_NOT_CONNECTORS = frozenset({"contract"})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class NoConnector(LookupError):
    """There is no usable connector of this name; the text is for the operator."""


class Catalogue:
    """``find(name)`` gives the class, ``describe()`` all of them with their forms."""

    def __init__(
        self, directory: Path | None = None, extra: dict[str, ConnectorType] | None = None
    ) -> None:
        self._loaders: dict[str, Callable[[], object]] = {}
        self._found: dict[str, ConnectorType] = {}
        self._unusable: dict[str, str] = {}
        self._lock = threading.RLock()
        self.broken: dict[str, str] = {}
        """Own connectors that cannot be used: name and why; a taken name is here, too."""
        built_in = dict(_built_in())
        self._built_in = frozenset(built_in)
        given = {name: _giving(each) for name, each in (extra or {}).items()}
        own = [*_packages(), *_files(directory)]
        for name, loader in [*given.items(), *built_in.items(), *own]:
            if not _NAME.fullmatch(name):
                self._report(name[:40], "Name it in lower-case letters, digits and underscores.")
            elif name in self._loaders:
                self._report(name, "Another connector has this name; rename this one.")
            else:
                self._loaders[name] = loader

    def names(self) -> list[str]:
        """What may be asked for; not all of it need load."""
        return sorted(self._loaders)

    def listens(self, name: str) -> bool:
        """Whether destinations of this connector may call back; False also when it is gone."""
        try:
            return supports(self.find(name), "callback")
        except NoConnector:
            return False

    def find(self, name: str) -> ConnectorType:
        """The connector class, imported on first use; ``NoConnector``."""
        with self._lock:
            if name not in self._found:
                if name not in self._loaders:
                    raise NoConnector("There is no connector of this name.")
                self._found[name] = self._load(name)
            return self._found[name]

    def describe(self) -> list[dict[str, Any]]:
        """Every usable connector for ``GET /v1/connectors`` and the dashboard's forms."""
        described = []
        for name in self.names():
            try:
                described.append(description(name, self.find(name)))
            except NoConnector:
                continue
        return described

    def _load(self, name: str) -> ConnectorType:
        if name in self._unusable:
            raise NoConnector(self._unusable[name])
        try:
            return _class_in(self._loaders[name]())
        except _NotOne:
            if name in self._built_in:  # a module that only helps connectors
                raise NoConnector("There is no connector of this name.") from None
            problem = "Define exactly one class derived from Connector or PeopleConnector."
        except _Unfit as unfit:
            problem = str(unfit)
        except (Exception, SystemExit) as error:
            problem = f"It does not load ({type(error).__name__}{_line(error)})."
        self._unusable[name] = problem
        self._report(name, problem)
        raise NoConnector(problem)

    def _report(self, name: str, problem: str) -> None:
        self.broken[name] = problem
        log.warning("connector_broken", connector=name, reason=problem)


def description(name: str, connector: ConnectorType) -> dict[str, Any]:
    """The public facts of one connector; ``settings_schema`` is the form."""
    return {
        "name": name,
        "title": connector.title,
        "operations": [each for each in OPERATIONS if supports(connector, each)],
        "accepts": list(connector.accepts),
        "settings_schema": connector.Settings.model_json_schema(),
        "secrets": [".".join(place) for place in secrets.places(connector.Settings)],
    }


class _NotOne(Exception):
    """A module without a connector, or with several."""


class _Unfit(Exception):
    """A class that does not keep the contract; the text says where."""


def _built_in() -> Iterator[tuple[str, Callable[[], object]]]:
    for module in pkgutil.iter_modules(connectors.__path__):
        if module.name not in _NOT_CONNECTORS and not module.name.startswith("_"):
            yield module.name, partial(importlib.import_module, f"connectors.{module.name}")


def _giving(connector: ConnectorType) -> Callable[[], object]:
    return lambda: connector


def _packages() -> Iterator[tuple[str, Callable[[], object]]]:
    for point in metadata.entry_points(group=GROUP):
        yield point.name, point.load


def _files(directory: Path | None) -> Iterator[tuple[str, Callable[[], object]]]:
    if directory is None or not directory.is_dir():
        return
    for path in sorted(directory.glob("*.py")):
        if not path.name.startswith("_"):
            yield path.stem, partial(_import_file, path)


def _import_file(path: Path) -> ModuleType:
    name = f"quittance_own_connectors.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(path.name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations are looked up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _class_in(loaded: object) -> ConnectorType:
    """The class itself, or the one connector that a module defines."""
    if inspect.ismodule(loaded):
        found = {
            each
            for name, each in inspect.getmembers(loaded, inspect.isclass)
            if issubclass(each, Connector | PeopleConnector)
            and not name.startswith("_")
            and f"{each.__module__}.".startswith(f"{loaded.__name__}.")
        }
        if len(found) != 1:
            raise _NotOne
        loaded = found.pop()
    if not (inspect.isclass(loaded) and issubclass(loaded, Connector | PeopleConnector)):
        raise _NotOne
    _check_contract(loaded)
    return loaded


def _check_contract(connector: ConnectorType) -> None:
    if not isinstance(getattr(connector, "title", None), str):
        raise _Unfit("Give the connector class a `title`.")
    if not issubclass(connector.Settings, ConnectorSettings):
        raise _Unfit("Derive the connector's `Settings` from ConnectorSettings.")
    if not any(supports(connector, each) for each in _NEEDED):
        raise _Unfit(f"Give the connector at least one of the methods {', '.join(_NEEDED)}.")
    for name in OPERATIONS:
        method = getattr(connector, name, None)
        if name == "callback":
            if method and inspect.iscoroutinefunction(method):
                raise _Unfit("`callback` must be a plain function.")
        elif method and inspect.iscoroutinefunction(method) != (connector.runs_in == "loop"):
            kind = "a coroutine" if connector.runs_in == "loop" else "a plain function"
            raise _Unfit(f'With runs_in = "{connector.runs_in}", `{name}` must be {kind}.')


def _line(error: BaseException) -> str:
    """Where a file cannot be read; the error's own text is not shown."""
    return f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
