"""Two people for many: who asks for a large bulk erasure cannot approve it alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.journeys.instance import Embedded, wait_for


@pytest.mark.slow
def test_api_021_who_asks_for_many_cannot_approve_them_alone(tmp_path: Path) -> None:
    instance = Embedded(tmp_path / "data", {"QUITTANCE_BULK_APPROVAL_ABOVE": "2"})
    try:
        instance.start()
        made = instance.quittance(
            "key", "create", "--name", "bob", "--scope", "requests:write", "--json"
        )
        bob = {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}
        people = [{"identifiers": [{"kind": "user_id", "value": f"u{each}"}]} for each in range(3)]
        body = {"kind": "erasure", "subjects": people}
        batch = instance.api.post("/v1/requests/bulk", json=body).json()["batch_id"]

        assert _statuses(instance, batch) == {"awaiting_approval": 3}
        alone = instance.api.post(f"/v1/batches/{batch}/approve")
        assert (alone.status_code, alone.headers["content-type"]) == (
            403,
            "application/problem+json",
        )
        assert _statuses(instance, batch) == {"awaiting_approval": 3}
        one = instance.api.get(f"/v1/requests?batch_id={batch}").json()["items"][0]["id"]
        steps: tuple[tuple[str, dict[str, str] | None, int], ...] = (
            ("hold", {"reason": "a way round?"}, 200),
            ("release", None, 200),
            ("approve", None, 403),
        )
        for verb, given, status in steps:
            answer = instance.api.post(f"/v1/requests/{one}/{verb}", json=given)
            assert answer.status_code == status, answer.text
        assert instance.api.post(f"/v1/batches/{batch}/approve", headers=bob).status_code == 200
        wait_for(lambda: _statuses(instance, batch) == {"completed": 3}, "the batch to be done")

        few = {"kind": "erasure", "subjects": people[:2]}
        small = instance.api.post("/v1/requests/bulk", json=few).json()["batch_id"]
        wait_for(lambda: _statuses(instance, small) == {"completed": 2}, "the small one")
    finally:
        instance.kill()
        instance.disconnect()


def _statuses(instance: Embedded, batch: str) -> dict[str, int]:
    found: dict[str, int] = instance.api.get(f"/v1/batches/{batch}").json()["by_status"]
    return found
