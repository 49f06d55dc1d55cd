"""Stories of programs: erasure by API, from an empty instance to a receipt checked offline."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NewDatabase
from tests.journeys import chinook
from tests.journeys.instance import Instance, wait_for
from tests.journeys.receiver import Receiver

pytestmark = pytest.mark.slow

LUIS, LEONIE = "luisg@embraer.com.br", "leonekohler@surfeu.de"
BILLING = ("Address", "City", "State", "Country", "PostalCode")
PERSON = ("Company", "Address", "City", "State", "Country", "PostalCode", "Phone", "Fax")


def chinook_settings(url: str, name: Callable[[str], str]) -> dict[str, Any]:
    """Mask the person in Customer and the billing address in Invoice; keep what tax law wants."""
    customer, invoice, key = name("Customer"), name("Invoice"), name("CustomerId")
    erased = {
        name("FirstName"): "constant:Erased",
        name("LastName"): "constant:Erased",
        name("Email"): "format",
    }
    return {
        "url": url,
        "tables": [
            {
                "name": customer,
                "match": {name("Email"): "email"},
                "action": "mask",
                "mask": erased | {name(each): "null" for each in PERSON},
            },
            {
                "name": invoice,
                "via": {key: f"{customer}.{key}"},
                "action": "mask",
                "mask": {name(f"Billing{each}"): "null" for each in BILLING}
                | {name("Total"): "keep:tax records, until 2036"},
            },
        ],
    }


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def store(request: pytest.FixtureRequest, embedded: Instance) -> tuple[str, Callable[[str], str]]:
    """A loaded Chinook and how it spells names."""
    if request.param == "sqlite":
        return chinook.load_sqlite(embedded.shared / "chinook.sqlite"), str
    new_database: NewDatabase = request.getfixturevalue("new_postgres_database")
    return chinook.load_postgres(new_database(None)), chinook.snake


def test_two_customers_leave_no_trace_in_chinook_and_nobody_else_is_touched(
    embedded: Instance, store: tuple[str, Callable[[str], str]], tmp_path: Path
) -> None:
    url, name = store
    before = chinook.everything(url)
    customers = {row[0]: row for row in before[name("Customer")] if {LUIS, LEONIE} & set(row)}
    assert len(customers) == 2
    api = embedded.api
    made = api.post(
        "/v1/destinations",
        json={"name": "Chinook", "connector": "sql", "settings": chinook_settings(url, name)},
    )
    assert made.status_code == 201, made.text
    assert made.json()["settings"]["url"] == {"set": True}
    assert api.post(f"/v1/destinations/{made.json()['id']}/test").json()["ok"]
    luis = {"identifiers": [{"kind": "email", "value": LUIS}]}
    preview = api.post(f"/v1/destinations/{made.json()['id']}/preview", json=luis)
    assert preview.json() == {"counts": {name("Customer"): 1, name("Invoice"): 7}}
    assert chinook.everything(url) == before

    for email in (LUIS, LEONIE):
        asked = api.post(
            "/v1/requests",
            json={"kind": "erasure", "identifiers": [{"kind": "email", "value": email}]},
        )
        assert asked.status_code == 201, asked.text
        done = embedded.settled(asked.json()["id"])
        assert (done["status"], done["outcome"]) == ("completed", "complete_with_residuals")
        assert [each["assurance"] for each in done["deliveries"]] == ["verified_absent"]
        _check_receipt(embedded, done["id"], email, tmp_path)

    after = chinook.everything(url)
    assert chinook.is_sound(url)
    _assert_gone(customers, after, name)
    _assert_others_untouched(before, after, set(customers), name)


def _check_receipt(instance: Instance, request_id: str, email: str, directory: Path) -> None:
    """The receipt verifies offline, speaks of this person and of nobody else, and holds no
    identifier.
    """
    answer = instance.api.get(
        f"/v1/requests/{request_id}/receipt", headers={"Accept": "application/json"}
    ).json()
    (directory / "receipt.jws").write_text(answer["receipt"])
    (directory / "jwks.json").write_text(instance.visitor.get("/.well-known/jwks.json").text)
    opening = answer["openings"][0]["opening"]
    arguments = [
        "receipt",
        "verify",
        str(directory / "receipt.jws"),
        "--jwks",
        str(directory / "jwks.json"),
        "--json",
    ]
    for who, code in ((email, 0), ("somebody@example.com", 1)):
        checked = instance.quittance(
            *arguments, "--opening", opening, "--identifier", f"email:{who}", check=False
        )
        assert checked.returncode == code, checked.stdout + checked.stderr
    receipt = json.loads(checked.stdout)["receipt"]
    assert receipt["outcome"] == "complete_with_residuals"
    assert {each["assurance"] for each in receipt["destinations"]} == {"verified_absent"}
    assert [each["until"] for each in receipt["residuals"]] == ["2036"]
    assert email not in checked.stdout


def _assert_gone(
    customers: dict[int, tuple[Any, ...]], after: chinook.Rows, name: Callable[[str], str]
) -> None:
    """Nothing that named the two is left in any text column of their rows, or of any row as far as
    it was theirs alone.
    """
    own = {value for row in customers.values() for value in row[1:] if isinstance(value, str)}
    for table, column in ((name("Customer"), 0), (name("Invoice"), 1)):
        for row in after[table]:
            if row[column] in customers:
                assert not own & {value for value in row if isinstance(value, str)}
    unique = {value for value in own if "@" in value or sum(each.isdigit() for each in value) > 5}
    left = {
        value for rows in after.values() for row in rows for value in row if isinstance(value, str)
    }
    assert not unique & left


def _assert_others_untouched(
    before: chinook.Rows, after: chinook.Rows, ids: set[int], name: Callable[[str], str]
) -> None:
    owner = {name("Customer"): 0, name("Invoice"): 1}
    for table, rows in before.items():
        column = owner.get(table)
        others = [row for row in rows if column is None or row[column] not in ids]
        assert [row for row in after[table] if column is None or row[column] not in ids] == others
        assert len(after[table]) == len(rows)
    amounts = {row[0]: row[-1] for row in before[name("Invoice")]}
    assert {row[0]: row[-1] for row in after[name("Invoice")]} == amounts


def make_shop(path: Path) -> str:
    """A small generated shop: customers with orders."""
    with sqlite3.connect(path) as connection:
        connection.executescript("""
            CREATE TABLE customer (
                id INTEGER PRIMARY KEY, user_id TEXT UNIQUE, email TEXT, name TEXT
            );
            CREATE TABLE purchase (
                id INTEGER PRIMARY KEY,
                customer_id INTEGER NOT NULL REFERENCES customer,
                cents INTEGER
            );
        """)
        connection.executemany(
            "INSERT INTO customer VALUES (?, ?, ?, ?)",
            [
                (each, f"u{each}", f"person{each}@example.com", f"Person {each}")
                for each in range(40)
            ],
        )
        connection.executemany(
            "INSERT INTO purchase VALUES (?, ?, ?)",
            [(each, each % 40, each * 100) for each in range(200)],
        )
    return f"sqlite:///{path}"


def shop_settings(url: str) -> dict[str, Any]:
    return {
        "url": url,
        "tables": [
            {
                "name": "customer",
                "match": {"email": "email", "user_id": "user_id"},
                "action": "delete",
            },
            {"name": "purchase", "via": {"customer_id": "customer.id"}, "action": "delete"},
        ],
        "lookup": [
            {"table": "customer", "match": {"email": "email"}, "yields": {"user_id": "user_id"}}
        ],
        "identity_source": True,
    }


def make_archive(directory: Path) -> Path:
    directory.mkdir()
    lines = [
        json.dumps({"event": "seen", "user": {"id": f"u{each % 40}"}, "n": each}) + "\n"
        for each in range(400)
    ]
    (directory / "a.ndjson").write_text("".join(lines[:200]))
    (directory / "b.ndjson.gz").write_bytes(gzip.compress("".join(lines[200:]).encode(), mtime=0))
    (directory / "c.ndjson").write_text('{"user": {"id": "nobody"}}\n')
    return directory


def archived_users(directory: Path) -> list[str]:
    text = (directory / "a.ndjson").read_text() + gzip.decompress(
        (directory / "b.ndjson.gz").read_bytes()
    ).decode()
    return [json.loads(line)["user"]["id"] for line in text.splitlines()]


def test_one_email_reaches_database_archive_webhook_and_a_human(
    instance: Instance, receiver: Receiver
) -> None:
    shop = make_shop(instance.shared / "shop.sqlite")
    archive = make_archive(instance.shared / "events")
    untouched = (archive / "c.ndjson").stat()
    api = instance.api
    secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
    made = {}
    for name, connector, settings in (
        ("Shop", "sql", shop_settings(shop)),
        (
            "Events",
            "archive",
            {"url": str(archive), "format": "ndjson", "match": {"user.id": "user_id"}},
        ),
        ("Newsletter", "webhook", {"url": receiver.url, "signing_secret": secret}),
    ):
        answer = api.post(
            "/v1/destinations", json={"name": name, "connector": connector, "settings": settings}
        )
        assert answer.status_code == 201, answer.text
        made[name] = answer.json()["id"]

    asked = api.post(
        "/v1/requests",
        json={
            "kind": "erasure",
            "identifiers": [{"kind": "email", "value": "Person7@Example.com"}],
        },
    ).json()
    done = instance.settled(asked["id"])

    assert (done["status"], done["outcome"]) == ("completed", "complete"), done
    states = {each["destination"]["name"]: each for each in done["deliveries"]}
    assert states["Shop"]["assurance"] == states["Events"]["assurance"] == "verified_absent"
    assert states["Newsletter"]["assurance"] == "confirmed"
    assert states["Shop"]["settled_at"] >= max(
        states["Events"]["settled_at"], states["Newsletter"]["settled_at"]
    )
    with sqlite3.connect(instance.shared / "shop.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM customer").fetchone() == (39,)
        assert connection.execute("SELECT count(*) FROM purchase").fetchone() == (195,)
    users = archived_users(archive)
    assert len(users) == 390
    assert "u7" not in users
    assert (archive / "c.ndjson").stat().st_mtime_ns == untouched.st_mtime_ns
    assert receiver.is_signed_with(secret)
    (call,) = receiver.calls
    (person,) = call.body["people"]
    assert call.body["type"] == "quittance.erase"
    assert call.headers["idempotency-key"] == call.body["call_id"] == call.headers["webhook-id"]
    assert {(each["kind"], each["value"]) for each in person["identifiers"]} == {
        ("email", "person7@example.com"),
        ("user_id", "u7"),
    }
    assert "person7@example.com" not in instance.logs().lower()


def test_a_killed_instance_finishes_what_it_acknowledged(
    instance: Instance, receiver: Receiver
) -> None:
    shop = make_shop(instance.shared / "shop.sqlite")
    receiver.delay = 0.3
    for name, connector, settings in (
        ("Shop", "sql", shop_settings(shop)),
        ("Hook", "webhook", {"url": receiver.url}),
    ):
        answer = instance.api.post(
            "/v1/destinations", json={"name": name, "connector": connector, "settings": settings}
        )
        assert answer.status_code == 201, answer.text
    subjects = [
        {"identifiers": [{"kind": "email", "value": f"person{each}@example.com"}]}
        for each in range(40)
    ]
    batch = instance.api.post(
        "/v1/requests/bulk", json={"kind": "erasure", "subjects": subjects}
    ).json()
    assert batch["accepted"] == 40
    wait_for(lambda: receiver.calls or None, "the first call")

    instance.kill()
    receiver.delay = 0.0
    instance.start()

    def completed() -> bool:
        by_status = instance.api.get(f"/v1/batches/{batch['batch_id']}").json()["by_status"]
        return bool(by_status == {"completed": 40})

    wait_for(completed, "all forty to complete after the kill")
    with sqlite3.connect(instance.shared / "shop.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM customer").fetchone() == (0,)
    assert receiver.repeats_carry_the_same_key()
    assert len(receiver.people()) == 40


def test_a_human_task_holds_the_request_until_it_is_ticked_off(embedded: Instance) -> None:
    api = embedded.api
    api.post(
        "/v1/destinations",
        json={
            "name": "Paper",
            "connector": "manual",
            "settings": {"instructions": "Shred the file."},
        },
    ).raise_for_status()
    asked = api.post(
        "/v1/requests",
        json={"kind": "erasure", "identifiers": [{"kind": "user_id", "value": "u1"}]},
    ).json()

    def waits() -> bool:
        found = api.get(f"/v1/requests/{asked['id']}").json()
        return [each["state"] for each in found["deliveries"]] == ["awaiting_confirmation"]

    wait_for(waits, "the task to be open")
    interim = api.get(
        f"/v1/requests/{asked['id']}/receipt", headers={"Accept": "application/json"}
    ).json()
    assert interim["openings"]
    assert api.post(f"/v1/requests/{asked['id']}/cancel").json()["status"] == "cancelled"


def test_a_repeat_with_the_same_key_is_the_same_request(embedded: Instance) -> None:
    body = {"kind": "erasure", "identifiers": [{"kind": "user_id", "value": "u1"}]}
    first = embedded.api.post("/v1/requests", json=body, headers={"Idempotency-Key": "k1"})
    again = embedded.api.post("/v1/requests", json=body, headers={"Idempotency-Key": "k1"})
    other = embedded.api.post(
        "/v1/requests", json=body | {"kind": "opt_out"}, headers={"Idempotency-Key": "k1"}
    )
    assert first.json() == again.json()
    assert other.status_code == 422
    assert other.headers["content-type"] == "application/problem+json"
    assert len(embedded.api.get("/v1/requests").json()["items"]) == 1


def test_a_second_start_says_who_holds_the_data_directory(embedded: Instance) -> None:
    port = embedded.base_url.rpartition(":")[2]
    second = embedded.quittance("up", "--port", port, check=False)
    assert second.returncode == 1
    assert f"already in use by process {embedded.processes[0].pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert embedded.visitor.get("/readyz").status_code == 200
