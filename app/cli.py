"""The command line: starting the service, setting it up, asking for people, checking receipts."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from app.core.errors import Invalid, Problem
from app.core.logging import configure
from app.core.settings import Settings, WrongSettings, read, unknown
from app.crypto.keyring import KeyFileError, Unsealable
from app.sites import regimes

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Self-hosted privacy service.",
)

_REGIMES = ", ".join(regimes.load())
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]
Port = Annotated[int | None, typer.Option(help="Port to bind; 0 picks a free one.")]


def main() -> None:
    """Entry point: every expected error is one sentence on standard error and exit code 1."""
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415 (start-up time)

    from app.bootstrap import CannotStart  # noqa: PLC0415 (start-up time)

    try:
        app()
    except Unsealable:
        _end(
            "The key file does not open what this installation sealed: it belongs to another one. "
            "Restore the right one from its backup; `quittance doctor` says more."
        )
    except WrongSettings as error:
        _end(*error.problems)
    except Problem as error:
        _end(*_told(error))
    except (CannotStart, KeyFileError) as error:
        _end(str(error))
    except DBAPIError as error:
        if (text := _about_database(error)) is None:
            raise
        _end(text)


def _end(*lines: str) -> NoReturn:
    for line in lines:
        typer.echo(line.strip(), err=True)
    sys.exit(1)


def _told(problem: Problem) -> Iterator[str]:
    """The sentence, then what is listed beside it: ``url: Field required``; nothing twice."""
    listed = problem.errors or ()
    is_listed = any(each["problem"] == problem.detail for each in listed)
    yield f"{problem.title}. {'' if is_listed else problem.detail or ''}".rstrip()
    for each in listed:
        yield f"{each['at']}: {each['problem']}"


def _about_database(error: DBAPIError) -> str | None:
    """What an operator can do about it; None: it is a bug."""
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415 (start-up time)

    from app.core.db import is_away, lacks_tables  # noqa: PLC0415 (start-up time)

    if lacks_tables(error):
        return "The database has no tables, or old ones: run `quittance migrate`."
    if isinstance(error, OperationalError) and is_away(error):
        return (
            "The database does not answer: look at QUITTANCE_DATABASE_URL and "
            "QUITTANCE_KEYSTORE_URL; `quittance doctor` says which."
        )
    return None


def load_settings(**changes: Any) -> Settings:
    """Settings from the environment and the command line, or ``WrongSettings``."""
    settings = read(**{name: value for name, value in changes.items() if value is not None})
    if problems := settings.problems():
        raise WrongSettings(problems)
    configure(settings.log_level, json=settings.log_json)
    return settings


# Starting


@app.command()
def up(
    port: Port = None,
    no_demo: Annotated[
        bool, typer.Option("--no-demo", help="Start without the demo shop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start everything in one process: API, pages, worker, databases in the data directory."""
    from app import serving  # noqa: PLC0415 (start-up time)

    settings = load_settings(
        port=_free_port() if port == 0 else port,
        log_level=None if "QUITTANCE_LOG_LEVEL" in os.environ else "WARNING",
    )
    serving.up(settings, with_demo=not no_demo, as_json=as_json)


@app.command()
def serve(
    port: Port = None, host: Annotated[str | None, typer.Option(help="Address to bind.")] = None
) -> None:
    """Start the web process of the distributed form (run `quittance migrate` before)."""
    from app import serving  # noqa: PLC0415 (start-up time)

    serving.serve(load_settings(port=port, host=host))


@app.command()
def worker() -> None:
    """Start a background process of the distributed form."""
    from app.worker import run_worker  # noqa: PLC0415 (start-up time)

    run_worker(_distributed("worker"))


@app.command()
def scheduler() -> None:
    """Start the clock of the distributed form."""
    from app.scheduler import run_scheduler  # noqa: PLC0415 (start-up time)

    run_scheduler(_distributed("scheduler"))


@app.command()
def migrate() -> None:
    """Create or upgrade both databases; a fresh installation also gets its key file."""
    from app import bootstrap  # noqa: PLC0415 (start-up time)

    settings = load_settings()
    bootstrap.prepare(settings)
    if settings.key_file.exists():
        kept = f"The key file is {settings.key_file}: back it up, apart from the databases."
    else:
        kept = (
            f"The key file {settings.key_file} is not there yet: put it there before you start "
            "anything."
        )
    typer.echo(f"The databases are up to date. {kept}")


def _distributed(role: str) -> Settings:
    """Settings with which another process than ``up`` or ``serve`` has something to do."""
    settings = load_settings()
    if settings.is_embedded:
        _end(
            f"QUITTANCE_BROKER_URL is memory://, which ends at its own process: a {role} would "
            "hear of nothing. Start `quittance up` alone, or name a broker: redis://... or "
            "amqp://..."
        )
    return settings


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Setting up. These commands write to the databases directly and may run beside the service.

workspaces = typer.Typer(no_args_is_help=True, help="Workspaces: the controllers' tenants.")
sites = typer.Typer(no_args_is_help=True, help="Sites with a banner.")
destinations = typer.Typer(no_args_is_help=True, help="Destinations that hold people.")
keys = typer.Typer(no_args_is_help=True, help="API keys.")
admins = typer.Typer(no_args_is_help=True, help="People who sign in to the dashboard.")
requests = typer.Typer(no_args_is_help=True, help="Data subject requests.")
deliveries = typer.Typer(no_args_is_help=True, help="Deliveries that ran out of time.")
receipts = typer.Typer(no_args_is_help=True, help="Receipts.")
for name, group in (
    ("workspace", workspaces),
    ("site", sites),
    ("destination", destinations),
    ("key", keys),
    ("admin", admins),
    ("request", requests),
    ("delivery", deliveries),
    ("receipt", receipts),
):
    app.add_typer(group, name=name)

In = Annotated[
    str | None, typer.Option("--workspace", help="Workspace id; default: the first one.")
]


def _run(work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run ``work(administration)`` on a fresh event loop and give everything back."""
    from app.administration import Administration  # noqa: PLC0415 (start-up time)

    settings = load_settings(log_level=None if "QUITTANCE_LOG_LEVEL" in os.environ else "WARNING")

    async def run() -> Any:
        async with Administration(settings) as administration:
            return await work(administration)

    return asyncio.run(run())


def _show(answer: Any, as_json: bool) -> None:
    """One line of JSON, or aligned columns for a person."""
    if as_json:
        typer.echo(json.dumps(answer))
        return
    rows = answer if isinstance(answer, list) else [answer]
    if not rows:
        typer.echo("Nothing here yet.")
    for row in rows:
        typer.echo(
            "  ".join(
                f"{name}={value}" for name, value in row.items() if value not in (None, [], {})
            )
        )


@workspaces.command("create")
def create_workspace(
    name: Annotated[str, typer.Option(help="The controller's name, shown in receipts.")],
    timezone: Annotated[str, typer.Option(help="Zone in which deadlines are counted.")] = "UTC",
    as_json: AsJson = False,
) -> None:
    """Add a workspace."""
    _show(_run(lambda do: do.create_workspace(name, timezone)), as_json)


@workspaces.command("update")
def update_workspace(
    workspace_id: Annotated[str, typer.Argument(help="Its id; see `quittance workspace list`.")],
    name: Annotated[str | None, typer.Option(help="The controller's name.")] = None,
    timezone: Annotated[
        str | None,
        typer.Option(help="Zone in which deadlines are counted; those of open requests stay."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a workspace's name or time zone."""
    _show(_run(lambda do: do.update_workspace(workspace_id, name, timezone)), as_json)


@workspaces.command("list")
def list_workspaces(as_json: AsJson = False) -> None:
    """List workspaces."""
    _show(_run(lambda do: do.list_workspaces()), as_json)


@sites.command("create")
def create_site(
    name: Annotated[str, typer.Option(help="Name for operators.")],
    origin: Annotated[
        list[str],
        typer.Option(help="Allowed origin such as https://shop.example; may be repeated."),
    ],
    first_party: Annotated[
        str,
        typer.Option(
            help="Where a host of the site's own serves this service, for a cookie that lasts: "
            "https://privacy.shop.example or https://shop.example/consent."
        ),
    ] = "",
    controller_name: Annotated[
        str, typer.Option(help="Who asks, as visitors read it; default: the site's name.")
    ] = "",
    controller_contact: Annotated[
        str, typer.Option(help="How the controller is reached, such as an e-mail address.")
    ] = "",
    policy_url: Annotated[
        str,
        typer.Option(
            help="Privacy policy: https://shop.example/privacy, or a path of the site such as "
            "/privacy."
        ),
    ] = "",
    workspace: In = None,
    as_json: AsJson = False,
) -> None:
    """Add a site with a standard banner and publish it; prints the tag for its pages."""
    draft = {
        "controller": {"name": controller_name, "contact": controller_contact},
        "policy_url": policy_url,
        "first_party": first_party,
    }
    made = _run(lambda do: do.create_site(workspace, name, origin, draft))
    if unsaid := made["unsaid"]:
        listed = "".join(f"\n  {each}" for each in unsaid)
        typer.echo(f"Not said yet:{listed}\nFill it in on {made['page']}, and publish.", err=True)
    if as_json:
        _show(made, as_json)
        return
    tag, owner, _ = (made.pop(each) for each in ("tag", "workspace_name", "unsaid"))
    typer.echo(f"Added to the workspace {owner}.")
    if workspace is None:
        typer.echo(
            "It is the first one; give --workspace for another of `quittance workspace list`."
        )
    _show(made, as_json)
    typer.echo(f"Put this line before every other script of your pages:\n{tag}")


@sites.command("list")
def list_sites(workspace: In = None, as_json: AsJson = False) -> None:
    """List sites."""
    _show(_run(lambda do: do.list_sites(workspace)), as_json)


@sites.command("script")
def site_script(
    site_key: Annotated[str, typer.Argument(help="The site's public key.")],
    lang: Annotated[str, typer.Option(help="Language of the notice, such as de.")],
    region: Annotated[
        str, typer.Option(help="Visitors' region, such as DE or US-CA; empty: unknown.")
    ],
    output: Annotated[Path, typer.Option(help="File to write.")],
    as_json: AsJson = False,
) -> None:
    """Write the published banner's script to a file that the site hosts itself; prints its tag."""
    body, made = _run(lambda do: do.site_script(site_key, lang, region, output.name))
    try:
        output.write_bytes(body)
    except OSError as error:
        typer.echo(f"{output} cannot be written: {error.strerror}.", err=True)
        raise typer.Exit(1) from None
    if as_json:
        _show(made, as_json)
    else:
        typer.echo(made["tag"])


@destinations.command("create")
def create_destination(
    name: Annotated[str, typer.Option(help="Name for operators.")],
    connector: Annotated[str, typer.Option(help="Such as sql, archive, webhook, manual.")],
    settings: Annotated[str, typer.Option(help="Settings as JSON, or @FILE.")],
    workspace: In = None,
    as_json: AsJson = False,
) -> None:
    """Add a destination; its settings are checked first."""
    try:
        text = Path(settings[1:]).read_text() if settings.startswith("@") else settings
        content = json.loads(text)
    except OSError as error:
        raise Invalid(f"The file of --settings cannot be read ({error.strerror}).") from None
    except ValueError:
        raise Invalid("--settings is not valid JSON.") from None
    _show(_run(lambda do: do.create_destination(workspace, name, connector, content)), as_json)


@destinations.command("list")
def list_destinations(workspace: In = None, as_json: AsJson = False) -> None:
    """List destinations."""
    _show(_run(lambda do: do.list_destinations(workspace)), as_json)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="What it is for.")],
    scope: Annotated[list[str], typer.Option(help="Such as requests:write; may be repeated.")],
    workspace: In = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key; its secret is shown once."""
    _show(_run(lambda do: do.create_key(workspace, name, scope)), as_json)


@keys.command("list")
def list_keys(workspace: In = None, as_json: AsJson = False) -> None:
    """List API keys."""
    _show(_run(lambda do: do.list_keys(workspace)), as_json)


@admins.command("create")
def create_admin(
    role: Annotated[str, typer.Option(help="owner, operator or viewer")] = "owner",
    workspace: In = None,
    as_json: AsJson = False,
) -> None:
    """Print a one-time link that sets up an account."""
    _show(_run(lambda do: do.invite_admin(workspace, role)), as_json)


@admins.command("list")
def list_admins(workspace: In = None, as_json: AsJson = False) -> None:
    """List accounts."""
    _show(_run(lambda do: do.list_admins(workspace)), as_json)


@requests.command("create")
def create_request(
    kind: Annotated[str, typer.Option(help="erasure, opt_out, access, ...")],
    identifier: Annotated[
        list[str], typer.Option(help="kind:value, such as email:a@example.com; may be repeated.")
    ],
    regime: Annotated[str | None, typer.Option(help=_REGIMES)] = None,
    workspace: In = None,
    as_json: AsJson = False,
) -> None:
    """Ask for one person; the running service carries it out."""
    _show(
        _run(
            lambda do: do.create_request(
                workspace, kind, [_pair(each) for each in identifier], regime
            )
        ),
        as_json,
    )


@requests.command("show")
def show_request(request_id: str, workspace: In = None, as_json: AsJson = False) -> None:
    """Show a request with its deliveries."""
    _show(_run(lambda do: do.show_request(workspace, request_id)), as_json)


@requests.command("import")
def import_requests(
    file: Annotated[
        Path, typer.Argument(help="CSV with a header; columns named like identifier kinds.")
    ],
    kind: Annotated[str, typer.Option(help="erasure, opt_out, ...")] = "erasure",
    regime: Annotated[str | None, typer.Option(help=_REGIMES)] = None,
    workspace: In = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for everybody in a CSV file, once per person."""
    people = _people(file)
    if not yes:
        typer.confirm(f"{kind} for {len(people)} people from {file.name}?", abort=True)
    with typer.progressbar(length=len(people), label="Taking in", file=sys.stderr) as bar:
        answer = _run(lambda do: do.import_requests(workspace, kind, people, regime, bar.update))
    _show(answer, as_json)


@deliveries.command("list-archived")
def list_archived(
    destination: Annotated[str | None, typer.Option(help="Only those to this one.")] = None,
    workspace: In = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries that expired and were neither replayed nor waived, oldest first."""
    _show(_run(lambda do: do.list_archived(workspace, destination)), as_json)


@deliveries.command("replay")
def replay_archived(
    destination: Annotated[str | None, typer.Option(help="Only those to this one.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Expired then or later: 2026-11-25 or 2026-11-25T10:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Expired before then.")] = None,
    workspace: In = None,
    as_json: AsJson = False,
) -> None:
    """Put archived deliveries back into their queues; the running service carries them out."""
    first, end = _moment(since), _moment(until)
    _show(_run(lambda do: do.replay_archived(workspace, destination, first, end)), as_json)


@deliveries.command("check-archive")
def check_archive(as_json: AsJson = False) -> None:
    """Read the archive's files; exit code 1 if an archived delivery has no line in them."""
    answer = _run(lambda do: do.check_archive())
    _show(answer, as_json)
    raise typer.Exit(1 if answer["missing"] else 0)


@receipts.command("verify")
def verify_receipt(
    file: Annotated[
        Path, typer.Argument(help="The receipt (compact JWS); - reads standard input.")
    ],
    jwks: Annotated[
        str | None, typer.Option(help="Key set: file or URL; default: this instance's keys.")
    ] = None,
    opening: Annotated[
        str | None,
        typer.Option(help="The opening you were given; a consent's receipt holds its own."),
    ] = None,
    identifier: Annotated[
        str | None, typer.Option(help="kind:value the receipt should speak of.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a receipt. Exit code 0: valid, 1: not valid, 2: unreadable."""
    from app import checking  # noqa: PLC0415 (start-up time)

    pair = _pair(identifier) if identifier else None
    code, answer = checking.check(file, jwks, opening, pair, load_settings)
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        typer.echo(checking.as_text(answer), err=code != 0)
    raise typer.Exit(code)


@app.command()
def demo() -> None:
    """Seed the demo shop into the data directory (once)."""
    _show(_run(lambda do: do.seed_demo()), False)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check settings, key file, databases and what they seal; exit code 1 if something is wrong."""
    from app import checking  # noqa: PLC0415 (start-up time)

    try:
        findings = checking.doctor(read(), os.environ)
    except WrongSettings as error:
        findings = checking.wrong_settings([*error.problems, *unknown(os.environ)])
    if as_json:
        typer.echo(json.dumps(findings))
    else:
        for each in findings:
            typer.echo(f"{'ok  ' if each['ok'] else 'FAIL'}  {each['name']}: {each['detail']}")
    raise typer.Exit(0 if all(each["ok"] for each in findings) else 1)


def _moment(text: str | None) -> dt.datetime | None:
    """A moment; without a zone it is UTC."""
    try:
        moment = dt.datetime.fromisoformat(text) if text else None
    except ValueError:
        raise typer.BadParameter("Write a time as 2026-11-25 or 2026-11-25T10:00Z.") from None
    return moment.replace(tzinfo=moment.tzinfo or dt.UTC) if moment else None


def _pair(text: str) -> tuple[str, str]:
    kind, separator, value = text.partition(":")
    if not separator or not kind or not value:
        raise typer.BadParameter("Write an identifier as kind:value, such as email:a@example.com.")
    return kind, value


def _people(file: Path) -> list[tuple[tuple[str, str], ...]]:
    """The distinct people of a CSV file; a wrong file is refused whole, with the line."""
    csv.field_size_limit(1 << 16)
    people: dict[tuple[tuple[str, str], ...], None] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, strict=True)
            if not reader.fieldnames or any(not name for name in reader.fieldnames):
                raise typer.BadParameter(
                    "The first line must name the columns, such as email,user_id."
                )
            for row in reader:
                if None in row or None in row.values():
                    raise typer.BadParameter(
                        f"Line {reader.line_num} has another number of columns than the first."
                    )
                if person := tuple(
                    (kind, value.strip()) for kind, value in row.items() if value.strip()
                ):
                    people[person] = None
    except UnicodeDecodeError:
        raise typer.BadParameter("The file is not UTF-8.") from None
    except (OSError, csv.Error) as error:
        raise typer.BadParameter(f"The file cannot be read: {type(error).__name__}.") from None
    if not people:
        raise typer.BadParameter("The file names nobody.")
    return list(people)


if __name__ == "__main__":
    main()
