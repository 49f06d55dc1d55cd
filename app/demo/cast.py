"""The invented people of the demo shop and what the shop knows of them; the same on every machine.

All addresses end in example.com, .org or .net (RFC 2606): nobody real can be meant, or written to.
"""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass

NAMES = (
    "Amara Okafor", "Jonas Lindqvist", "Priya Raman", "Mateo Herrera", "Hanna Weiss",
    "Youssef Haddad", "Ingrid Solberg", "Tomasz Zielinski", "Chiara Bianchi", "Liam Gallagher",
    "Sofia Almeida", "Kenji Mori", "Elif Kaya", "Noah Fischer", "Camille Laurent",
    "Dario Conti", "Freya Jensen", "Ravi Menon", "Lucie Moreau", "Oskar Brandt",
    "Nadia Petrova", "Felipe Duarte", "Greta Holm", "Samuel Osei", "Marta Kowalska",
    "Bruno Keller", "Yuki Tanaka", "Leila Farahani", "Emil Novak", "Clara Vogt",
    "Diego Fuentes", "Anouk de Vries", "Tariq Aziz", "Ronja Eklund", "Paul Schneider",
    "Ines Carvalho", "Mikael Virtanen", "Zara Hussain", "Henrik Dahl", "Lotte Peeters",
    "Andrei Popescu", "Maya Stern", "Gabriel Rossi", "Selin Demir", "Victor Lefebvre",
    "Aoife Byrne", "Karim Benali", "Johanna Lang", "Pedro Nogueira", "Astrid Berg",
    "Rohan Iyer", "Nina Hoffmann", "Luca Ferrari", "Eszter Nagy", "Daniel Craig-Moss",
    "Mina Kim", "Theo Papadakis", "Valentina Cruz", "Ole Petersen", "Rosa Winkler",
)  # fmt: skip
"""Customers of today."""

FORMER = (
    "Bela Horvath", "Judith Kranz", "Marcus Webb", "Adele Fontaine", "Nils Aasen",
    "Carmen Vidal", "Gregor Thoma", "Stella Ngugi", "Rita Sandoval",
)  # fmt: skip
"""Customers whose erasure lies in the demo's past: they are entered, and then really erased."""

KITCHEN = "orders@example.org"
"""An office kitchen that always checked out as a guest: one address, many customer numbers."""
GUESTS = 57

_STREETS = (
    "Lindenstrasse", "Rue des Martyrs", "Via Torino", "Storgatan", "Kastanienallee",
    "Calle Luna", "Prinsengracht", "Mill Lane", "Rua das Flores", "Sonnenallee",
)  # fmt: skip
_CITIES = (
    ("10115", "Berlin", "DE"), ("75009", "Paris", "FR"), ("20123", "Milano", "IT"),
    ("411 07", "Göteborg", "SE"), ("8004", "Zürich", "CH"), ("28012", "Madrid", "ES"),
    ("1016", "Amsterdam", "NL"), ("CB4 1YF", "Cambridge", "GB"), ("4050-262", "Porto", "PT"),
    ("1070", "Wien", "AT"), ("94110", "San Francisco", "US"), ("01310-100", "São Paulo", "BR"),
)  # fmt: skip
PRODUCTS = (
    ("Andes Sunrise, whole bean 500 g", 1490), ("Night Train Espresso, 250 g", 890),
    ("Harar Wild, filter 250 g", 1150), ("Lagoon Decaf, 250 g", 950),
    ("Paper filters No. 4", 490), ("Enamel mug “Elsewhere”", 1690), ("Hand grinder", 5900),
    ("Monthly surprise bag", 1390),
)  # fmt: skip
_TICKETS = (
    ("Parcel went to a neighbour", "The tracking says delivered. Could you tell me to which name?"),
    ("Grind size for a moka pot", "Which of your coffees would you take, and how fine?"),
    (
        "Invoice with another address",
        "I have moved; please send the invoice again with my new street.",
    ),
    ("Pause my surprise bag", "I am travelling until the end of next month."),
    ("Broken mug", "It arrived with a crack. A photo is attached."),
)
_NOTES = (
    "Leave with the bakery downstairs",
    "Ring twice, third floor",
    "It is a present: no invoice inside, please",
    None,
    None,
    None,
)


@dataclass(frozen=True, slots=True)
class Order:
    number: str
    days_ago: int
    items: tuple[tuple[str, int, int], ...]
    """Product, quantity, price in cents."""
    note: str | None


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer; ``events`` are (days ago, second of the day, what happened)."""

    user_id: str
    name: str
    email: str
    phone: str
    street: str
    postcode: str
    city: str
    country: str
    joined_days_ago: int
    has_newsletter: bool
    orders: tuple[Order, ...]
    tickets: tuple[tuple[int, str, str], ...]
    events: tuple[tuple[int, int, str], ...]


EVENT_DAYS = 12
_EVENTS = (
    "page_viewed",
    "page_viewed",
    "page_viewed",
    "product_viewed",
    "product_viewed",
    "cart_updated",
    "recipe_opened",
    "search_used",
)


def customers() -> list[Customer]:
    """Everybody, the former customers last."""
    chance = random.Random(1554)  # noqa: S311 - invented people, no secrets
    return [_customer(chance, number, name) for number, name in enumerate((*NAMES, *FORMER))]


def email_of(name: str) -> str:
    """``Hanna Weiss`` -> ``hanna.weiss@example.com``; the domain goes by the name's length."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    local = plain.replace("-", "").replace(" ", ".", 1).replace(" ", "")
    return f"{local}@example.{('com', 'org', 'net')[len(name) % 3]}"


def _customer(chance: random.Random, number: int, name: str) -> Customer:
    postcode, city, country = chance.choice(_CITIES)
    return Customer(
        user_id=f"u-{1000 + number * 7}",
        name=name,
        email=email_of(name),
        phone=f"+1 555 01{number:02d} {chance.randrange(100, 1000)}",
        street=f"{chance.choice(_STREETS)} {chance.randrange(1, 140)}",
        postcode=postcode,
        city=city,
        country=country,
        joined_days_ago=chance.randrange(60, 900),
        has_newsletter=name in FORMER or chance.random() < 0.7,
        orders=tuple(
            _order(chance, number, index) for index in range(chance.choice((0, 1, 1, 2, 3)))
        ),
        tickets=tuple(
            (chance.randrange(2, 200), *chance.choice(_TICKETS))
            for _ in range(chance.choice((0, 0, 0, 1, 2)))
        ),
        events=tuple(
            (
                chance.randrange(1, EVENT_DAYS + 1),
                chance.randrange(7 * 3600, 22 * 3600),
                chance.choice(_EVENTS),
            )
            for _ in range(chance.randrange(4, 22))
        ),
    )


def _order(chance: random.Random, number: int, index: int) -> Order:
    items = tuple(
        (product, chance.choice((1, 1, 1, 2)), cents)
        for product, cents in chance.sample(PRODUCTS, chance.choice((1, 1, 2, 3)))
    )
    return Order(
        f"FW-{20000 + number * 9 + index}", chance.randrange(1, 320), items, chance.choice(_NOTES)
    )
