"""From an accepted request to a completed one, on the embedded form, beside the same work done by
hand.

Prints one line per figure: what, ours, the reference of the same run, the ratio, and the bar. The
reference for one person is a bare script that deletes from two tables and posts one webhook,
durably; for intake it is the same server's ``/healthz``, which touches no database.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

PEOPLE = 5000


class Sink(BaseHTTPRequestHandler):
    """Answers every webhook at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def make_shop(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript("""
            CREATE TABLE customer (id INTEGER PRIMARY KEY, email TEXT NOT NULL, name TEXT);
            CREATE INDEX customer_email ON customer (lower(email));
            CREATE TABLE purchase (
                id INTEGER PRIMARY KEY,
                customer_id INTEGER NOT NULL REFERENCES customer,
                cents INTEGER
            );
            CREATE INDEX purchase_customer ON purchase (customer_id);
        """)
        people = [(each, f"person{each}@example.com", f"Person {each}") for each in range(PEOPLE)]
        connection.executemany("INSERT INTO customer VALUES (?, ?, ?)", people)
        connection.executemany(
            "INSERT INTO purchase VALUES (?, ?, ?)",
            [(each, each // 4, each) for each in range(4 * PEOPLE)],
        )
    return f"sqlite:///{path}"


@contextmanager
def service(directory: Path) -> Iterator[tuple[httpx.Client, int, float]]:
    """A fresh embedded instance: client, process id, seconds from start to ready."""
    environment = os.environ | {
        "QUITTANCE_DATA_DIR": str(directory),
        "QUITTANCE_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
        "QUITTANCE_API_PER_MINUTE": "1000000",
    }
    command = [sys.executable, "-W", "ignore", "-m", "app.cli", "up", "--port", "0", "--json"]

    def start() -> tuple[subprocess.Popen[str], dict[str, Any], float]:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--no-demo"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        welcome = json.loads(process.stdout.readline())
        return process, welcome, time.perf_counter() - began

    process, _, _ = start()  # the first start makes keys and schemas
    process.terminate()
    process.communicate()
    process, welcome, seconds = start()
    client = httpx.Client(
        base_url=welcome["base_url"],
        headers={"Authorization": f"Bearer {welcome['api_key']}"},
        timeout=60,
        trust_env=False,
        limits=httpx.Limits(max_connections=16, max_keepalive_connections=16),
    )
    try:
        yield client, process.pid, seconds
    finally:
        client.close()
        process.terminate()
        process.communicate()


def add_destinations(client: httpx.Client, shop: str, hook: str) -> None:
    tables = [
        {"name": "customer", "match": {"email": "email"}, "action": "delete"},
        {"name": "purchase", "via": {"customer_id": "customer.id"}, "action": "delete"},
    ]
    for name, connector, settings in (
        ("Shop", "sql", {"url": shop, "tables": tables}),
        ("Hook", "webhook", {"url": hook}),
    ):
        body = {"name": name, "connector": connector, "settings": settings}
        client.post("/v1/destinations", json=body).raise_for_status()


def subject(number: int) -> list[dict[str, str]]:
    return [{"kind": "email", "value": f"person{number}@example.com"}]


def one_person(client: httpx.Client, numbers: range) -> float:
    """Median milliseconds from posting to seeing it completed."""
    taken = []
    for number in numbers:
        began = time.perf_counter()
        body = {"kind": "erasure", "identifiers": subject(number)}
        made = client.post("/v1/requests", json=body).raise_for_status().json()
        while client.get(f"/v1/requests/{made['id']}").json()["completed_at"] is None:
            time.sleep(0.005)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def by_hand(shop: Path, hook: str, numbers: range) -> float:
    """The same two deletes and one call, without proof, queue or retry: median milliseconds."""
    taken = []
    with sqlite3.connect(shop) as connection, httpx.Client(trust_env=False) as client:
        connection.execute("PRAGMA synchronous=FULL")
        for number in numbers:
            began = time.perf_counter()
            email = f"person{number}@example.com"
            found = connection.execute(
                "SELECT id FROM customer WHERE lower(email) = ?", (email,)
            ).fetchone()
            connection.execute("DELETE FROM purchase WHERE customer_id = ?", found)
            connection.execute("DELETE FROM customer WHERE id = ?", found)
            connection.commit()
            client.post(hook, json={"email": email}).raise_for_status()
            taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def drain(client: httpx.Client, numbers: range) -> float:
    """People per second from posting the batch to all completed."""
    began = time.perf_counter()
    body = {"kind": "erasure", "subjects": [{"identifiers": subject(each)} for each in numbers]}
    batch = client.post("/v1/requests/bulk", json=body).raise_for_status().json()["batch_id"]
    while True:
        by_status = client.get(f"/v1/batches/{batch}").json()["by_status"]
        if by_status.get("completed", 0) == len(numbers):
            return len(numbers) / (time.perf_counter() - began)
        time.sleep(0.01)


def rate(calls: int, call: Callable[[int], httpx.Response]) -> float:
    """Calls per second from 8 threads."""
    with ThreadPoolExecutor(8) as pool:
        began = time.perf_counter()
        for answer in pool.map(call, range(calls)):
            answer.raise_for_status()
        return calls / (time.perf_counter() - began)


def intake_single(client: httpx.Client) -> float:
    def call(number: int) -> httpx.Response:
        body = {
            "kind": "access",
            "identifiers": [{"kind": "user_id", "value": f"single{number}"}],
        }
        return client.post("/v1/requests", json=body)

    return rate(600, call)


def intake_bulk(client: httpx.Client) -> float:
    """Subjects per second, median of three calls of 5 000."""
    rates = []
    for turn in range(3):
        people = [
            {"identifiers": [{"kind": "email", "value": f"bulk{turn}x{each}@example.com"}]}
            for each in range(5000)
        ]
        began = time.perf_counter()
        client.post(
            "/v1/requests/bulk", json={"kind": "access", "subjects": people}
        ).raise_for_status()
        rates.append(5000 / (time.perf_counter() - began))
    return statistics.median(rates)


def memory_mb(process_id: int) -> float:
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def show(what: str, ours: str, bar: str, reference: str = "") -> None:
    print(f"{what:<44}{ours:>14}   {bar:<22}{reference}")


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = f"http://127.0.0.1:{server.server_port}/hook"
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        (directory / "shared").mkdir()
        shop = directory / "shared" / "shop.sqlite"
        url = make_shop(shop)
        with service(directory) as (client, process_id, seconds):
            add_destinations(client, url, hook)
            one_person(client, range(5))
            ours = one_person(client, range(10, 70))
            reference = by_hand(shop, hook, range(100, 160))
            show("what", "ours", "bar", "beside it in the same run")
            show("start to ready", f"{seconds:.2f} s", "<= 2 s")
            show(
                "one person, sql (2 tables) + webhook, p50",
                f"{ours:.0f} ms",
                "<= 150 ms",
                f"by hand {reference:.1f} ms, ratio {ours / reference:.1f}",
            )
            drained = statistics.median(
                drain(client, range(start, start + 200)) for start in (1000, 1200, 1400)
            )
            show(
                "200 people drained",
                f"{drained:.0f} /s",
                ">= 100 /s",
                f"by hand one after the other {1000 / reference:.0f} /s, "
                f"ratio {drained * reference / 1000:.2f}",
            )
            show("memory after the drain", f"{memory_mb(process_id):.0f} MB", "<= 250 MB")
            health = rate(600, lambda _: client.get("/healthz"))
            single = intake_single(client)
            show(
                "intake, single",
                f"{single:.0f} /s",
                ">= 200 /s",
                f"/healthz {health:.0f} /s, ratio {single / health:.2f}",
            )
            show("intake, bulk (subjects)", f"{intake_bulk(client):.0f} /s", ">= 2000 /s, 5000")
    server.shutdown()


if __name__ == "__main__":
    main()
