"""The naive competitor: one Celery task per delivery, a synchronous client, a receipt row.

What a capable programmer writes in an afternoon: no fairness, no limits, no history, no keys.
Worker: ``python -m celery -A benchmarks.engine.naive worker`` with ``NAIVE_BROKER`` and
``NAIVE_DATABASE``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache

import httpx
import psycopg
from celery import Celery

QUEUE = "naive"
RECEIPTS = "CREATE TABLE naive_receipt (id bigserial PRIMARY KEY, delivery text, status int, at timestamptz DEFAULT now())"  # noqa: E501

app = Celery("naive", broker=os.environ.get("NAIVE_BROKER", "memory://"), backend=None)
app.conf.update(
    task_acks_late=True,
    task_default_queue=QUEUE,
    task_ignore_result=True,
    worker_enable_remote_control=False,
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
)


@cache
def client() -> httpx.Client:
    return httpx.Client(timeout=10, trust_env=False)


@cache
def database() -> psycopg.Connection:
    return psycopg.connect(os.environ["NAIVE_DATABASE"], autocommit=True)


def deliver(delivery: str, url: str) -> None:
    """Post, then write down how it went."""
    headers = {"idempotency-key": delivery}
    try:
        answer = client().post(url, json={"email": "person@customer.example"}, headers=headers)
        status = answer.status_code
    except httpx.HTTPError:
        status = 0
    database().execute(
        "INSERT INTO naive_receipt (delivery, status) VALUES (%s, %s)", (delivery, status)
    )


task = app.task(deliver, name="deliver")


def publish(broker_url: str, urls: Iterable[str]) -> int:
    """Put one task per URL into the broker; returns how many."""
    number = 0
    with app.connection_for_write(broker_url) as connection:
        producer = app.amqp.Producer(connection)
        for number, url in enumerate(urls, 1):
            task.apply_async((f"delivery-{number}", url), producer=producer)
    return number
