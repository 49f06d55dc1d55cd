"""The faults, one scenario each: what is done to a stage while people ask to be erased."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty

from celery import Celery
from kombu.connection import Connection

from app.core.failpoints import FAILPOINTS
from app.core.pump import PUMPS
from tests.faults import destination as meets
from tests.faults.destination import Behaviour
from tests.faults.disk import Disk
from tests.faults.network import Wire
from tests.faults.servers import Servers
from tests.faults.stage import Stage, await_death, await_stop
from tests.journeys.instance import wait_for

LEASE_SECONDS = 10
REACHED_BY_MAIL = {"mail.after_send", "forget.after_keys"}
WORKER = tuple(each for each in FAILPOINTS if not each.startswith(("intake.", "scheduler.")))
ROLES = {
    "up": tuple(each for each in FAILPOINTS if not each.startswith("scheduler.")),
    "worker": WORKER,
    "serve": ("intake.before_commit", "intake.after_commit", "hint.before_publish"),
    "scheduler": ("scheduler.before_publish", "hint.before_publish"),
}
"""Command -> the failpoints it passes; ``up`` is the embedded form."""
ONCE_A_REQUEST = {"mail.after_send", "intake.before_commit", "intake.after_commit"}
"""Passed once for each of the people, so that the nth passage can be asked for."""


@dataclass(frozen=True)
class Scenario:
    """``play`` returns when everybody was asked for and the fault is over."""

    name: str
    play: Callable[[Stage], None]


# Processes


def kill(role: str, failpoint: str) -> Scenario:
    """SIGKILL at a failpoint, then a start as by a supervisor. With a seed other than 0, while
    destinations have moods, too.
    """
    name = f"kill {role} at {failpoint}"

    def play(stage: Stage) -> None:
        # The first sweep is done before the API answers; what follows is under load.
        nth = 2 if failpoint.startswith("sweep.") else 1
        if failpoint in ONCE_A_REQUEST:
            nth = stage.chance.randint(1, 8)
        if stage.seed:
            for each in stage.destinations:
                each.script = stage.chance.choices(MOODS, k=2)
        process = stage.arm(role, f"{failpoint}:{nth}")
        with stage.asking(by_mail=failpoint in REACHED_BY_MAIL):
            await_death(process)
            stage.strike(name, lambda: None, lambda: stage.restart(role))

    return Scenario(name, play)


def kill_while_archiving(role: str, failpoint: str) -> Scenario:
    """One destination is away until its deliveries run out of time; replayed, they end."""
    name = f"kill {role} at {failpoint}"

    def play(stage: Stage) -> None:
        away = stage.destinations[0]
        away.default = meets.status(503)
        process = stage.arm(role, failpoint)
        stage.ask()
        wait_for(lambda: stage.run_out_of_time(away) == len(stage.people), "all to be put off")
        await_death(process)
        stage.strike(name, lambda: None, lambda: stage.restart(role))
        away.default = meets.obey
        left = {"destination_id": stage.ids[away.name]}
        replayed = stage.instance.api.post("/v1/deliveries/replay", json=left).raise_for_status()
        if replayed.json()["replayed"] != len(stage.people):
            raise AssertionError(f"the archive gave back {replayed.json()}")
        # Mended: the breaker's pause need not be waited for.
        queue = f"/v1/queues/{stage.ids[away.name]}/flush"
        stage.instance.api.post(queue).raise_for_status()

    return Scenario(name, play)


def kills(role: str) -> list[Scenario]:
    return [
        kill_while_archiving(role, each) if each.startswith("archive.") else kill(role, each)
        for each in ROLES[role]
    ]


def freeze(role: str, failpoint: str) -> Scenario:
    """SIGSTOP at a failpoint, until the lease is over and somebody else had time to take over; then
    SIGCONT. Whoever wakes up under an old lease must change nothing.
    """
    name = f"freeze {role} at {failpoint}"

    def play(stage: Stage) -> None:
        process = stage.arm(role, f"{failpoint}=stop")
        fenced_before = stage.logged("fenced_out")
        with stage.asking():
            await_stop(process)
            if role == "worker":
                stage.instance.launch("worker")
            stage.strike(
                name,
                lambda: None,
                lambda: process.send_signal(signal.SIGCONT),
                lasts=LEASE_SECONDS + 3,
            )
        if role == "worker":
            if failpoint.startswith(
                "call."
            ):  # elsewhere it holds its queues' rows: nobody takes over
                late = partial(stage.logged, "fenced_out")
                wait_for(lambda: late() > fenced_before, "the late worker to be fenced out")
            stage.settle()
            stage.instance.end("worker", signal.SIGTERM)

    return Scenario(name, play)


# Servers


def postgres_killed(servers: Servers) -> Scenario:
    def play(stage: Stage) -> None:
        with stage.asking():
            wait_for(lambda: stage.open_calls() or None, "calls in flight")
            stage.strike(
                "kill -9 of the postmaster",
                lambda: servers.kill("postgres"),
                lambda: servers.start("postgres"),
            )

    return Scenario("kill postgres while people ask", play)


def postgres_killed_in_calls(servers: Servers) -> Scenario:
    """Everybody is planned for and called when it dies; the answers come while it is away."""

    def play(stage: Stage) -> None:
        for each in stage.destinations:
            each.default = meets.slow_answer(2)
        stage.ask()
        wait_for(lambda: len(stage.open_calls()) >= len(stage.destinations), "calls in flight")
        wait_for(lambda: not stage.unplanned(), "everybody to be planned for")
        stage.strike(
            "kill -9 of the postmaster",
            lambda: servers.kill("postgres"),
            lambda: servers.start("postgres"),
        )

    return Scenario("kill postgres in the middle of calls", play)


def backends_terminated(servers: Servers) -> Scenario:
    def play(stage: Stage) -> None:
        with stage.asking():
            for _ in range(3):
                time.sleep(0.3)
                stage.strike("pg_terminate_backend of all", servers.terminate_backends)

    return Scenario("terminate all backends", play)


def broker_restarted(servers: Servers, broker: str) -> Scenario:
    def play(stage: Stage) -> None:
        with stage.asking():
            time.sleep(0.3)
            stage.strike_lightly(f"kill -9 of {broker}", lambda: servers.kill(broker))
            servers.start(broker)
        stage.ask(4)

    return Scenario(f"restart {broker}", play)


def broker_gone(servers: Servers, broker: str) -> Scenario:
    """Away before anybody asks, and back only when all have ended."""

    def play(stage: Stage) -> None:
        stage.strike_lightly(f"{broker} stopped", lambda: servers.stop(broker))
        try:
            stage.ask()
            stage.settle()
        finally:
            servers.start(broker)

    return Scenario(f"{broker} gone", play)


def redis_flushed(servers: Servers) -> Scenario:
    def play(stage: Stage) -> None:
        with stage.asking():
            for _ in range(10):
                time.sleep(0.1)
                servers.flush_redis()
        stage.strike_lightly("FLUSHALL", servers.flush_redis)

    return Scenario("flush redis", play)


def hints_repeated_and_late(broker_url: str) -> Scenario:
    """Hundreds of hints nobody sent: while people ask, and a heap that waits for a new worker."""

    def play(stage: Stage) -> None:
        def publish() -> None:
            with closing(Celery("late", broker=broker_url, set_as_current=False)) as celery:
                celery.conf.task_default_queue = "quittance"
                for _ in range(50):
                    for pump in PUMPS:
                        celery.send_task(f"quittance.{pump}", ignore_result=True)

        with stage.asking():
            stage.strike_lightly("hints that nobody sent", publish)
        stage.instance.end("worker", signal.SIGTERM)
        publish()
        stage.instance.launch("worker")
        stage.ask(4)

    return Scenario("repeated and late hints", play)


def broker_read(broker_url: str) -> Scenario:
    """What lies in the broker while nobody takes hints; it becomes a sink of the history."""

    def play(stage: Stage) -> None:
        stage.instance.end("worker", signal.SIGTERM)
        stage.ask(4)
        wait_for(lambda: _drain(stage, broker_url), "a hint in the broker")
        stage.instance.launch("worker")

    return Scenario("read the broker", play)


def _drain(stage: Stage, broker_url: str) -> bool:
    with Connection(broker_url) as connection, connection.SimpleQueue("quittance") as queue:
        while True:
            try:
                message = queue.get_nowait()
            except Empty:
                return "the broker" in stage.sinks
            message.ack()
            shown = repr((message.headers, message.properties, message.body))
            stage.sinks["the broker"] = stage.sinks.get("the broker", b"") + shown.encode()


# Disks


NO_ROOM = "503 urn:quittance:problem:no-room"


def disk_full(disk: Disk, lasts: float) -> Scenario:
    """The database's disk, which the log and the mails are on, too, is full for so many seconds,
    while calls are under way and people ask. Who cannot be served is told so; all else is read.
    """

    def refuse(stage: Stage) -> None:
        def somebody_is_refused() -> bool:
            disk.fill()
            return bool(stage.refusals)

        wait_for(somebody_is_refused, "somebody to be refused")
        stage.instance.api.get("/v1/queues").raise_for_status()
        ready = stage.instance.visitor.get("/readyz")
        if (ready.status_code, ready.json()["checks"]["disk"]) != (503, "fail"):
            raise AssertionError(f"a full disk, and /readyz says {ready.text}")

    def play(stage: Stage) -> None:
        for each in stage.destinations:
            each.default = meets.slow_answer(1)
        stage.ask(by_mail=True)
        wait_for(lambda: not stage.unplanned(), "everybody to be planned for")
        wait_for(stage.open_calls, "calls in flight")
        with stage.asking(4, by_mail=True):
            try:
                stage.strike("a full disk", partial(refuse, stage), disk.free, lasts=lasts)
            finally:
                disk.free()
        if others := stage.refusals.keys() - {NO_ROOM}:
            raise AssertionError(f"while the disk was full, people heard {sorted(others)}")

    return Scenario("disk full", play)


# Clocks and wires


def faketime() -> str | None:
    """The library that moves a process's clock, where Debian's package put it."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else None


SLOW_WITH_FAKETIME = 180.0


def clock_of_worker(library: str, hours: int) -> Scenario:
    """The worker's clock is wrong until it is started again: ahead, it does all as if it were late;
    behind, nothing is due for it.
    """

    def play(stage: Stage) -> None:
        stage.instance.end("worker", signal.SIGTERM)
        stage.instance.launch(
            "worker",
            LD_PRELOAD=library,
            FAKETIME=f"{hours:+}h",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            NO_FAKE_STAT="1",
        )
        stage.ask()
        if hours > 0:
            calls = partial(stage.destinations[0].hits_since, stage.started_at)
            wait_for(calls, "its calls", SLOW_WITH_FAKETIME)
        else:
            time.sleep(5)
        stage.strike(
            f"the worker's clock jumps by {-hours:+} h",
            lambda: stage.instance.end("worker", signal.SIGTERM),
            lambda: stage.instance.launch("worker"),
        )
        stage.ask(4)

    return Scenario(f"clock of worker {hours:+} h", play)


def wire_cut(wire: Wire) -> Scenario:
    """Longer than a call may take: calls in flight get no answer, and no error either."""

    def play(stage: Stage) -> None:
        with stage.asking():
            time.sleep(0.3)
            wire.cut()
            time.sleep(25)
            wire.mend()

    return Scenario("cut the wire", play)


# Destinations


def misbehaving(name: str, *script: Behaviour) -> Scenario:
    """Each destination meets its first calls in these ways, beginning at another one."""

    def play(stage: Stage) -> None:
        for number, each in enumerate(stage.destinations):
            turn = number % len(script)
            each.script = [*script[turn:], *script[:turn]][:2]
        stage.ask()

    return Scenario(f"destination {name}", play)


def refusing() -> Scenario:
    """Nobody listens for some seconds; calls in flight are cut."""

    def play(stage: Stage) -> None:
        first = stage.destinations[0]
        with stage.asking():
            time.sleep(0.3)
            first.close()
            time.sleep(3)
            first.open_again()

    return Scenario("destination down", play)


def unauthorised(code: int) -> Scenario:
    """The destination refuses us: its queue parks, until an operator has mended it."""

    def play(stage: Stage) -> None:
        first = stage.destinations[0]
        first.default = meets.status(code)
        stage.ask()
        queue = stage.ids[first.name]

        def is_parked() -> bool:
            queues = stage.instance.api.get("/v1/queues").json()["items"]
            mine = next(each for each in queues if each["destination_id"] == queue)
            return mine["parked_reason"] is not None

        wait_for(is_parked, "the queue to be parked")
        first.default = meets.obey
        stage.instance.api.post(f"/v1/queues/{queue}/resume").raise_for_status()

    return Scenario(f"destination answers {code}", play)


def misbehaviours() -> Iterator[Scenario]:
    yield refusing()
    yield misbehaving("unavailable", meets.status(503), meets.status(502))
    yield misbehaving("slow", meets.slow(3))
    yield misbehaving("hanging", meets.hang)
    yield misbehaving("resets before applying", meets.reset_before)
    yield misbehaving("resets after applying", meets.lost_ack)
    yield misbehaving("throttles", meets.throttled(2), meets.throttled(3, as_date=True))
    yield misbehaving("answers wrongly", *meets.WRONG_BODIES)
    yield misbehaving("has a job", meets.job(2))
    yield unauthorised(401)
    yield unauthorised(403)


MOODS: tuple[Behaviour, ...] = (
    meets.lost_ack, meets.reset_before, meets.html, meets.throttled(1), meets.job(1),
    meets.status(503), meets.slow(1), meets.truncated, meets.obey, meets.obey,
)  # fmt: skip
"""What a kill may meet at the destinations at the same time."""
