"""Identifiers in one canonical form, decided once for form, API, links and destinations.

- ``email``: one bare address; domain lower-cased and in A-label form; local part lower-cased (ASCII
letters only). Look-alike letters of other alphabets stay what they are: another address.
- ``phone``: E.164, ``+`` and 7 to 15 digits; spaces, dots, dashes and brackets are dropped.
- any other kind: kept as it is, without surrounding white space; case counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Protocol

from email_validator import EmailNotValidError, validate_email

from app.core.errors import Invalid
from connectors.contract import Identifier, Kind

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
_PHONE_DROPPED = str.maketrans("", "", " .-()/\u00a0")
_ASCII_LOWER = str.maketrans({chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)})
_MAX_LENGTH = 512


class InvalidIdentifier(Invalid):
    slug, title = "invalid-identifier", "An identifier is not valid"


class Given(Protocol):
    """An identifier as it came in."""

    @property
    def kind(self) -> str: ...
    @property
    def value(self) -> str: ...


def normalise_all(identifiers: Iterable[Given]) -> list[Identifier]:
    """One person's: in the given order, each once."""
    return list(dict.fromkeys(normalise_each(identifiers)))


def normalise_each(identifiers: Iterable[Given]) -> list[Identifier]:
    """One for each that is given, in their order."""
    return [
        normalise_at(f"identifiers.{index}", each.kind, each.value)
        for index, each in enumerate(identifiers)
    ]


def normalise_at(place: str, kind: str, value: str) -> Identifier:
    """``normalise``; the error names the member that is wrong."""
    try:
        return normalise(kind, value)
    except InvalidIdentifier as error:
        listed = [{"at": place, "problem": error.detail}]
        raise InvalidIdentifier(error.detail, errors=listed) from None


def normalise(kind: str, value: str) -> Identifier:
    """The canonical form, or ``InvalidIdentifier`` (which never repeats the value)."""
    if not _KIND.fullmatch(kind):
        raise InvalidIdentifier(
            f"A kind is one of {', '.join(f'`{each}`' for each in Kind)}, or a name of your own: "
            "lower-case letters, digits and underscores, at most 32."
        )
    value = value.strip()
    if not value:
        raise InvalidIdentifier(f"The value of `{kind}` is empty.")
    if len(value) > _MAX_LENGTH:
        raise InvalidIdentifier(f"The value of `{kind}` is longer than {_MAX_LENGTH} characters.")
    if any(unicodedata.category(character) in {"Cc", "Cs", "Co", "Cn"} for character in value):
        raise InvalidIdentifier(f"The value of `{kind}` holds control characters.")
    if kind == Kind.EMAIL:
        return Identifier(kind, _email(value))
    if kind == Kind.PHONE:
        return Identifier(kind, _phone(value))
    return Identifier(kind, unicodedata.normalize("NFC", value))


def _email(value: str) -> str:
    try:
        checked = validate_email(value, check_deliverability=False, strict=True)
    except EmailNotValidError:
        raise InvalidIdentifier(
            "Give exactly one e-mail address, such as name@example.com."
        ) from None
    return f"{checked.local_part.translate(_ASCII_LOWER)}@{checked.ascii_domain or checked.domain}"


def _phone(value: str) -> str:
    digits = value.translate(_PHONE_DROPPED)
    if not _PHONE.fullmatch(digits):
        raise InvalidIdentifier(
            "Give the telephone number in international form, such as +49 30 1234567."
        )
    return digits
