"""The invariant report: scenarios against invariants, with what each run did and met."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tests.faults.history import CHECKS
from tests.faults.lanes import Result

INVARIANTS = ("I1", "I2", "I3", "I4", "I5", "I6", "I7")
MEANING = """\
I1 every acknowledged request ended, or an alarm is visible
I2 what is done was called; repeats are the same call under the same key, at most those in flight
I3 no receipt claims more than the destinations' logs show
I4 nobody but the named people was touched
I5 (not checked: the transparency log is not built yet)
I6 no identifier in logs, main database or broker
I7 the service answers again within 30 s after the fault"""
COUNTS = (
    "runs",
    "requests",
    "deliveries",
    "calls",
    "repeats",
    "in flight",
    "recovery s",
    "whole s",
)


def render(results: Sequence[Result], skipped: Mapping[str, str]) -> str:
    """The table, then what broke in words, then the verdict as the last line."""
    rows: dict[str, list[Result]] = defaultdict(list)
    for each in sorted(results, key=lambda one: one.scenario.partition(":")[0]):
        rows[each.scenario].append(each)
    width = max(map(len, rows), default=8)
    lines = ["", MEANING, "", _line("scenario", COUNTS, INVARIANTS, width)]
    lines += [_row(name, runs, width) for name, runs in rows.items()]
    lines += [f"skipped: {name}: {why}" for name, why in skipped.items()]
    lines += [
        f"{each.scenario}: {text}"
        for each in results
        for text in (each.error, *_texts(each))
        if text
    ]
    return "\n".join([*lines, "", verdict(results)]) + "\n"


def _row(name: str, runs: Sequence[Result], width: int) -> str:
    histories = [each.history for each in runs if each.history]
    counts = (
        len(runs),
        sum(len(each.requests) for each in histories),
        sum(len(each.deliveries) for each in histories),
        sum(len(each.by_key()) for each in histories),
        sum(each.repeats for each in histories),
        sum(each.in_flight for each in histories),
        f"{max((each.slowest_recovery for each in histories), default=0):.1f}",
        f"{max(each.seconds for each in runs):.0f}",
    )
    return _line(name, counts, [_mark(each, runs) for each in INVARIANTS], width)


def _mark(invariant: str, runs: Sequence[Result]) -> str:
    if invariant not in CHECKS:
        return "-"
    if any(each.invariant == invariant for run in runs for each in run.found):
        return "NO"
    return "ok" if all(run.history for run in runs) else "?"


def _line(name: str, counts: Iterable[object], marks: Iterable[str], width: int) -> str:
    cells = [f"{cell!s:>{len(head)}}" for head, cell in zip(COUNTS, counts, strict=True)]
    return "  ".join([f"{name:{width}}", *cells, *(f"{mark:2}" for mark in marks)]).rstrip()


def _texts(result: Result) -> list[str]:
    return [f"{each.invariant}: {each.text}" for each in result.found]


def verdict(results: Sequence[Result]) -> str:
    broken = sorted({each.invariant for run in results for each in run.found})
    unplayed = sorted({run.scenario for run in results if run.error})
    if not results:
        return "Nothing was played."
    if not broken and not unplayed:
        return f"All invariants hold in {len(results)} runs."
    parts = [f"{' '.join(broken)} broken"] if broken else []
    parts += [f"not played to the end: {', '.join(unplayed)}"] if unplayed else []
    return f"Not all hold: {'; '.join(parts)}."
