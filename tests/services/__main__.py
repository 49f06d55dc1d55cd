"""The command line of the test servers."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

from tests.services import install, processes, state
from tests.services.install import say
from tests.services.servers import SERVERS
from tests.services.state import State


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    parser.add_argument(
        "--durable", action="store_true", help="a second set that syncs its commits to disk"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start what does not run yet and leave it running")
    commands.add_parser("down", help="stop what `up` or a run left behind")
    commands.add_parser("env", help="print the variables of what runs, for eval in a shell")
    run = commands.add_parser(
        "run", help="start, run COMMAND, and stop again unless `up` said to keep"
    )
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    options = parser.parse_args()
    match options.command:
        case "up":
            return up(is_durable=options.durable)
        case "down":
            return down(is_durable=options.durable)
        case "env":
            return show(is_durable=options.durable)
        case _:
            return run_with(options.arguments, is_durable=options.durable)


def up(*, is_durable: bool) -> int:
    with state.opened(is_durable=is_durable) as current:
        current.is_kept = True
        return bring_up(current)


def down(*, is_durable: bool) -> int:
    with state.opened(is_durable=is_durable) as current:
        current.is_kept = False
        if current.users:
            say(
                f"still used by pid {current.users[0].pid}, a test run, which stops them at its end"
            )
            return 0
        current.stop(list(current.running))
    return 0


def show(*, is_durable: bool) -> int:
    with state.opened(is_durable=is_durable) as current:
        for name, value in current.environment().items():
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
    return 0


def run_with(arguments: list[str], *, is_durable: bool) -> int:
    """Run a command with its servers; they stop when the last run that uses them ends."""
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    me = processes.current()
    try:
        with state.opened(is_durable=is_durable) as current:
            current.users.append(me)
            if failure := bring_up(current):
                return failure
            environment = os.environ | current.environment()
        return run_to_end(command, environment)
    except KeyboardInterrupt:
        return 130
    finally:
        with state.opened(is_durable=is_durable) as current:
            current.users = [user for user in current.users if user != me]
            if not current.users and not current.is_kept:
                current.stop(list(current.running))


def run_to_end(command: list[str], environment: dict[str, str]) -> int:
    """The exit status of ``command``. Ctrl-C reaches it too, so it may end by itself first."""
    with subprocess.Popen(command, env=environment) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            for push in (child.terminate, child.kill):
                with suppress(subprocess.TimeoutExpired):
                    child.wait(5)
                    break
                push()
            raise


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def bring_up(current: State) -> int:
    """Install and start what the environment does not name; 1 when CI would lack something."""
    began = time.monotonic()
    given = {name for name, server in SERVERS.items() if os.environ.get(server.variable)}
    given |= {name for name, variable in install.BROWSERS.items() if os.environ.get(variable)}
    lacking = [name for name in install.missing() if name not in given]
    if lacking and install.can_install():
        install.install(lacking, state.HOME / "apt.log")
        lacking = [name for name in install.missing() if name not in given]
    if lacking:
        say(install.advice(lacking))
    failed = current.start([name for name in SERVERS if name not in given | set(lacking)])
    for name, reason in failed.items():
        say(f"{name} did not start: {reason}")
    ready = [f"{name}:{one.ports[0]}" for name, one in sorted(current.running.items())]
    say(f"ready in {time.monotonic() - began:.1f} s: {' '.join(ready) or 'nothing'}")
    return 1 if failed or (lacking and os.environ.get("CI") == "true") else 0


sys.exit(main())
