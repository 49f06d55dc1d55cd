"""Makes settings safe to keep: read by the connector's own model, checked, secrets sealed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from app.core.ids import new_id
from app.crypto.keyring import Unsealable
from app.destinations import sealed, secrets
from app.destinations.catalogue import ConnectorType, NoConnector
from app.destinations.errors import SecretNeeded, SettingsRefused, UnknownConnector
from app.destinations.instances import Instances
from app.destinations.models import Destination
from app.destinations.secrets import Secrets
from connectors.contract import AddressRefused, AnyConnector, ConnectorError

CHECK_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Prepared:
    """Settings that were checked; ``secrets_sealed`` opens only for the destination ``id``."""

    id: str
    connector: str
    settings: dict[str, Any]
    secrets_sealed: bytes
    is_identity_source: bool
    based_on: int = 0
    """The version of the destination they change."""


async def prepare(
    instances: Instances,
    workspace_id: str,
    connector: str,
    given: Mapping[str, Any],
    present: Destination | None = None,
) -> Prepared:
    """Check new settings, or changed ones of ``present``. Takes time: no transaction is open."""
    kind = _find(instances, connector)
    kept = _kept(instances, present)
    filled, used = _with_kept(kind, given, kept.secrets)
    if present and used:
        _refuse_new_target(secrets.join(present.settings, kept.secrets), filled)
    destination_id = present.id if present else new_id("dst")
    try:
        instance = instances.build(
            workspace_id=workspace_id, destination_id=destination_id, connector=connector,
            settings=filled, mask_key=kept.mask_key,
        )  # fmt: skip
        await _check(instances, instance, filled)
    except ValidationError as error:
        raise SettingsRefused(
            "Correct the settings listed in `errors`.", errors=problems(error)
        ) from None
    except ConnectorError as error:
        raise SettingsRefused(
            secrets.scrub(str(error), secrets.given(filled, kind.Settings))
        ) from None
    plain, found = secrets.split(instance.settings)
    content = sealed.Sealed(found, kept.mask_key)
    return Prepared(
        id=destination_id,
        connector=connector,
        settings=plain,
        secrets_sealed=sealed.seal(instances.ring, workspace_id, destination_id, content),
        is_identity_source=bool(getattr(instance.settings, "identity_source", False)),
        based_on=present.version if present else 0,
    )


def _find(instances: Instances, connector: str) -> ConnectorType:
    try:
        return instances.catalogue.find(connector)
    except NoConnector as error:
        raise UnknownConnector(f"{error} `GET /v1/connectors` lists them.") from None


def _kept(instances: Instances, present: Destination | None) -> sealed.Sealed:
    """What the destination keeps; when it does not open, everything must be entered again."""
    try:
        return instances.secrets_of(present) if present else sealed.Sealed()
    except (Unsealable, ValueError):
        return sealed.Sealed()


def _with_kept(
    kind: ConnectorType, given: Mapping[str, Any], kept: Secrets
) -> tuple[dict[str, Any], Secrets]:
    where = secrets.places(kind.Settings)
    filled, used = secrets.keep(given, kept, where)
    if missing := secrets.unfilled(filled, where):
        raise SettingsRefused(
            "Nothing is kept for the secrets listed in `errors`: enter them.",
            errors=[{"at": at(place), "problem": "enter the secret"} for place in missing],
        )
    return filled, used


def _refuse_new_target(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """A kept secret goes only where it went: else whoever may edit could send it to themselves."""
    old, new = secrets.targets(before), secrets.targets(after)
    if changed := sorted(
        place for place in old.keys() | new.keys() if old.get(place) != new.get(place)
    ):
        raise SecretNeeded(
            "The destination's address changes, so its secrets must be entered again.",
            errors=[{"at": at(place), "problem": "the address changed"} for place in changed],
        )


async def _check(instances: Instances, instance: AnyConnector, filled: Mapping[str, Any]) -> None:
    """The guard's word on every address, then the connector's own check; in a thread."""

    def check() -> None:
        for place, url in secrets.urls(filled):
            try:
                instances.outbound.check_url(url)
            except AddressRefused as error:
                problem = {"at": at(place), "problem": str(error)}
                raise SettingsRefused("An address may not be called.", errors=[problem]) from None
        instance.check()

    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await instances.in_thread(check)
    except TimeoutError:
        raise SettingsRefused(
            f"The destination did not answer within {CHECK_SECONDS} seconds; look at its address."
        ) from None
    finally:
        await instances.in_thread(instance.close)


def problems(error: ValidationError) -> list[dict[str, str]]:
    """Where and what, without the input."""
    return [
        {"at": at(tuple(map(str, each["loc"]))), "problem": _plain(each["type"], each["msg"])}
        for each in error.errors(include_url=False, include_input=False, include_context=False)[:20]
    ]


def _plain(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "this setting is not known here"
    if kind.startswith("union_tag"):
        return "this form is not known here"  # pydantic's text repeats the input
    return message.removeprefix("Value error, ")[:200]


def at(place: tuple[str, ...]) -> str:
    """``settings.tables.0.name``; only names and indexes, so that no input is echoed."""
    shown = [each for each in place if each.isdigit() or each.isidentifier()]
    return ".".join(["settings", *shown])[:200]
