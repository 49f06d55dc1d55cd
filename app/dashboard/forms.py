"""Reading forms: bounded text without control characters."""

from __future__ import annotations

import re

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from app.core.errors import Invalid

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


async def read(request: Request) -> FormData:
    """The form, parsed once per request (the guard has read it before)."""
    return await request.form(max_fields=2000)


def text(form: FormData, name: str, *, limit: int = 500) -> str:
    """A field's text without surrounding white space; missing fields are empty."""
    value = form.get(name, "")
    if isinstance(value, UploadFile):
        raise Invalid(f"The field {name} takes text.")
    if len(value) > limit:
        raise Invalid(f"The field {name} takes at most {limit} characters.")
    if _CONTROL.search(value):
        raise Invalid(f"The field {name} holds control characters.")
    return value.replace("\r\n", "\n").strip()


def secret(form: FormData, name: str) -> str:
    """A password or code as typed, bounded."""
    value = form.get(name, "")
    return value[:1000] if isinstance(value, str) else ""


def texts(form: FormData, name: str, *, limit: int = 200) -> list[str]:
    """All values of a repeated field, such as checkboxes."""
    values = [each for each in form.getlist(name) if isinstance(each, str)]
    if len(values) > 100 or any(len(each) > limit or _CONTROL.search(each) for each in values):
        raise Invalid(f"The field {name} holds too much.")
    return [each.strip() for each in values if each.strip()]


def lines(form: FormData, name: str, *, limit: int = 5000) -> list[str]:
    """The non-empty lines of a text area."""
    return [line.strip() for line in text(form, name, limit=limit).splitlines() if line.strip()]
