"""Stories of whoever keeps it running: each process says how it is."""

from __future__ import annotations

import httpx
import pytest

from tests.journeys.instance import Instance, wait_for

pytestmark = pytest.mark.slow

PERSON = "bob.subject@customer.example"


def test_the_process_that_delivers_shows_its_health_and_its_metrics(instance: Instance) -> None:
    made = instance.api.post(
        "/v1/requests",
        json={"kind": "erasure", "identifiers": [{"kind": "email", "value": PERSON}]},
    ).json()
    instance.settled(made["id"])

    with httpx.Client(base_url=instance.watched_at(), trust_env=False) as worker:
        ready = wait_for(lambda: _ready(worker), "the worker to be ready")
        assert set(ready.json()["checks"].values()) == {"ok"}
        text = worker.get("/metrics").text
    assert "\nquittance_queues_due 0.0\n" in text
    assert 'quittance_alerts_open{kind="deadline_missed"} 0.0' in text
    assert PERSON not in text
    assert made["id"] not in text


def _ready(worker: httpx.Client) -> httpx.Response | None:
    try:
        answer = worker.get("/readyz")
    except httpx.TransportError:
        return None
    return answer if answer.status_code == 200 else None
