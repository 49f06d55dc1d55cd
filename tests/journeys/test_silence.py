"""A destination that takes connections and never says a word."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.journeys.instance import Instance, wait_for
from tests.journeys.receiver import Receiver


def state_of(instance: Instance, request_id: str, name: str) -> dict[str, Any]:
    found = instance.api.get(f"/v1/requests/{request_id}").json()["deliveries"]
    mine: dict[str, Any] = next(
        (each for each in found if each["destination"]["name"] == name), {"state": "unplanned"}
    )
    return mine


@pytest.mark.slow
def test_wrk_011_half_open_connections_meet_a_deadline_and_the_work_goes_on(
    embedded: Instance, receiver: Receiver
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # the kernel accepts, nobody reads
    port = silent.getsockname()[1]
    ids = {}
    for name, url in (("Silent", f"http://127.0.0.1:{port}/hook"), ("Lively", receiver.url)):
        made = embedded.api.post(
            "/v1/destinations",
            json={"name": name, "connector": "webhook", "settings": {"url": url}},
        )
        assert made.status_code == 201, made.text
        ids[name] = made.json()["id"]
    body = {"kind": "erasure", "identifiers": [{"kind": "user_id", "value": "u1"}]}
    request_id = embedded.api.post("/v1/requests", json=body).json()["id"]

    wait_for(
        lambda: state_of(embedded, request_id, "Lively")["state"] == "succeeded",
        "the lively one, which must not wait for the silent one",
        seconds=15,
    )
    assert state_of(embedded, request_id, "Silent")["state"] == "awaiting_scheduling"
    wait_for(
        lambda: state_of(embedded, request_id, "Silent")["state"] == "awaiting_retry",
        "the deadline of the silent one",
    )
    assert state_of(embedded, request_id, "Silent")["reason"] == "timeout"

    silent.close()
    mended = Receiver(port)
    try:
        embedded.api.post(f"/v1/queues/{ids['Silent']}/flush").raise_for_status()
        assert embedded.settled(request_id)["outcome"] == "complete"
        assert len(mended.people()) == 1
    finally:
        mended.close()
