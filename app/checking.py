"""Checking things from the command line: a receipt offline, and the health of an installation."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from sqlmodel import col

from app.core import migrate, outbound
from app.core.clock import is_zone
from app.core.errors import Invalid
from app.core.settings import Settings, WrongSettings, unknown
from app.crypto import keyring, keystore
from app.crypto.models import DataKey, SigningKey
from app.destinations.models import Destination
from app.identity.normalise import normalise
from app.receipts.verify import NotValid, Unreadable, verify
from app.security.models import Workspace
from app.sites import geoip, resolver
from app.tables import KEYS, MAIN
from connectors.contract import AddressRefused

VALID, NOT_VALID, UNREADABLE = 0, 1, 2


def check(
    file: Path,
    jwks: str | None,
    opening: str | None,
    pair: tuple[str, str] | None,
    settings: Callable[[], Settings],
) -> tuple[int, dict[str, Any]]:
    """Exit code and answer for ``quittance receipt verify``."""
    if opening is not None and pair is None:
        return UNREADABLE, {
            "valid": False,
            "unreadable": True,
            "problem": "Give --opening and --identifier together.",
        }
    try:
        identifier = normalise(*pair) if pair else None
    except Invalid as error:
        return UNREADABLE, {"valid": False, "unreadable": True, "problem": str(error)}
    try:
        token = sys.stdin.read() if str(file) == "-" else file.read_text()
        checked = verify(token, _key_set(jwks, settings), opening, identifier)
    except (Unreadable, OSError, UnicodeDecodeError) as error:
        return UNREADABLE, {"valid": False, "unreadable": True, "problem": _why(error)}
    except NotValid as error:
        return NOT_VALID, {"valid": False, "problem": str(error)}
    if checked.is_theirs is False:
        problem = (
            "The receipt is genuine, but it does not speak of this identifier with this opening."
        )
        return NOT_VALID, {
            "valid": True,
            "is_theirs": False,
            "problem": problem,
            "receipt": checked.claims,
        }
    return VALID, {
        "valid": True,
        "is_theirs": checked.is_theirs,
        "kid": checked.kid,
        "receipt": checked.claims,
    }


def _why(error: Exception) -> str:
    return (
        str(error)
        if isinstance(error, Unreadable)
        else f"The file cannot be read ({type(error).__name__})."
    )


def _key_set(jwks: str | None, settings: Callable[[], Settings]) -> dict[str, Any]:
    try:
        if jwks is None:
            return _own_keys(settings())
        if jwks.startswith(("http://", "https://")):
            return dict(httpx.get(jwks, timeout=10).raise_for_status().json())
        return dict(json.loads(Path(jwks).read_text()))
    except WrongSettings as error:
        raise Unreadable(f"There is no key set: {error} Or name one with --jwks.") from None
    except (OSError, ValueError, httpx.HTTPError, sa.exc.SQLAlchemyError) as error:
        raise Unreadable(
            f"The key set cannot be read ({type(error).__name__}); name a file or URL with --jwks."
        ) from None


def _own_keys(settings: Settings) -> dict[str, Any]:
    with _engine(settings.main_url).connect() as connection:
        rows = connection.execute(sa.select(col(SigningKey.public_jwk), col(SigningKey.kid)))
        return {"keys": [jwk | {"kid": kid, "alg": "EdDSA", "use": "sig"} for jwk, kid in rows]}


def _engine(url: str) -> sa.Engine:
    return sa.create_engine(
        url.replace("+aiosqlite", ""), hide_parameters=True, poolclass=sa.NullPool
    )


def as_text(answer: dict[str, Any]) -> str:
    """The answer for a person."""
    if answer.get("problem"):
        verdict = "COULD NOT CHECK" if answer.get("unreadable") else "NOT VALID"
        return f"{verdict}: {answer['problem']}"
    receipt = answer["receipt"]
    lines = [
        f"VALID: signed by {receipt['iss']} (key {answer['kid']})",
        *(_consent_lines(receipt["record"]) if "record" in receipt else _request_lines(receipt)),
    ]
    if answer["is_theirs"]:
        lines.append("  It speaks of the identifier you named.")
    return "\n".join(lines)


def _request_lines(receipt: dict[str, Any]) -> list[str]:
    request = receipt["request"]
    lines = [
        f"  request   {request['id']}: {request['right']} under {request['regime']}, "
        f"received {request['received_at']}",
        f"  outcome   {receipt['outcome']}",
    ]
    lines += [
        f"  {each['kind']:<10}{each['state']} ({each['assurance']})"
        for each in receipt["destinations"]
    ]
    lines += [f"  stays     {each['what']}: {each['basis']}" for each in receipt["residuals"]]
    return lines


def _consent_lines(record: dict[str, Any]) -> list[str]:
    """A consent record by the names of ISO/IEC TS 27560."""
    processing, event, more = record["pii_processing"], record["event"], record["extension"]
    (controller,) = record["party_identification"]
    lines = [
        f"  consent   {record['record_id']}: {more['choice_source']} under "
        f"{processing['jurisdiction']}, decided {event['event_time']}, until "
        f"{event['validity_duration']}",
        f"  asked by  {controller['party_name']}",
        f"  words     {more['notice_version']} in {processing['language']}, SHA-256 "
        f"{more['version_hash']}",
    ]
    lines += [
        f"  {each['event_state']:<10}{each['purpose']} ({each['purpose_type']})"
        for each in processing["purposes"]
    ]
    if more["gpc"]:
        lines.append(
            "  signal    Global Privacy Control was on"
            + (" and decided" if more["gpc_applied"] else "")
        )
    return lines


def wrong_settings(problems: Iterable[str]) -> list[dict[str, Any]]:
    return [_finding("settings", False, each) for each in problems]


def doctor(settings: Settings, names: Iterable[str] = ()) -> list[dict[str, Any]]:
    """One finding per thing that must be right; nothing is changed. ``names``: the variables that
    the settings were read from.
    """
    findings = wrong_settings([*settings.problems(), *unknown(names), *_useless(settings)])
    findings = findings or [{"name": "settings", "ok": True, "detail": "consistent"}]
    ring: keyring.KeyRing | None = None
    try:
        ring = keyring.load(settings.key_file)
        mode = settings.key_file.stat().st_mode & 0o077
        findings.append(
            _finding(
                "key file",
                mode == 0,
                "readable by its owner only"
                if mode == 0
                else f"others may read it: chmod 600 {settings.key_file.name}",
            )
        )
    except keyring.KeyFileError as error:
        findings.append(_finding("key file", False, str(error)))
    for name, url, which, metadata in (
        ("database", settings.main_url, "main", MAIN),
        ("key store", settings.keys_url, "keystore", KEYS),
    ):
        try:
            drift = migrate.drift(url, which, metadata)  # type: ignore[arg-type]
            findings.append(
                _finding(
                    name,
                    not drift,
                    "reachable, schema up to date"
                    if not drift
                    else "schema differs: run `quittance migrate`",
                )
            )
        except sa.exc.SQLAlchemyError as error:
            findings.append(_finding(name, False, f"not reachable ({type(error).__name__})"))
    if all(each["ok"] for each in findings if each["name"] == "database"):
        findings.append(_workspaces(settings))
    if settings.geoip_file:
        findings.append(_geoip(settings.geoip_file))
    if settings.region_resolver:
        findings.append(_region_resolver(settings.region_resolver))
    if settings.alert_webhook_url:
        findings.append(_alert_webhook(settings))
    if ring is not None and all(each["ok"] for each in findings):
        findings.append(_master_keys(settings, ring))
    return findings


def _useless(settings: Settings) -> list[str]:
    """Settings with which the service starts, and that do nothing."""
    found = []
    if settings.connectors_dir and not settings.connectors_dir.is_dir():
        found.append("QUITTANCE_CONNECTORS_DIR is no directory: no own connector is there.")
    if not all(each.is_dir() for each in settings.allowed_paths):
        found.append("QUITTANCE_ALLOWED_PATHS names what is no directory.")
    contact = settings.security_contact
    if contact and not contact.startswith(("mailto:", "https://")):
        found.append("QUITTANCE_SECURITY_CONTACT is no address: write mailto:... or https://...")
    return found


def _workspaces(settings: Settings) -> dict[str, Any]:
    """A zone that is unknown here stops every request of its workspace."""
    with _engine(settings.main_url).connect() as connection:
        rows = connection.execute(sa.select(col(Workspace.id), col(Workspace.timezone))).all()
    wrong = [workspace_id for workspace_id, zone in rows if not is_zone(zone)]
    if not wrong:
        return _finding("workspaces", True, "their time zones are known")
    repair = " ".join(
        f"`quittance workspace update {each} --timezone Europe/Berlin`" for each in wrong
    )
    return _finding("workspaces", False, f"a time zone is unknown here; give another: {repair}")


def _geoip(path: Path) -> dict[str, Any]:
    database = geoip.GeoIp(path)
    database.refresh()
    problem = database.problem and f"{database.problem}: the region of visitors is unknown"
    return _finding("GeoIP file", not problem, problem or "a database in MaxMind's format")


def _region_resolver(name: str) -> dict[str, Any]:
    try:
        resolver.imported(name)
    except Exception as error:
        kind = type(error).__name__
        return _finding("region resolver", False, f"{name} cannot be imported ({kind})")
    return _finding("region resolver", True, f"{name} can be called")


def _alert_webhook(settings: Settings) -> dict[str, Any]:
    """Alerts go out by the rules for destinations; a refused address would only be in the log."""
    try:
        outbound.check_url(settings.alert_webhook_url, outbound.policy_of(settings))
    except AddressRefused as error:
        return _finding("alert webhook", False, str(error))
    return _finding("alert webhook", True, "an address that may be called")


def _master_keys(settings: Settings, ring: keyring.KeyRing) -> dict[str, Any]:
    """Rows sealed with a master key that the key file lacks, or that it has with other content."""
    missing: dict[str, int] = {}
    for url, column in (
        (settings.keys_url, DataKey.wrapped),
        (settings.main_url, Destination.secrets_sealed),
        (settings.main_url, SigningKey.private_sealed),
    ):
        with _engine(url).connect() as connection:
            for (value,) in connection.execute(sa.select(col(column))).yield_per(1000):
                key_id = keyring.master_id(value)
                if key_id not in ring.master_ids:
                    missing[key_id] = missing.get(key_id, 0) + 1
    if not missing and not _opens(settings, ring):
        detail = "the key file is another installation's: its keys open nothing here. Restore it."
        return _finding("master keys", False, detail)
    if not missing:
        return _finding("master keys", True, "all sealed values can be opened")
    listed = ", ".join(f"{key_id} ({count} rows)" for key_id, count in missing.items())
    return _finding(
        "master keys", False, f"missing from the key file: {listed}. Restore them before starting."
    )


def _opens(settings: Settings, ring: keyring.KeyRing) -> bool:
    """Whether the key file opens a sample of what was sealed: the newest data key."""
    with _engine(settings.keys_url).connect() as connection:
        sample = connection.execute(
            sa.select(col(DataKey.holder_id), col(DataKey.wrapped))
            .order_by(col(DataKey.created_at).desc())
            .limit(1)
        ).first()
    if sample is None:
        return True
    try:
        keystore.open_wrapped(ring, sample.holder_id, sample.wrapped)
    except keyring.Unsealable:
        return False
    return True


def _finding(name: str, ok: bool, detail: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail}
