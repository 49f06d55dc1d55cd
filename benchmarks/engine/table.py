"""The table of the delivery engine: every benchmark by name, and how it is printed."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import redis

from benchmarks.engine import bench, isolation, scale, speed
from benchmarks.engine.figures import HEADING, Figure

BENCHMARKS: dict[str, Callable[[bench.Bench], list[Figure]]] = {
    "plain": speed.plain,
    "latency": speed.latency,
    "bulk": speed.bulk,
    "hang": isolation.hang,
    "crowd": isolation.crowd,
    "queues": scale.queues,
    "workers": speed.workers,
    "embedded": speed.embedded,
    "broker": isolation.broker,
}
PACKAGES = ("sqlalchemy", "psycopg", "httpx", "aiohttp", "celery", "uvloop")


def show(names: Iterable[str], *, is_quick: bool, file: Path | None) -> None:
    """Run and print, line by line; ``file`` gets one JSON line per figure."""
    with bench.prepared(is_quick=is_quick) as scene:
        facts = machine(scene)
        print("; ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
        print(HEADING, flush=True)
        for name in names:
            for figure in BENCHMARKS[name](scene):
                print(figure.line(), flush=True)
                if file:
                    _append(file, facts | {"benchmark": name}, figure)


def _append(file: Path, facts: dict[str, object], figure: Figure) -> None:
    line = asdict(figure) | {"value": figure.value, "verdict": figure.verdict, "facts": facts}
    with file.open("a") as opened:
        opened.write(json.dumps(line) + "\n")


def machine(scene: bench.Bench) -> dict[str, object]:
    """What the figures depend on."""
    with redis.Redis.from_url(scene.redis_url) as client:
        redis_version = client.info("server")["redis_version"]
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgresql": scene.postgres.version(),
        "redis": redis_version,
        **dict(_versions()),
        "date": time.strftime("%Y-%m-%d"),
        "pace": "quick" if scene.is_quick else "full",
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "none"
