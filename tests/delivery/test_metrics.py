"""What the engine counts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import httpx
import pytest
from prometheus_client import REGISTRY

from app.core.broker import Hints, make_celery
from app.core.settings import Settings
from app.delivery import metrics
from app.delivery.states import Assurance, State, Step
from app.worker import health_app
from tests.running import Service

NOW = dt.datetime(2026, 11, 25, 10, tzinfo=dt.UTC)
DONE = Step(State.SUCCEEDED, "done", Assurance.CONFIRMED)


def again(reason: str) -> Step:
    return Step(State.AWAITING_RETRY, None, Assurance.REQUESTED, reason, NOW)


def growth(of: str, act: Callable[[], object], **labels: str) -> float:
    """By how much a sample of this process grew; others may have counted before."""
    before = REGISTRY.get_sample_value(f"quittance_{of}", labels) or 0.0
    act()
    return (REGISTRY.get_sample_value(f"quittance_{of}", labels) or 0.0) - before


def test_a_commit_counts_ends_retries_and_the_attempt_that_succeeded() -> None:
    polled = Step(State.AWAITING_CONFIRMATION, None, Assurance.ACKNOWLEDGED, due_at=NOW, job="j")
    given_up = Step(State.ARCHIVED, "expired", Assurance.REQUESTED, "timeout")
    steps = [(DONE, 1), (DONE, 4), (again("timeout"), 1), (polled, 1), (given_up, 9)]

    def act() -> None:
        metrics.recorded(steps)

    assert growth("deliveries_total", act, state="succeeded", detail="done") == 2
    assert growth("deliveries_total", act, state="archived", detail="expired") == 1
    assert growth("deliveries_total", act, state="awaiting_confirmation", detail="") == 0
    assert growth("delivery_retries_total", act, reason="timeout") == 1
    assert growth("delivery_attempts_count", act) == 2
    assert growth("delivery_attempts_bucket", act, le="3.0") == 1
    assert growth("deliveries_per_commit_sum", act) == 5
    assert growth("deliveries_per_commit_count", act) == 1


def test_a_connectors_own_words_do_not_become_labels() -> None:
    steps = [(again(f"code_{number}"), 1) for number in range(50)] + [(again(""), 1)]
    assert growth("delivery_retries_total", lambda: metrics.recorded(steps), reason="other") == 51


def test_a_commit_without_deliveries_counts_nothing() -> None:
    assert growth("deliveries_per_commit_count", lambda: metrics.recorded([])) == 0


def test_times_are_in_seconds_and_never_negative() -> None:
    assert growth("call_seconds_sum", lambda: metrics.called(1500)) == pytest.approx(1.5)
    lag = growth("dispatch_lag_seconds_sum", lambda: metrics.leased(dt.timedelta(seconds=2)))
    assert lag == pytest.approx(2)
    backwards = dt.timedelta(seconds=-2)
    assert growth("dispatch_lag_seconds_sum", lambda: metrics.leased(backwards)) == 0
    assert growth("dispatch_lag_seconds_count", lambda: metrics.leased(backwards)) == 1


def test_trouble_is_counted() -> None:
    assert growth("leases_fenced_out_total", lambda: metrics.fenced_out(3)) == 3
    assert growth("record_failures_total", metrics.record_failed) == 1


@pytest.mark.slow
def test_a_hint_that_the_broker_does_not_take_is_counted() -> None:
    away = Settings(broker_url="redis://127.0.0.1:1/0", database_url="postgresql://x/y")
    hints = Hints(make_celery(away, ["dispatch"], lambda _: None))
    assert growth("hints_dropped_total", lambda: hints._send("dispatch")) == 1
    hints.close()


@pytest.mark.parametrize(("host", "key", "status"), [
    ("127.0.0.1", None, 200), ("192.0.2.1", None, 401), ("192.0.2.1", "writer", 404),
    ("192.0.2.1", "watcher", 200),
])  # fmt: skip
async def test_a_workers_metrics_need_a_key_where_others_can_reach_them(
    embedded: Service, host: str, key: str | None, status: int
) -> None:
    await embedded.add_key("writer", "requests:write")
    await embedded.add_key("watcher", "ops:read")
    app = health_app(embedded.runtime)
    app.state.settings = embedded.settings.model_copy(update={"host": host})
    headers = {"authorization": f"Bearer {embedded.keys[key]}"} if key else {}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
        assert (await client.get("/metrics", headers=headers)).status_code == status
        assert (await client.get("/healthz")).status_code == 200
