"""The demo shop's own data: a SQLite database and an archive of events."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.settings import Settings
from app.demo import cast
from app.demo.cast import Customer

_SCHEMA = """
CREATE TABLE customers (
  id INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
  email TEXT NOT NULL UNIQUE, phone TEXT,
  joined_on TEXT NOT NULL);
CREATE TABLE addresses (
  id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers(id),
  street TEXT, postcode TEXT, city TEXT,
  country TEXT);
CREATE TABLE orders (
  id INTEGER PRIMARY KEY, number TEXT NOT NULL UNIQUE,
  customer_id INTEGER REFERENCES customers(id) ON DELETE SET NULL,
  ordered_on TEXT NOT NULL, ship_to TEXT, delivery_note TEXT,
  total_cents INTEGER NOT NULL, vat_cents INTEGER NOT NULL,
  tax_country TEXT NOT NULL);
CREATE TABLE order_items (
  id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL REFERENCES orders(id),
  product TEXT NOT NULL, quantity INTEGER NOT NULL,
  price_cents INTEGER NOT NULL);
CREATE TABLE support_tickets (
  id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers(id),
  opened_on TEXT NOT NULL, subject TEXT,
  message TEXT);
CREATE TABLE newsletter_signups (email TEXT PRIMARY KEY, signed_up_on TEXT NOT NULL);
CREATE TABLE guest_checkouts (
  id INTEGER PRIMARY KEY, guest_id TEXT NOT NULL UNIQUE, email TEXT NOT NULL,
  placed_on TEXT NOT NULL, total_cents INTEGER);
CREATE INDEX addresses_customer ON addresses(customer_id);
CREATE INDEX orders_customer ON orders(customer_id);
CREATE INDEX order_items_order ON order_items(order_id);
CREATE INDEX support_tickets_customer ON support_tickets(customer_id);
CREATE INDEX guest_checkouts_email ON guest_checkouts(email);
"""

_KEEP = "keep:tax records, until 2036"

SQL_SETTINGS: dict[str, Any] = {
    "url": "sqlite:///demo/shop.sqlite",
    "identity_source": True,
    "tables": [
        {
            "name": "customers",
            "match": {"email": "email", "user_id": "user_id"},
            "action": "delete",
        },
        {"name": "addresses", "via": {"customer_id": "customers.id"}, "action": "delete"},
        {
            "name": "orders",
            "via": {"customer_id": "customers.id"},
            "action": "mask",
            "mask": {
                "customer_id": "null",
                "ship_to": "null",
                "delivery_note": "null",
                "number": _KEEP,
                "total_cents": _KEEP,
                "vat_cents": _KEEP,
            },
        },
        {"name": "support_tickets", "via": {"customer_id": "customers.id"}, "action": "delete"},
        {"name": "newsletter_signups", "match": {"email": "email"}, "action": "delete"},
        {"name": "guest_checkouts", "match": {"email": "email"}, "action": "delete"},
    ],
    "lookup": [
        {"table": "customers", "match": {"email": "email"}, "yields": {"user_id": "user_id"}},
        {
            "table": "guest_checkouts",
            "match": {"email": "email"},
            "yields": {"guest_id": "user_id"},
        },
    ],
}
ARCHIVE_SETTINGS: dict[str, Any] = {
    "url": "demo/events",
    "format": "ndjson",
    "match": {"user_id": "user_id"},
}


@dataclass(frozen=True, slots=True)
class Places:
    """Where the demo's files are: below the first directory that destinations may use."""

    root: Path

    @classmethod
    def of(cls, settings: Settings) -> Places:
        return cls(settings.shared_paths[0] / "demo")

    @property
    def shop(self) -> Path:
        return self.root / "shop.sqlite"

    @property
    def events(self) -> Path:
        return self.root / "events"

    @property
    def newsletter(self) -> Path:
        return self.root / "newsletter.sqlite"


def make(places: Places, people: Sequence[Customer], today: dt.date) -> None:
    """A fresh shop and archive; what an interrupted start left behind goes first. Blocking."""
    shutil.rmtree(places.root, ignore_errors=True)
    places.root.mkdir(mode=0o700, parents=True)
    _make_shop(places.shop, people, today)
    _make_events(places.events, people, today)


def _make_shop(path: Path, people: Sequence[Customer], today: dt.date) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(_SCHEMA)
        for number, person in enumerate(people, start=1):
            _enter(database, number, person, today)
        database.executemany(
            "INSERT INTO guest_checkouts (guest_id, email, placed_on, total_cents)"
            " VALUES (?, ?, ?, ?)",
            [
                (f"g-{500 + each}", cast.KITCHEN, _day(today, 4 + each * 5), 4900)
                for each in range(cast.GUESTS)
            ],
        )


def _enter(database: sqlite3.Connection, number: int, person: Customer, today: dt.date) -> None:
    database.execute(
        "INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?)",
        (
            number,
            person.user_id,
            person.name,
            person.email,
            person.phone,
            _day(today, person.joined_days_ago),
        ),
    )
    address = (person.street, person.postcode, person.city, person.country)
    database.execute(
        "INSERT INTO addresses (customer_id, street, postcode, city, country)"
        " VALUES (?, ?, ?, ?, ?)",
        (number, *address),
    )
    for order in person.orders:
        total = sum(quantity * cents for _, quantity, cents in order.items)
        made = database.execute(
            "INSERT INTO orders (number, customer_id, ordered_on, ship_to, delivery_note,"
            " total_cents, vat_cents, tax_country)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                order.number,
                number,
                _day(today, order.days_ago),
                f"{person.name}, {', '.join(address)}",
                order.note,
                total,
                round(total * 7 / 107),
                person.country,
            ),
        )
        database.executemany(
            "INSERT INTO order_items (order_id, product, quantity, price_cents)"
            " VALUES (?, ?, ?, ?)",
            [(made.lastrowid, *item) for item in order.items],
        )
    database.executemany(
        "INSERT INTO support_tickets (customer_id, opened_on, subject, message)"
        " VALUES (?, ?, ?, ?)",
        [
            (number, _day(today, days), subject, message)
            for days, subject, message in person.tickets
        ],
    )
    if person.has_newsletter:
        database.execute(
            "INSERT INTO newsletter_signups VALUES (?, ?)",
            (person.email, _day(today, person.joined_days_ago - 1)),
        )


def _day(today: dt.date, days_ago: int) -> str:
    return (today - dt.timedelta(days=days_ago)).isoformat()


def _make_events(folder: Path, people: Sequence[Customer], today: dt.date) -> None:
    """One file a day; those older than three days are packed, as log rotation does it."""
    folder.mkdir(mode=0o700)
    by_day: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
    for person in people:
        for days_ago, second, name in person.events:
            by_day[days_ago].append((second, person.user_id, name))
    for days_ago, events in by_day.items():
        day = today - dt.timedelta(days=days_ago)
        lines = "".join(_line(day, *event) for event in sorted(events)).encode()
        if days_ago <= 3:
            (folder / f"{day}.ndjson").write_bytes(lines)
        else:
            (folder / f"{day}.ndjson.gz").write_bytes(gzip.compress(lines, mtime=0))


def _line(day: dt.date, second: int, user_id: str, name: str) -> str:
    at = dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(seconds=second)
    return json.dumps({"at": at.isoformat(), "user_id": user_id, "event": name}) + "\n"


# Reading, for the demo's pages. All of it is blocking and quick.


@dataclass(frozen=True, slots=True)
class Overview:
    """The customer list, and the orders that tax law keeps after their customer is gone."""

    customers: list[dict[str, Any]]
    kept_orders: list[dict[str, Any]]
    event_count: int
    file_count: int


def overview(places: Places) -> Overview:
    counts: dict[str, int] = defaultdict(int)
    paths = _event_files(places)
    for path in paths:
        for event in _events_in(path):
            counts[event["user_id"]] += 1
    with closing(_open(places.shop)) as database:
        customers = _rows(
            database,
            "SELECT c.id, c.user_id, c.name, c.email, a.city, a.country,"
            " n.email IS NOT NULL AS has_newsletter,"
            " (SELECT count(*) FROM orders o WHERE o.customer_id = c.id) AS order_count"
            " FROM customers c LEFT JOIN addresses a ON a.customer_id = c.id"
            " LEFT JOIN newsletter_signups n ON n.email = c.email ORDER BY c.name",
        )
        kept = _rows(
            database,
            "SELECT number, ordered_on, total_cents, vat_cents, tax_country FROM orders"
            " WHERE customer_id IS NULL ORDER BY ordered_on",
        )
    for each in customers:
        each["event_count"] = counts[each["user_id"]]
    return Overview(customers, kept, sum(counts.values()), len(paths))


@dataclass(frozen=True, slots=True)
class Dossier:
    """Everything the shop and its archive hold about one customer."""

    customer: dict[str, Any]
    addresses: list[dict[str, Any]]
    orders: list[dict[str, Any]]
    tickets: list[dict[str, Any]]
    events: list[dict[str, Any]]
    is_on_newsletter: bool


def dossier(places: Places, customer_id: int) -> Dossier | None:
    """None when there is no such customer (any more)."""
    with closing(_open(places.shop)) as database:
        found = _rows(database, "SELECT * FROM customers WHERE id = ?", customer_id)
        if not found:
            return None
        customer = found[0]
        addresses = _rows(database, "SELECT * FROM addresses WHERE customer_id = ?", customer_id)
        orders = _rows(
            database,
            "SELECT * FROM orders WHERE customer_id = ? ORDER BY ordered_on DESC",
            customer_id,
        )
        tickets = _rows(
            database,
            "SELECT * FROM support_tickets WHERE customer_id = ? ORDER BY opened_on DESC",
            customer_id,
        )
        signup = _rows(
            database, "SELECT 1 FROM newsletter_signups WHERE email = ?", customer["email"]
        )
    events = [
        event | {"file": path.name}
        for path in _event_files(places)
        for event in _events_in(path)
        if event["user_id"] == customer["user_id"]
    ]
    events.sort(key=lambda each: each["at"], reverse=True)
    return Dossier(customer, addresses, orders, tickets, events, bool(signup))


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
    database.row_factory = sqlite3.Row
    return database


def _rows(database: sqlite3.Connection, query: str, *values: object) -> list[dict[str, Any]]:
    return [dict(row) for row in database.execute(query, values)]


def _event_files(places: Places) -> list[Path]:
    paths = places.events.iterdir() if places.events.is_dir() else ()
    return sorted(each for each in paths if each.name.endswith((".ndjson", ".ndjson.gz")))


def _events_in(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return [json.loads(line) for line in content.splitlines()]
