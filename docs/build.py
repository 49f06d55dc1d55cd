"""Writes ``docs/reference`` from the code: ``python -m docs.build``.

With ``--check`` it only says which pages are stale. Nothing there is written by hand but the
introductions; ``tests/docs/test_reference.py`` fails when a page is stale.
"""

from __future__ import annotations

import datetime as dt
import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer.main
from fastapi import FastAPI
from fastapi.routing import APIRoute
from limits import RateLimitItem
from pydantic.fields import FieldInfo

import app.cli
from app.consent import links
from app.core import outbound
from app.core.errors import Problem
from app.core.settings import Settings
from app.delivery import callbacks
from app.destinations.catalogue import Catalogue
from app.identity.schemas import Identifiers
from app.main import create_app
from app.security import api_keys
from app.security.limits import RateLimits
from app.sites import regimes
from app.subject_requests import decide, people, resolve, settle
from app.subject_requests import pages as privacy_pages
from app.subject_requests import routes as request_routes
from app.suppression.routes import CheckIn
from connectors import archive

REFERENCE = Path(__file__).parent / "reference"
GENERATED = "<!-- Written by `python -m docs.build` from the code. Do not edit. -->"

_BUDGETS = {
    "api": "API calls of one key",
    "beacon": "reports of trackers without a rule, and of banners shown, from one address",
    "callback": "callbacks of destinations from one address",
    "consent": "consent posts from one address, with what is remembered of them, and links by host "
    "token",
    "form": "request forms from one address",
    "link": "openings and uses of confirmation links from one address",
    "login": "sign-in attempts from one address, and for one account",
    "mail_hour": "confirmation mails to one mailbox",
    "mail_day": "confirmation mails to one mailbox",
    "mail_total": "confirmation mails to anybody",
}
_TAGS = {
    "public": "No key. Browsers may call banner and consent routes from a site's listed origins.",
    "requests": "Data subject requests.",
    "deliveries": "Deliveries and their queues.",
    "destinations": "Connectors and destinations.",
    "sites": "Sites and their banners.",
    "consent": "Consent records and visitors.",
    "suppressions": "Who must not be processed again.",
    "receipts": "Receipts and the keys that sign them. Public.",
    "keys": "API keys.",
    "operations": "Health, metrics and alerts.",
}


def pages() -> dict[str, str]:
    """File name -> text of every generated page."""
    application = create_app(Settings())
    return {
        "settings.md": settings_page(),
        "cli.md": cli_page(),
        "http-api.md": api_page(application),
        "limits.md": limits_page(),
        "connectors.md": connectors_page(),
        "laws.md": laws_page(),
        "problems.md": problems_page(),
    }


def _page(title: str, introduction: str, *parts: str) -> str:
    paragraphs = [" ".join(each.split()) for each in introduction.strip().split("\n\n")]
    return "\n\n".join([GENERATED, f"# {title}", *paragraphs, *filter(None, parts)]) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(each) for each in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") or " "


def _code(text: object) -> str:
    return f"`{text}`"


def _flat(text: str | None) -> str:
    """A docstring as Markdown: one paragraph, single backquotes."""
    return " ".join((text or "").replace("``", "`").split())


# Settings


def settings_page() -> str:
    rows = [
        (_code(f"QUITTANCE_{name.upper()}"), _kind(field), _default(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return _page(
        "Settings",
        """
        Quittance reads all its settings once, at start, from the environment. Lists are
        separated by commas or spaces. `quittance doctor` checks them against each other.
        """,
        _table(("variable", "takes", "default", "meaning"), rows),
    )


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == "" or value == ():
        return "empty"
    if isinstance(value, tuple):
        return _code(",".join(map(str, value)))
    return _code(str(value).lower() if isinstance(value, bool) else value)


def _kind(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in {Union, UnionType}:
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return {int: "numbers", Path: "paths", str: "texts"}.get(item, "networks")
    words: dict[Any, str] = {int: "number", bool: "true or false", Path: "path"}
    return words.get(kind, "text")


# CLI


def cli_page() -> str:
    root = typer.main.get_command(app.cli.app)
    return _page(
        "Command line",
        """
        Installed as `quittance`; from a checkout, `.venv/bin/quittance`. It reads the same
        [settings](settings.md) as the service and may run beside it. `--help` works everywhere;
        an expected error is one sentence on standard error and exit code 1.
        """,
        *(_command(name, command) for name, command in _commands(root, "quittance")),
    )


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield name, command
        return
    for child_name, child in children.items():
        yield from _commands(child, f"{name} {child_name}")


def _command(name: str, command: Any) -> str:
    shown = [each for each in command.params if each.name != "help"]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    options = [each for each in shown if each.param_type_name == "option"]
    usage = " ".join(
        [
            name,
            *("[OPTIONS]" for _ in options[:1]),
            *((each.name or "").upper() for each in arguments),
        ]
    )
    rows = [
        (_code((each.name or "").upper()), getattr(each, "help", None) or "") for each in arguments
    ]
    rows += [(_option(each), _option_help(each)) for each in options]
    return "\n\n".join(
        filter(
            None,
            [
                f"## {_code(name)}",
                _flat(command.help),
                f"```text\n{usage}\n```",
                _table(("argument or option", "meaning"), rows) if rows else "",
            ],
        )
    )


def _option(option: Any) -> str:
    name = max(option.opts, key=len)
    return _code(name if option.is_flag else f"{name} {name.strip('-').upper()}")


def _option_help(option: Any) -> str:
    notes = [
        each
        for each in (
            "required" if option.required else "",
            "may be repeated" if option.multiple else "",
        )
        if each
    ]
    if isinstance(option.default, str) and option.default:
        notes.append(f"default `{option.default}`")
    text = option.help or ""
    notes = [each for each in notes if each not in text]
    return f"{text} ({'; '.join(notes)})" if notes else text


# HTTP API


def api_page(application: FastAPI) -> str:
    schema = application.openapi()
    scopes = {
        (method, route.path): scope_of(route)
        for route in routes_of(application)
        for method in route.methods or ()
    }
    by_tag: dict[str, list[str]] = {}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            tag = operation["tags"][0]
            scope = scopes[method.upper(), path]
            by_tag.setdefault(tag, []).append(
                _operation(schema, method.upper(), path, operation, scope)
            )
    parts = [
        "\n\n".join([f"## {tag.capitalize()}", introduction, *by_tag.pop(tag)])
        for tag, introduction in _TAGS.items()
    ]
    if by_tag:
        raise SystemExit(f"docs/build.py: say what the tags {sorted(by_tag)} are for")
    return _page(
        "HTTP API",
        """
        Send a key as `Authorization: Bearer qt_...`; a key's scopes say what it may do, and
        `all` is every scope. Bodies are JSON with `Content-Type: application/json`; members
        that are not listed are refused. Errors are `application/problem+json` with the types of
        [problems](problems.md). Lists answer `{"items": [...], "next_cursor": ...}`; give the
        cursor back as `?cursor=`. Times are RFC 3339 in UTC.

        The running service gives the same as OpenAPI at `/openapi.json`: open while it is bound to
        loopback, elsewhere with a key that holds `ops:read`.
        """,
        "Scopes: " + ", ".join(map(_code, sorted(api_keys.SCOPES))) + ".",
        *parts,
    )


def routes_of(application: FastAPI) -> Iterator[APIRoute]:
    """Every route of the application, also of the routers it includes."""
    todo: list[Any] = list(application.routes)
    while todo:
        route = todo.pop(0)
        if isinstance(route, APIRoute):
            yield route
        elif inner := getattr(route, "original_router", None):
            todo = [*inner.routes, *todo]


def scope_of(route: APIRoute) -> str | None:
    """The scope that ``needs(...)`` asks for on a route, itself or within what it depends on; None
    where no key is needed.
    """
    todo, found = [route.dependant], set()
    while todo:
        dependant = todo.pop()
        todo += dependant.dependencies
        scope = getattr(dependant.call, "scope", None)
        found |= {scope} if isinstance(scope, str) else set()
    assert len(found) <= 1, route.path  # noqa: S101 (one route, one scope)
    return found.pop() if found else None


def _operation(
    schema: Mapping[str, Any],
    method: str,
    path: str,
    operation: Mapping[str, Any],
    scope: str | None,
) -> str:
    shown = [_flat(operation.get("description")), f"Needs {_code(scope)}." if scope else ""]
    parts = [f"### {_code(f'{method} {path}')}", " ".join(filter(None, shown))]
    query = [each for each in operation.get("parameters", []) if each["in"] == "query"]
    if query:
        takes = [_type(schema, each["schema"]).removesuffix(" or null") for each in query]
        names = [_code(each["name"]) for each in query]
        parts.append(_table(("query", "takes"), zip(names, takes, strict=True)))
    body = operation.get("requestBody", {}).get("content", {})
    for content_type, content in body.items():
        model = _resolved(schema, content["schema"])
        required = set(model.get("required", []))
        members = [
            (_code(name), "yes" if name in required else "", _type(schema, member))
            for name, member in model.get("properties", {}).items()
        ]
        if content_type == "application/json" and members:
            parts.append(_table(("body", "required", "takes"), members))
    success = [status for status in operation["responses"] if status.startswith(("2", "3"))]
    parts.append("Answers " + ", ".join(_code(each) for each in success) + ".")
    return "\n\n".join(filter(None, parts))


def _resolved(schema: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    if reference := part.get("$ref"):
        found: Mapping[str, Any] = schema["components"]["schemas"][reference.rpartition("/")[2]]
        return found
    return part


def _type(schema: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    part = _resolved(schema, part)
    if options := part.get("anyOf"):
        words = [_type(schema, each) for each in options if each.get("type") != "null"]
        return " or ".join(words) + (" or null" if len(words) < len(options) else "")
    if "enum" in part:
        return " ".join(_code(each) for each in part["enum"])
    if "const" in part:
        return _code(part["const"])
    kind = part.get("type")
    if kind == "array":
        return (
            f"list of {_type(schema, part.get('items', {}))}{_bounds(part, 'minItems', 'maxItems')}"
        )
    if kind == "object":
        members = part.get("properties")
        return "{" + ", ".join(members) + "}" if members else "object"
    if kind == "string":
        form = f" ({part['format']})" if part.get("format", "password") != "password" else ""
        return f"text{form}{_bounds(part, 'minLength', 'maxLength')}"
    if kind in {"integer", "number"}:
        return f"number{_bounds(part, 'minimum', 'maximum')}"
    return {"boolean": "true or false"}.get(str(kind), "any JSON")


def _bounds(part: Mapping[str, Any], low: str, high: str) -> str:
    least, most = part.get(low), part.get(high)
    if most is None:
        return f", at least {least}" if least else ""
    return f", {least or 0} to {most}"


# Limits


def limits_page() -> str:
    rates = [
        (_code(name), _BUDGETS[name], str(item.amount), _window(item), _setting_of(name) or "fixed")
        for name, item in RateLimits(Settings()).budgets.items()
    ]
    return _page(
        "Limits",
        """
        What is refused with 429 says in `Retry-After` when to come back, and names the budget
        in `RateLimit-Policy`. Budgets are counted in Redis when the broker is Redis, else in
        each process. Of IPv6, a network of 64 bits counts as one address.
        """,
        "## Rates",
        _table(("budget", "counts", "at most", "in", "setting"), rates),
        "## Sizes and times",
        _table(("what", "limit"), _sizes()),
    )


def _window(item: RateLimitItem) -> str:
    return {60: "a minute", 3600: "an hour", 86400: "a day"}[item.get_expiry()]


def _setting_of(budget: str) -> str | None:
    """The setting that moves a budget, found by moving each."""
    usual = RateLimits(Settings()).budgets[budget].amount
    for name, field in Settings.model_fields.items():
        if field.annotation is int and name.endswith(("_minute", "_hour", "_day")):
            moved = Settings(**{name: field.default + 1})
            if RateLimits(moved).budgets[budget].amount != usual:
                return _code(f"QUITTANCE_{name.upper()}")
    return None


def _sizes() -> list[tuple[str, str]]:
    settings = Settings()
    identifiers = next(
        each.max_length
        for each in get_args(Identifiers)
        if isinstance(each, FieldInfo)
        for each in each.metadata
        if hasattr(each, "max_length")
    )
    checked = next(
        each.max_length
        for each in CheckIn.model_fields["identifiers"].metadata
        if hasattr(each, "max_length")
    )
    return [
        ("body of an API call (`QUITTANCE_BODY_LIMIT`)", _bytes(settings.body_limit)),
        ("body of bulk intake, answers of operators", _bytes(16 * settings.body_limit)),
        ("body of a destination's callback", _bytes(callbacks.MAX_BODY)),
        ("people in one bulk intake", str(request_routes.MAX_BULK)),
        ("identifiers of one request, as given", str(identifiers)),
        (
            "identifiers of a kind that resolving may add; more waits for approval",
            str(resolve.MAX_PER_KIND),
        ),
        ("visitors of a site that are linked to one `user_id`", str(links.MAX_VISITORS)),
        ("identifiers in one suppression check", str(checked)),
        ("file in an operator's answer", _bytes(decide.MAX_ANSWER)),
        ("note in the request form", f"{privacy_pages.MAX_NOTE} characters"),
        (
            "a request form sent sooner after it was opened is shown again, to be sent once more",
            _span(privacy_pages.FORM_MIN_AGE),
        ),
        ("life of a request form once opened", _span(privacy_pages.FORM_LIFETIME)),
        ("life of a confirmation link", _span(people.LINK_LIFETIME)),
        ("cooling-off of a confirmed erasure by form", _span(people.COOLING_OFF)),
        ("a final receipt counts as delivered at the latest after", _span(settle.DEEMED_DELIVERED)),
        ("answer read from a destination over HTTP", _bytes(outbound.ANSWER_LIMIT)),
        ("line in an archive", _bytes(archive.LINE_LIMIT)),
    ]


def _bytes(count: int) -> str:
    return f"{count >> 20} MiB" if count % (1 << 20) == 0 else f"{count} bytes"


def _span(span: dt.timedelta) -> str:
    hours, rest = divmod(int(span.total_seconds()), 3600)
    if rest:
        return f"{int(span.total_seconds()) // 60} minutes"
    return f"{hours // 24} days" if hours % 24 == 0 and hours > 24 else f"{hours} hours"


# Connectors


def connectors_page() -> str:
    catalogue = Catalogue()
    described = [
        each
        for each in catalogue.describe()
        if catalogue.find(each["name"]).__module__.startswith("connectors.")
    ]
    return _page(
        "Connectors",
        """
        What a destination can be. How each one works, and what it cannot do, is in
        [connectors/README.md](../../connectors/README.md). `GET /v1/connectors` answers the
        same with the full JSON schema of the settings, own connectors included.
        """,
        *(_connector(each, catalogue.find(each["name"])) for each in described),
    )


def _connector(described: Mapping[str, Any], connector: Any) -> str:
    facts = [
        ("operations", ", ".join(map(_code, described["operations"]))),
        ("identifiers", ", ".join(map(_code, described["accepts"])) or "any kind"),
        (
            "of one person it uses",
            "all of them" if connector.accepts_all else "those of the first kind it takes",
        ),
        ("people in one call", str(connector.batch)),
        ("runs in", f"a {connector.runs_in}" if connector.runs_in != "loop" else "the event loop"),
        (
            "deadline of a call",
            _span(connector.timeout)
            if connector.timeout >= dt.timedelta(hours=1)
            else f"{connector.timeout.total_seconds():g} seconds",
        ),
        ("cooling-off applies", "yes" if connector.is_irreversible else "no"),
    ]
    schema = described["settings_schema"]
    parts = [f"## {_code(described['name'])}: {described['title']}", _table(("", ""), facts)]
    parts.append(_members(schema, schema, described["secrets"]))
    for name, definition in schema.get("$defs", {}).items():
        parts += [f"### {_code(name)}", _members(schema, definition, ())]
    return "\n\n".join(parts)


def _members(schema: Mapping[str, Any], part: Mapping[str, Any], secrets: Sequence[str]) -> str:
    required = set(part.get("required", []))
    rows = [
        (
            _code(name),
            "yes" if name in required else _json_default(member),
            _schema_type(schema, member) + (", secret" if name in secrets else ""),
            _flat(member.get("description")),
        )
        for name, member in part.get("properties", {}).items()
    ]
    return _table(("setting", "required", "takes", "meaning"), rows)


def _json_default(member: Mapping[str, Any]) -> str:
    default = member.get("default")
    return (
        f"default {_code(str(default).lower() if isinstance(default, bool) else default)}"
        if default not in (None, {}, [], "")
        else ""
    )


def _schema_type(schema: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    if reference := part.get("$ref"):
        return _code(reference.rpartition("/")[2])
    if part.get("type") == "array":
        return f"list of {_schema_type(schema, part.get('items', {}))}"
    values = list(part.get("patternProperties", {}).values()) or [part.get("additionalProperties")]
    if part.get("type") == "object" and isinstance(values[0], Mapping):
        return f"names to {_schema_type(schema, values[0])}"
    return _type({"components": {"schemas": schema.get("$defs", {})}}, part)


# Laws


def laws_page() -> str:
    rows = []
    for regime in regimes.load().values():
        clocks = regime.clocks_of("erasure")
        rows.append(
            (
                _code(regime.id),
                regime.name,
                _period(clocks.answer),
                _period(clocks.extension) if clocks.extension else "none",
                _period(clocks.acknowledge) if clocks.acknowledge else "",
                "yes" if clocks.rolls else "no",
                regime.mode.replace("_", "-"),
                f"{regime.left_alone.days} days" if regime.left_alone else "",
                ", ".join(map(_code, sorted(regime.unverified_kinds))) or "none",
                ", ".join(map(_code, sorted(regime.timezones))),
            )
        )
    return _page(
        "Laws",
        f"""
        Each regime is a file in `app/sites/laws`, which names its sources. The clocks below are
        those of an erasure. This is a configuration of the service, not legal advice.

        Consent `notice`: people are told and nothing is asked before it runs. A site follows such
        a law only when its `regimes` name it.

        Time zones tighten: where the region's law does not ask first, a browser set to one of a
        law that does is asked under it.

        A new site starts with {", ".join(map(_code, regimes.offering_a_choice()))}; every other
        law is for its operator to add. Of the states of the United States only California's law
        is verified: the files of the others say what they rest on, have them checked first.
        Refusals under them name no attorney general, and appeals have no clock.
        """,
        _table(
            (
                "regime",
                "law",
                "answer within",
                "extension",
                "acknowledge within",
                "last day rolls over days off",
                "consent",
                "nobody who refused is asked again for",
                "takes effect unverified",
                "time zones",
            ),
            rows,
        ),
    )


def _period(period: regimes.Period) -> str:
    name = next(iter(period.model_fields_set))
    count, unit = getattr(period, name), name.replace("_", " ")
    return f"{count} {unit.removesuffix('s') if count == 1 else unit}"


# Problems


def problems_page() -> str:
    for module in pkgutil.walk_packages(app.__path__, "app."):  # a class not imported is not listed
        importlib.import_module(module.name)
    found = {
        (each.status, each.slug): each.title
        for each in _kinds(Problem)
        if each.__module__.startswith("app.")
    }
    rows = [
        (str(status), _code(f"urn:quittance:problem:{slug}"), title)
        for (status, slug), title in sorted(found.items())
    ]
    return _page(
        "Problems",
        """
        Every error of the API is an RFC 9457 problem: `type`, `title`, `status`, often `detail`
        with what to do next, and `errors` with places where a body was wrong. None repeats what
        was sent.
        """,
        _table(("status", "type", "title"), rows),
    )


def _kinds(base: type[Problem]) -> Iterator[type[Problem]]:
    yield base
    for each in base.__subclasses__():
        yield from _kinds(each)


def stale() -> list[str]:
    """Names of pages that differ from the code, or that nothing writes any more."""
    wanted = pages()
    present = {each.name: each.read_text() for each in REFERENCE.glob("*.md")}
    return sorted(
        name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name)
    )


def main() -> None:
    names = stale()
    if "--check" in sys.argv[1:]:
        sys.exit(f"stale: {', '.join(names)}; run `python -m docs.build`" if names else 0)
    wanted = pages()
    for name in names:
        if name in wanted:
            (REFERENCE / name).write_text(wanted[name])
        else:
            (REFERENCE / name).unlink()
    sys.stdout.write(f"docs/reference: {', '.join(names) or 'nothing to do'}\n")


if __name__ == "__main__":
    main()
