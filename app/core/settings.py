"""All settings, read once from the environment (``QUITTANCE_...``) and passed in, never imported
deep down.
"""

from __future__ import annotations

import datetime as dt
import difflib
import logging
from collections.abc import Iterable
from email.utils import getaddresses
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.storage import storage_problem

_PREFIX = "QUITTANCE_"
_OTHERS = frozenset({"FAILPOINT", "KEY", "URL"})
"""Not settings, but names of ours: see ``app.core.failpoints``, and the examples in the docs."""
_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "sqlite": "sqlite+aiosqlite",
}
Networks = tuple[IPv4Network | IPv6Network, ...]


def _split(value: Any) -> Any:
    """Comma- or space-separated text as a list."""
    return (
        [each for each in value.replace(",", " ").split() if each]
        if isinstance(value, str)
        else value
    )


class WrongSettings(Exception):
    """``problems``: a sentence for each, with the name of the setting and without its value."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(" ".join(self.problems))


class Settings(BaseSettings):
    """Every field here is a documented setting; empty URLs mean the embedded form in the data
    directory.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    data_dir: Path = Field(
        Path("var/data"),
        description="Directory of the embedded databases, keys, mail and shared files.",
    )
    database_url: str = Field(
        "",
        description=(
            "Main database, `postgresql://...` or `sqlite:///...`. Empty: "
            "`quittance.sqlite` in the data directory."
        ),
    )
    keystore_url: str = Field(
        "",
        description=(
            "Key store database; must be another database than the main one, backed up "
            "apart. Empty: `keys.sqlite` in the data directory; required when "
            "QUITTANCE_DATABASE_URL is set."
        ),
    )
    broker_url: str = Field(
        "memory://",
        description=(
            "Celery broker, `redis://...` or `amqp://...`. `memory://`: worker in the same process."
        ),
    )
    base_url: str = Field(
        "", description="Public address, used in links and receipts. Empty: http://HOST:PORT."
    )
    host: str = Field(
        "127.0.0.1",
        description="Address to bind. API docs, metrics and /dev/mail are open only on loopback.",
    )
    port: int = Field(8321, ge=0, le=65535, description="Port to bind; 0 picks a free one.")
    smtp_url: str = Field(
        "",
        description=(
            "`smtp://user:password@host:587` (STARTTLS) or `smtps://...`. Empty: mail is "
            "written to the data directory and shown at /dev/mail."
        ),
    )
    mail_from: str = Field("Quittance <privacy@localhost>", description="Sender of all mail.")
    master_key_file: Path | None = Field(
        None,
        description=(
            "File with the master key and peppers. Empty: made on first start in the data "
            "directory, mode 0600."
        ),
    )
    region_header: str = Field(
        "",
        pattern=r"^([A-Za-z0-9-]+(\s*,\s*[A-Za-z0-9-]+)?)?$",
        description=(
            "Request header in which a trusted proxy names the visitor's region (ISO 3166), or two "
            "separated by a comma: that of the country, that of its subdivision."
        ),
    )
    region_resolver: str = Field(
        "",
        pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*)?$",
        description=(
            "`module:function` of your own that names the region where no header does: called with "
            "the request's headers and the client's address, it returns an ISO 3166 code or None."
        ),
    )
    geoip_file: Path | None = Field(
        None,
        description=(
            "GeoIP database of your own (MaxMind's format, .mmdb), asked by the client's address "
            "where neither header nor resolver names a region."
        ),
    )
    trusted_proxies: Annotated[Networks, NoDecode] = Field(
        (), description="Networks whose X-Forwarded-For and region header are believed."
    )
    allowed_private_networks: Annotated[Networks, NoDecode] = Field(
        (), description="Private networks that destinations may reach, any port inside them."
    )
    allowed_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        (443,), description="Ports that destinations on public addresses may use."
    )
    allowed_paths: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description=(
            "Directories that file destinations may use. Empty: `shared/` in the data directory."
        ),
    )
    archive_url: str = Field(
        "",
        description=(
            "Where deliveries that ran out of time are written, encrypted: a directory, or an "
            "fsspec URL such as `s3://bucket/archive`, with its options in fsspec's environment. "
            "Empty: `archive/` in the data directory."
        ),
    )
    connectors_dir: Path | None = Field(
        None, description="Directory with own connectors, one Python file each."
    )
    laws_dir: Path | None = Field(
        None,
        description=(
            "Directory with law files of your own, beside those in `app/sites/laws`; one with the "
            "same id takes the place of ours."
        ),
    )
    identifier_max_days: int = Field(
        180,
        ge=1,
        le=3650,
        description=(
            "Hard cap after which a request's identifiers are forgotten, whatever is still open."
        ),
    )
    request_record_days: int = Field(
        730,
        ge=30,
        description=(
            "How long request records, receipts and audit entries stay (11 CCR 7101: 24 months)."
        ),
    )
    consent_record_days: int = Field(
        1120,
        ge=390,
        description=(
            "How long consent records and their receipts stay, and never less than the choice "
            "holds: by default the longest validity there is (390 days) and two years in which the "
            "proof may be asked for."
        ),
    )
    history_days: int | None = Field(
        None,
        ge=30,
        description=(
            "How long the history of deliveries and calls stays, at most and by default as long "
            "as request records, and never less than until the person is forgotten. PostgreSQL "
            "removes whole months."
        ),
    )
    forget_grace_days: int = Field(
        30,
        ge=0,
        le=365,
        description="Days between a delivered final receipt and forgetting the person.",
    )
    suppression_months: int = Field(
        36, ge=1, le=240, description="How long a suppression entry lasts unless withdrawn."
    )
    mail_per_hour: int = Field(3, ge=1, description="Confirmation mails to one mailbox in an hour.")
    mail_per_day: int = Field(10, ge=1, description="Confirmation mails to one mailbox in a day.")
    mail_total_per_hour: int = Field(
        500, ge=1, description="Confirmation mails to anybody in an hour."
    )
    form_per_hour: int = Field(30, ge=1, description="Request forms from one address in an hour.")
    consent_per_minute: int = Field(
        300,
        ge=1,
        description=(
            "Consent posts, calls to remember one, and links by host token, from one address in a "
            "minute."
        ),
    )
    beacon_per_minute: int = Field(
        300,
        ge=1,
        description=(
            "Reports of trackers without a rule, and of banners shown, from one address in a "
            "minute."
        ),
    )
    callback_per_minute: int = Field(
        1200, ge=1, description="Callbacks of destinations from one address in a minute."
    )
    api_per_minute: int = Field(60_000, ge=1, description="API calls of one key in a minute.")
    login_per_minute: int = Field(
        10, ge=1, description="Sign-in attempts from one address, or for one account, in a minute."
    )
    bulk_approval_above: int = Field(
        0,
        ge=0,
        description=(
            "A bulk erasure of more people than this waits for the approval of somebody else "
            "than who asked. 0: never."
        ),
    )
    body_limit: int = Field(
        1 << 20,
        ge=1 << 14,
        description="Largest request body in bytes (bulk intake and answers: 16 times as much).",
    )
    worker_in_flight: int = Field(
        256, ge=1, le=4096, description="Calls that one worker process has under way at once."
    )
    host_in_flight: int = Field(
        128,
        ge=1,
        le=4096,
        description=(
            "Calls under way to one host at once, over all workspaces and (roughly) all workers."
        ),
    )
    lease_seconds: int = Field(
        60, ge=10, description="Lease of a virtual queue; renewed at a third of it."
    )
    stall_seconds: int = Field(
        60,
        ge=10,
        description=(
            "/readyz fails when work has been due for so long and no worker took any of it."
        ),
    )
    stuck_after_minutes: int = Field(
        60,
        ge=1,
        description="How long a queue's deliveries wait or fail before the alert `queue_stuck`.",
    )
    alert_mail: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Mail addresses that are told of alerts. Empty: nobody is."
    )
    alert_webhook_url: str = Field(
        "",
        description=(
            "Address that alerts are posted to; the rules for destinations' addresses hold for it. "
            "Empty: none."
        ),
    )
    alert_webhook_secret: str = Field(
        "",
        pattern=(
            r"^(whsec_([A-Za-z0-9+/]{4}){7,21}"
            r"([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==))?$"
        ),
        repr=False,
        description=(
            "Signs those posts (Standard Webhooks): `whsec_` and 24 to 64 bytes in Base64. Empty: "
            "they are not signed."
        ),
    )
    worker_metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description=(
            "Port on QUITTANCE_HOST where `quittance worker` shows /healthz, /readyz and, to keys "
            "with ops:read (on loopback to everybody), /metrics. 0: none."
        ),
    )
    security_contact: str = Field(
        "",
        description=(
            "Where to report security problems, `mailto:...` or `https://...`; shown in "
            "/.well-known/security.txt. Empty: there is no such file."
        ),
    )
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_json: bool = Field(True, description="JSON lines; false: readable lines for a terminal.")

    @field_validator(
        "trusted_proxies",
        "allowed_private_networks",
        "allowed_ports",
        "allowed_paths",
        "alert_mail",
        mode="before",
    )
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return _split(value)

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value and not _has_host(value, "http", "https"):
            raise ValueError("write it as https://privacy.example.com")
        return value.rstrip("/")

    @field_validator("database_url", "keystore_url")
    @classmethod
    def _is_database(cls, value: str) -> str:
        scheme, separator, _ = value.partition("://")
        if value and not (separator and scheme in {*_DRIVERS, *_DRIVERS.values()}):
            raise ValueError(
                "write it as postgresql://user:password@host/name or sqlite:////path/to/file"
            )
        return value

    @field_validator("broker_url")
    @classmethod
    def _is_broker(cls, value: str) -> str:
        if "://" not in value:
            raise ValueError("write it as redis://host:6379/0 or amqp://user:password@host//")
        return value

    @field_validator("smtp_url")
    @classmethod
    def _is_mail_server(cls, value: str) -> str:
        if value and not _has_host(value, "smtp", "smtps"):
            raise ValueError("write it as smtp://user:password@host:587 or smtps://host")
        return value

    @field_validator("mail_from")
    @classmethod
    def _is_sender(cls, value: str) -> str:
        if not _is_mailbox(value):
            raise ValueError("write it as Name <privacy@example.com>")
        return value

    @field_validator("alert_mail")
    @classmethod
    def _are_mailboxes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_is_mailbox(each) for each in value):
            raise ValueError("write addresses such as ann@example.com, separated by commas")
        return value

    @field_validator("log_level")
    @classmethod
    def _is_level(cls, value: str) -> str:
        if value.upper() not in logging.getLevelNamesMapping():
            raise ValueError("write DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @cached_property
    def region_headers(self) -> tuple[str, ...]:
        """None, one (whole code), or two (country, subdivision)."""
        return tuple(self.region_header.replace(",", " ").split())

    @cached_property
    def is_embedded(self) -> bool:
        """One process: SQLite and the in-memory broker."""
        return self.broker_url.startswith("memory:")

    @cached_property
    def main_url(self) -> str:
        return driver_url(
            self.database_url or f"sqlite:///{self.data_dir.absolute() / 'quittance.sqlite'}"
        )

    @cached_property
    def keys_url(self) -> str:
        return driver_url(
            self.keystore_url or f"sqlite:///{self.data_dir.absolute() / 'keys.sqlite'}"
        )

    @cached_property
    def public_url(self) -> str:
        """Where people reach this instance, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.base_url or f"http://{host}:{self.port}"

    @cached_property
    def key_file(self) -> Path:
        return self.master_key_file or self.data_dir / "keys" / "master.json"

    @cached_property
    def archive_place(self) -> str:
        return self.archive_url or str(self.data_dir.absolute() / "archive")

    @cached_property
    def shared_paths(self) -> tuple[Path, ...]:
        return self.allowed_paths or (self.data_dir.absolute() / "shared",)

    @cached_property
    def identifier_cap(self) -> dt.timedelta:
        """The hard cap on keeping identifiers."""
        return dt.timedelta(days=self.identifier_max_days)

    @cached_property
    def history_kept(self) -> dt.timedelta:
        return dt.timedelta(days=self.history_days or self.request_record_days)

    @cached_property
    def is_loopback(self) -> bool:
        return self.host in {"127.0.0.1", "::1", "localhost"}

    def problems(self) -> list[str]:
        """What is wrong between settings, each with what to do; empty when all is well."""
        found = []
        if self.database_url and not self.keystore_url:
            found.append(
                "QUITTANCE_KEYSTORE_URL is missing: the key store must be a database "
                "of its own, backed up apart from QUITTANCE_DATABASE_URL."
            )
        elif self.database_url and self.main_url == self.keys_url:
            found.append(
                "QUITTANCE_KEYSTORE_URL names the main database: a dump with its keys "
                "forgets nothing. Give it another database."
            )
        if not self.is_embedded and self.main_url.startswith("sqlite"):
            found.append(
                "QUITTANCE_BROKER_URL is set but the database is SQLite: the "
                "distributed form needs PostgreSQL (QUITTANCE_DATABASE_URL)."
            )
        if self.history_kept > dt.timedelta(days=self.request_record_days):
            found.append(
                "QUITTANCE_HISTORY_DAYS is more than QUITTANCE_REQUEST_RECORD_DAYS: the history of "
                "a request would outlive its record. Lower the one or raise the other."
            )
        if self.consent_record_days < self.suppression_months * 30:
            found.append(
                "QUITTANCE_CONSENT_RECORD_DAYS is less than QUITTANCE_SUPPRESSION_MONTHS: a new "
                "permission could not lift what a forgotten refusal has suppressed. Raise the one "
                "or lower the other."
            )
        if unusable := storage_problem(self.archive_place):
            found.append(f"QUITTANCE_ARCHIVE_URL cannot be used: {unusable}.")
        return found


def read(**changes: Any) -> Settings:
    """Settings from the environment, or ``WrongSettings``. ``changes``: from elsewhere."""
    try:
        return Settings(**changes)
    except ValidationError as error:
        # Of a value that could have been one of two things, one complaint is enough.
        found = {each["loc"][:1]: _complaint(each) for each in reversed(error.errors())}
        raise WrongSettings(reversed(found.values())) from None


def _complaint(error: Any) -> str:
    name = str(error["loc"][0])
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "string_pattern_mismatch":
        text = f"it is {Settings.model_fields[name].description}"
    if error["type"] in {"ip_v4_network", "ip_v6_network"}:
        text = "write networks such as 10.0.0.0/8 or fd00::/8, separated by commas"
    return f"{_PREFIX}{name.upper()} is not valid: {text.rstrip('.')}."


def unknown(names: Iterable[str]) -> list[str]:
    """A sentence for each of these variables that looks like a setting and is none."""
    known = {name.upper() for name in Settings.model_fields}
    found = []
    for name in sorted(names):
        short = name.upper().removeprefix(_PREFIX)
        if short == name.upper() or short in known | _OTHERS:
            continue
        near = difflib.get_close_matches(short, known, 1)
        meant = f": did you mean {_PREFIX}{near[0]}?" if near else "."
        found.append(f"{name} is no setting{meant}")
    return found


def _has_host(url: str, *schemes: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        return False


def _is_mailbox(text: str) -> bool:
    ((_, address),) = getaddresses([text])[:1] or [("", "")]
    name, _, host = address.rpartition("@")
    return bool(name and host) and address.isprintable() and " " not in address


def driver_url(url: str) -> str:
    """The SQLAlchemy URL with the asynchronous driver that the service uses."""
    scheme, separator, rest = url.partition("://")
    return f"{_DRIVERS.get(scheme, scheme)}{separator}{rest}"
