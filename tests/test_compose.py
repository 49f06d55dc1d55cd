"""The distributed form as shipped: its shape, checked without a container engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from app.core.settings import Settings

ROOT = Path(__file__).parents[1]
ROLES = ("migrate", "serve", "worker", "scheduler")
REQUIRED = {
    "QUITTANCE_DATABASE_URL",
    "QUITTANCE_KEYSTORE_URL",
    "QUITTANCE_BROKER_URL",
    "QUITTANCE_BASE_URL",
    "QUITTANCE_SMTP_URL",
    "QUITTANCE_MASTER_KEY_FILE",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return parsed


def test_one_image_plays_every_role_beside_postgres_and_redis(compose: dict[str, Any]) -> None:
    services = compose["services"]

    assert set(services) == {"postgres", "redis", *ROLES}
    assert {services[role]["image"] for role in ROLES} == {"quittance:latest"}
    assert [services[role]["command"] for role in ROLES] == [[role] for role in ROLES]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_the_settings_it_requires_and_no_unknown_ones(
    compose: dict[str, Any], role: str
) -> None:
    given = set(compose["services"][role]["environment"])

    assert given >= REQUIRED
    assert {name.removeprefix("QUITTANCE_").lower() for name in given} <= set(Settings.model_fields)


def test_the_key_store_is_a_database_of_its_own_that_is_created(compose: dict[str, Any]) -> None:
    environment = compose["services"]["serve"]["environment"]
    main, keys = (
        urlsplit(environment[name]).path.strip("/")
        for name in ("QUITTANCE_DATABASE_URL", "QUITTANCE_KEYSTORE_URL")
    )

    assert main == compose["services"]["postgres"]["environment"]["POSTGRES_DB"]
    assert keys != main
    assert f"CREATE DATABASE {keys}" in compose["configs"]["keystore.sql"]["content"]


def test_no_password_is_written_down(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|KEY_FILE", variable):
                assert str(value).startswith("/run/secrets/"), f"{name}: {variable}"
            if not str(value).startswith("${"):
                assert urlsplit(str(value)).password is None, f"{name}: {variable}"
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())


def test_nothing_is_published_beyond_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]

    assert ports == ["127.0.0.1:8321:8321"]


def test_the_worker_is_asked_where_it_answers(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    port = worker["environment"]["QUITTANCE_WORKER_METRICS_PORT"]

    assert f"127.0.0.1:{port}/readyz" in worker["healthcheck"]["test"][-1]


def test_the_image_is_hashed_unprivileged_and_watched() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()

    assert "--require-hashes -r requirements.lock" in dockerfile
    assert dockerfile.index("USER quittance") < dockerfile.index("ENTRYPOINT")
    assert "/readyz" in dockerfile.partition("HEALTHCHECK")[2]
