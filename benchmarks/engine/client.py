"""The way out alone: ``python -m benchmarks.engine.client URL CONCURRENCY`` posts until stopped.

The very client the product calls destinations with, the same body and headers as its webhook
connector, and nothing else: no database, no queue, no keys.
"""

from __future__ import annotations

import asyncio
import json
import sys
from ipaddress import ip_network
from itertools import count

import httpx

from app.core.ids import new_id
from app.core.outbound import Outbound, Policy
from benchmarks.engine.loops import run

BODY = json.dumps(
    {
        "type": "quittance.erase",
        "call_id": new_id("call"),
        "people": [
            {
                "delivery_id": new_id("dlv"),
                "identifiers": [{"kind": "email", "value": "person@customer.example"}],
            }
        ],
    }
).encode()


async def post_forever(urls: list[str], concurrency: int) -> None:
    outbound = Outbound(Policy((ip_network("127.0.0.0/8"),)), connections=concurrency)
    numbers, known = count(), [httpx.URL(each) for each in urls]

    async def post() -> None:
        while True:
            number = next(numbers)
            headers = {"content-type": "application/json", "idempotency-key": f"call_{number}"}
            url = known[number % len(known)]
            answer = await outbound.http.post(url, content=BODY, headers=headers)
            answer.raise_for_status()

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(post())


if __name__ == "__main__":
    run(post_forever(sys.argv[2:], int(sys.argv[1])))
