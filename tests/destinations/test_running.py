"""Running connectors: in the loop or in threads, under a deadline, every failure an outcome."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, cast

import httpx
import pytest

from app.core.outbound import AnswerTooLarge
from app.destinations.running import Busy, Runner, checked, outcome_of
from app.destinations.tools import making
from connectors.contract import (
    AddressRefused,
    Call,
    ConnectorError,
    Operation,
    Outcome,
    PeopleConnector,
    Residual,
    Tools,
    Verdict,
    absent,
    accepted,
    done,
    failed,
    retry,
)

CALL = Call("cal_1", Operation.ERASE, 1)
SHORT = dt.timedelta(seconds=0.1)


def tools(destination_id: str = "dst_1") -> Tools:
    return cast(Tools, SimpleNamespace(destination_id=destination_id))


class InLoop(PeopleConnector):
    title = "In the loop"

    async def erase(self, answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def poll(self, job: Any) -> Any:
        return job

    async def lookup(self, found: Any) -> Any:
        return found

    async def suppress(self, _: Any) -> Outcome:
        await asyncio.sleep(30)
        return done()


class InThread(PeopleConnector):
    title = "In a thread"
    runs_in: ClassVar[Literal["loop", "thread", "process"]] = "thread"
    gate: ClassVar[threading.Event]

    def erase(self, _: Any) -> Outcome:
        return done() if threading.current_thread().name.startswith("connector") else absent()

    def suppress(self, _: Any) -> Outcome:
        self.gate.wait(30)
        return done()


@pytest.fixture
def runner() -> Iterator[Runner]:
    InThread.gate = threading.Event()
    made = Runner(threads=8, per_destination=2)
    yield made
    InThread.gate.set()
    made.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AddressRefused("no"), retry("address_refused", parks=True)),
        (ConnectorError("no"), retry("misconfigured", parks=True)),
        (TimeoutError(), retry("timeout")),
        (httpx.ReadTimeout("x"), retry("timeout")),
        (httpx.PoolTimeout("x"), retry("timeout")),
        (httpx.ConnectError("x"), retry("unreachable")),
        (httpx.RemoteProtocolError("x"), retry("unreachable")),
        (httpx.ConnectTimeout("x"), retry("timeout")),
        (ConnectionResetError(), retry("unreachable")),
        (OSError(), retry("unreachable")),
        (AnswerTooLarge("x"), retry("answer_too_large")),
        (Busy(), retry("busy")),
        (ValueError("bob@shop.example"), retry("connector_error")),
        (RecursionError(), retry("connector_error")),
    ],
)  # fmt: skip
async def test_every_failure_is_an_outcome(runner: Runner, error: Exception, expected: Outcome):
    assert outcome_of(error) == expected
    assert await runner.run(InLoop(None, tools()), "erase", error, call=CALL) == expected


@pytest.mark.parametrize(
    ("method", "answer", "is_good"),
    [
        ("erase", done(), True),
        ("erase", {"dlv_1": done()}, True),
        ("erase", {}, True),
        ("erase", None, False),
        ("erase", True, False),
        ("erase", {"dlv_1": "done"}, False),
        ("erase", [done()], False),
        ("poll", done(), True),
        ("poll", {"dlv_1": done()}, False),
        ("poll", None, False),
        ("lookup", {"dlv_1": []}, True),
        ("lookup", None, False),
    ],
)
async def test_what_the_contract_does_not_know_is_never_done(
    runner: Runner, method: str, answer: Any, is_good: bool
):
    found = await runner.run(InLoop(None, tools()), method, answer, call=CALL)
    assert found == (answer if is_good else retry("connector_error"))
    if not is_good:
        with pytest.raises(TypeError):
            checked(method, answer)


@pytest.mark.parametrize(
    "answer",
    [
        retry("odd\0"),
        failed("half a pair \ud83d"),
        accepted("job\0"),
        done(facts={"count\0": 1}),
        done(facts={"rows": Decimal(3)}),  # type: ignore[dict-item]
        done(facts={"rows": float("nan")}),  # type: ignore[dict-item]
        done(facts={"rows": 2**60}),
        done(http_status=10**9),
        Outcome(Verdict.DONE, reason=5),  # type: ignore[arg-type]
        Outcome(Verdict.RETRY, retry_after=5),  # type: ignore[arg-type]
        done(residuals=[Residual("invoices", "tax", dt.date(2036, 1, 1))]),  # type: ignore[arg-type]
        done(residuals=[Residual("invoices", "tax\0", "2036")]),
        {"dlv_1": done(), "dlv_2": failed("\udc00")},
    ],
)
async def test_what_no_database_can_keep_is_refused(runner: Runner, answer: Any):
    found = await runner.run(InLoop(None, tools()), "erase", answer, call=CALL)
    assert found == retry("connector_error")


async def test_a_failing_connector_is_logged_by_type_only(
    runner: Runner, capsys: pytest.CaptureFixture[str]
):
    await runner.run(InLoop(None, tools()), "erase", ValueError("bob@shop.example"), call=CALL)
    said = capsys.readouterr()
    assert "ValueError" in said.out + said.err
    assert "bob@" not in said.out + said.err


async def test_the_deadline_is_hard(runner: Runner):
    for connector in (InLoop(None, tools()), InThread(None, tools())):
        started = time.monotonic()
        found = await runner.run(connector, "suppress", [], call=CALL, deadline=SHORT)
        assert found == retry("timeout")
        assert time.monotonic() - started < 5


async def test_cancelling_is_not_an_outcome(runner: Runner):
    task = asyncio.create_task(runner.run(InLoop(None, tools()), "suppress", [], call=CALL))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_dst_021_a_hanging_destination_runs_out_of_its_own_threads(runner: Runner):
    hanging = InThread(None, tools("dst_a"))
    calls = [runner.run(hanging, "suppress", [], call=CALL, deadline=SHORT) for _ in range(2)]
    assert await asyncio.gather(*calls) == [retry("timeout")] * 2
    assert await runner.run(hanging, "erase", [], call=CALL, deadline=SHORT) == retry("busy")
    assert await runner.run(InThread(None, tools("dst_b")), "erase", [], call=CALL) == done()
    InThread.gate.set()
    assert await runner.run(hanging, "erase", [], call=CALL) == done()


async def test_each_call_sees_its_own_call_in_the_loop_and_in_threads(runner: Runner):
    from app.destinations.tools import _CALL  # noqa: PLC0415 - what the tools' property reads

    class Asking(InThread):
        def erase(self, _: Any) -> Outcome:
            return done(facts={"call": _CALL.get().id})

    connector = Asking(None, tools())
    calls = [Call(f"cal_{i}", Operation.ERASE, 1) for i in range(20)]
    found = await asyncio.gather(*(runner.run(connector, "erase", [], call=each) for each in calls))
    assert [cast(Outcome, each).facts["call"] for each in found] == [each.id for each in calls]
    with making(CALL):
        assert _CALL.get() is CALL
    with pytest.raises(LookupError):
        _CALL.get()
