"""A connector's settings apart from their secrets: taken out, put back, kept, and never shown.

A place is a tuple of member names and indexes, ``("tables", "0", "token")``; in a key of a mapping
it is written as a JSON Pointer.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import to_jsonable_python

SET = {"set": True}
"""What stands for a secret everywhere but at its connector."""
HIDDEN = "***"

Place = tuple[str, ...]
Secrets = dict[str, str]
"""JSON Pointer: secret."""

_TARGET_NAMES = frozenset(
    {"host", "hostname", "server", "endpoint", "domain", "subdomain", "site", "account"}
    | {"instance", "region", "datacenter", "port", "url", "base_url"}
)
"""Settings that say where calls go, beside everything that looks like a URL."""


def places(model: type[BaseModel], _above: frozenset[type] = frozenset()) -> list[Place]:
    """Where secrets may be, ``*`` for any index or key; a model inside itself is walked once."""
    found: list[Place] = []
    for name, field in model.model_fields.items():
        found += [(name, *rest) for rest in _places_in(field.annotation, _above | {model})]
    return list(dict.fromkeys(found))


def _places_in(kind: Any, above: frozenset[type]) -> list[Place]:
    if kind in {SecretStr, SecretBytes}:
        return [()]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [] if kind in above else places(kind, above)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _places_in(arguments[0], above)
    if origin in {Union, types.UnionType}:
        return [place for each in arguments for place in _places_in(each, above)]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [("*", *place) for place in _places_in(arguments[1], above)]
    if isinstance(origin, type) and issubclass(origin, Sequence | set | frozenset):
        return [("*", *place) for each in arguments for place in _places_in(each, above)]
    return []


def split(settings: BaseModel) -> tuple[dict[str, Any], Secrets]:
    """Plain JSON with ``{"set": true}`` for secrets, and the secrets; unset members stay out."""
    secrets: Secrets = {}

    def plain(value: Any, place: Place) -> Any:
        if isinstance(value, SecretStr | SecretBytes):
            raw = value.get_secret_value()
            secrets[pointer(place)] = raw.decode() if isinstance(raw, bytes) else raw
            return dict(SET)
        if isinstance(value, BaseModel):
            names = [name for name in type(value).model_fields if name in value.model_fields_set]
            return {name: plain(getattr(value, name), (*place, name)) for name in names}
        if isinstance(value, Mapping):
            return {str(key): plain(each, (*place, str(key))) for key, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [plain(each, (*place, str(index))) for index, each in enumerate(value)]
        return to_jsonable_python(value)

    return plain(settings, ()), secrets


def join(settings: Mapping[str, Any], secrets: Secrets) -> dict[str, Any]:
    """The settings with their secrets back in place; a secret whose place is gone is left out."""
    known = {parts(text): secret for text, secret in secrets.items()}
    return _filled(settings, lambda place, _: known.get(place))


def keep(
    given: Mapping[str, Any], kept: Secrets, where: Sequence[Place]
) -> tuple[dict[str, Any], Secrets]:
    """``given`` with the kept secrets where it says ``{"set": true}`` or leaves one out.

    Returns the filled settings, and the secrets that were filled in. ``null`` takes a secret away;
    so does leaving a key out of a mapping.
    """
    used: Secrets = {}
    known = {parts(text): secret for text, secret in kept.items()}

    def secret(place: Place, value: Any) -> str | None:
        if value == SET and place in known:
            used[pointer(place)] = known[place]
            return known[place]
        return None

    whole = _filled(given, secret)
    for place, each in known.items():
        holder = _at(whole, place[:-1])
        is_member = any(_fits(place, one) and one[-1] != "*" for one in where)
        if isinstance(holder, dict) and is_member and place[-1] not in holder:
            holder[place[-1]] = used[pointer(place)] = each
    return whole, used


def unfilled(settings: Any, where: Sequence[Place]) -> list[Place]:
    """Secret places which still say ``{"set": true}`` though nothing is kept for them."""
    return [
        place
        for place, value in nodes(settings)
        if value == SET and any(_fits(place, each) for each in where)
    ]


def given(settings: Mapping[str, Any], model: type[BaseModel]) -> Secrets:
    """The secrets in settings that were not read by their model yet."""
    where = places(model)
    return {
        pointer(place): value
        for place, value in nodes(settings)
        if isinstance(value, str) and any(_fits(place, each) for each in where)
    }


def targets(settings: Any) -> dict[Place, str]:
    """Every setting that says where calls go: URLs without their query, hosts, ports, regions."""
    found = {place: _target(place, value) for place, value in nodes(settings)}
    return {place: target for place, target in found.items() if target is not None}


def _target(place: Place, value: Any) -> str | None:
    if isinstance(value, str) and "://" in value:
        return _aim(value)
    is_named = bool(place) and place[-1].lower() in _TARGET_NAMES
    return str(value).strip().lower() if is_named and isinstance(value, str | int) else None


def _aim(url: str) -> str:
    """Scheme, host, port and path of a URL."""
    try:
        seen = urlsplit(url.strip())
        host = (seen.hostname or "").lower()
        return f"{seen.scheme.lower()}://{host}:{seen.port or ''}{seen.path}"
    except ValueError:
        return url


def urls(settings: Any) -> list[tuple[Place, str]]:
    """Every setting that is, or nearly is, an HTTP address."""
    return [
        (place, value)
        for place, value in nodes(settings)
        if isinstance(value, str) and value.strip().lower().startswith(("http:", "https:"))
    ]


def without_credentials(settings: Any) -> Any:
    """What may be shown: user names and passwords inside URLs become ``***``."""
    return _mapped(settings, lambda _, value: _bare(value) if isinstance(value, str) else value)


def without_addresses(settings: Any) -> Any:
    """What a viewer may see: no URL or host at all."""
    hidden = targets(settings)
    return _mapped(settings, lambda place, value: HIDDEN if place in hidden else value)


def scrub(text: str, secrets: Secrets) -> str:
    """``text`` without any of the secrets, should a driver or connector have put one there."""
    for secret in sorted(secrets.values(), key=len, reverse=True):
        if len(secret) >= 4:
            text = text.replace(secret, HIDDEN)
    return " ".join(_bare(word) for word in text.split(" "))


def _bare(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    authority = rest.partition("/")[0].partition("?")[0]
    if not separator or "@" not in authority:
        return url
    return f"{scheme}://{HIDDEN}@{authority.rpartition('@')[2]}{rest[len(authority) :]}"


def nodes(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value of a JSON document with its place, the containers too."""
    yield place, value
    for name, each in _members(value):
        yield from nodes(each, (*place, name))


def _members(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(str(name), each) for name, each in value.items()]
    return [(str(i), each) for i, each in enumerate(value)] if isinstance(value, list) else []


def _mapped(value: Any, leaf: Callable[[Place, Any], Any], place: Place = ()) -> Any:
    if isinstance(value, dict):
        return {name: _mapped(each, leaf, (*place, str(name))) for name, each in value.items()}
    if isinstance(value, list):
        return [_mapped(each, leaf, (*place, str(i))) for i, each in enumerate(value)]
    return leaf(place, value)


def _filled(
    settings: Mapping[str, Any], secret: Callable[[Place, Any], str | None]
) -> dict[str, Any]:
    """A copy in which ``secret`` may replace what stands at a place."""

    def fill(value: Any, place: Place) -> Any:
        if (found := secret(place, value)) is not None:
            return found
        if isinstance(value, dict):
            return {name: fill(each, (*place, str(name))) for name, each in value.items()}
        if isinstance(value, list):
            return [fill(each, (*place, str(index))) for index, each in enumerate(value)]
        return value

    return {name: fill(each, (str(name),)) for name, each in settings.items()}


def pointer(place: Sequence[str]) -> str:
    return "".join("/" + each.replace("~", "~0").replace("/", "~1") for each in place)


def parts(text: str) -> Place:
    return tuple(each.replace("~1", "/").replace("~0", "~") for each in text.split("/")[1:])


def _fits(place: Sequence[str], template: Place) -> bool:
    return len(place) == len(template) and all(
        wanted in {"*", each} for each, wanted in zip(place, template, strict=True)
    )


def _at(value: Any, place: Sequence[str]) -> Any:
    for each in place:
        value = dict(_members(value)).get(each)
    return value
