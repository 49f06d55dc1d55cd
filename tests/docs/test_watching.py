"""The page about watching names every metric and every alert, and none that is not there."""

from __future__ import annotations

import re

import yaml
from prometheus_client import REGISTRY
from prometheus_client.registry import CollectorRegistry

from app.core import broker, ops
from app.core.db import Database
from app.delivery import metrics
from app.delivery.gauges import Gauges
from app.notifications.alerts import Kind
from tests.docs.markdown import ROOT

PAGE = (ROOT / "docs" / "how-to" / "watch-it.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \|([^|]*)\|([^|]+)\|$", re.M)
SUFFIXES = {"counter": "_total"}
COUNTING = (broker, metrics, ops)
"""Modules whose import registers what a process counts."""


def registered(registry: CollectorRegistry) -> dict[str, tuple[str, ...]]:
    """Our metrics by the name that is shown, with their labels."""
    found = {}
    for collector in list(registry._collector_to_names):
        for family in collector.collect():
            if family.name.startswith("quittance_"):
                labels: tuple[str, ...] = collector._labelnames  # type: ignore[attr-defined]
                found[family.name + SUFFIXES.get(family.type, "")] = tuple(labels)
    return found


async def test_every_metric_is_on_the_page_with_its_labels_and_no_other_is() -> None:
    gauges = Gauges(Database("sqlite+aiosqlite://")).registry
    known = registered(REGISTRY) | registered(gauges)
    documented = {
        name: tuple(re.findall(r"`(\w+)`", labels))
        for name, labels, _ in ROW.findall(PAGE)
        if name.startswith("quittance_")
    }
    assert documented == known


def test_no_label_can_name_a_person_a_site_or_a_workspace() -> None:
    labels = {label for each in registered(REGISTRY).values() for label in each}
    assert labels <= {"method", "route", "status", "state", "detail", "reason"}


def test_every_alert_is_on_the_page() -> None:
    table = PAGE.partition("| alert |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.M) == list(Kind)


def test_the_rules_ask_for_metrics_that_are_there() -> None:
    documents = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]
    rules = documents[1]["groups"][0]["rules"]
    assert len(rules) == 4
    named = {name for rule in rules for name in re.findall(r"quittance_\w+", rule["expr"])}
    assert named
    assert named <= {name for name, _, _ in ROW.findall(PAGE)}
    kinds = re.findall(r'kind=~"([^"]+)"', rules[0]["expr"])
    assert [kind for kind in Kind if re.fullmatch(kinds[0], kind)] == [
        Kind.DEADLINE_NEAR,
        Kind.DEADLINE_MISSED,
        Kind.DELIVERY_ARCHIVED,
    ]
