"""Forms from a connector's JSON schema, and settings from the posted form.

Simple members get typed fields; maps of text to text are lines ``name = value``; anything deeper is
JSON in a text area, with an example of its shape. A secret's field is always empty: left empty, it
keeps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData

from app.core.errors import Invalid, Problem
from app.core.http import strict_json
from app.dashboard import forms, present
from app.dashboard.views.choices import Option

PREFIX = "set."
_LONG = 300
_MAX = 100_000

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One member of the settings. ``control``: text, long, number, bool, choice, lines, pairs,
    json, secret.
    """

    name: str
    label: str
    control: str
    value: str
    help: str
    is_required: bool
    is_set: bool
    """For secrets: something is kept."""
    is_whole: bool
    """For numbers: integers only."""
    options: tuple[Option, ...]
    example: str


def fields(schema: Schema, settings: Mapping[str, Any]) -> list[Field]:
    """The form for ``settings`` (as shown: without secrets), in the schema's order."""
    required = schema.get("required", ())
    return [
        _field(schema, name, _plain(schema, member), settings.get(name), name in required)
        for name, member in schema.get("properties", {}).items()
        if "const" not in member
    ]


def parse(
    schema: Schema, form: FormData, shown: Mapping[str, Any], kept: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings from the posted form. A member that comes back as it was shown stays what it is kept
    as.
    """
    settings: dict[str, Any] = {}
    problems = []
    for name, member in schema.get("properties", {}).items():
        if "const" in member:
            continue
        try:
            value = _value(schema, _plain(schema, member), form, name)
        except Problem as problem:
            problems.append({"at": name, "problem": problem.detail or problem.title})
            continue
        if value is not None:
            settings[name] = kept[name] if name in kept and value == shown.get(name) else value
    if problems:
        raise Invalid("Correct the settings listed here.", errors=problems)
    return settings


def has_secret(schema: Schema, form: FormData) -> bool:
    """Whether a secret was typed into the form."""
    return any(
        _control(schema, _plain(schema, member)) == "secret" and forms.secret(form, PREFIX + name)
        for name, member in schema.get("properties", {}).items()
    )


def as_typed(schema: Schema, form: FormData, listed: list[Field]) -> list[Field]:
    """The same form with what was posted in it; secrets are not sent back."""
    typed = []
    for each in listed:
        raw = form.get(PREFIX + each.name, "")
        value = raw if isinstance(raw, str) else ""
        if each.control == "secret":
            value = ""
        options = tuple(Option(o.value, o.text, o.value == value) for o in each.options)
        typed.append(
            Field(
                each.name,
                each.label,
                each.control,
                value,
                each.help,
                each.is_required,
                each.is_set,
                each.is_whole,
                options,
                each.example,
            )
        )
    return typed


def _field(schema: Schema, name: str, member: Schema, value: Any, is_required: bool) -> Field:
    control = _control(schema, member)
    if value is None:
        value = member.get("default")
    choices = [str(each) for each in member.get("enum", ())]
    chosen = str(value) if value is not None else ""
    label = present.words(name)
    return Field(
        name=name,
        label="URL" if label == "Url" else label,
        control=control,
        value="" if control == "secret" else _text(control, value),
        help=str(member.get("description", "")),
        is_required=is_required,
        is_set=control == "secret" and value is not None,
        is_whole=member.get("type") == "integer",
        options=tuple(Option(each, present.words(each), each == chosen) for each in choices),
        example=json.dumps(_example(schema, member), indent=2) if control == "json" else "",
    )


def _plain(schema: Schema, member: Schema) -> dict[str, Any]:
    """The member without references and without ``| null``; its own words win."""
    found = dict(member)
    if reference := found.pop("$ref", None):
        found = {**schema.get("$defs", {}).get(str(reference).rpartition("/")[2], {}), **found}
    for union in ("anyOf", "oneOf", "allOf"):
        parts = [each for each in found.get(union, ()) if each.get("type") != "null"]
        if len(parts) == 1:
            found.pop(union)
            return {**_plain(schema, parts[0]), **{k: v for k, v in found.items() if k != "type"}}
    return found


def _control(schema: Schema, member: Schema) -> str:
    if member.get("format") == "password" or member.get("writeOnly"):
        return "secret"
    if "enum" in member:
        return "choice"
    kind = member.get("type")
    if kind == "string":
        return "long" if member.get("maxLength", 0) > _LONG else "text"
    if kind in {"integer", "number"}:
        return "number"
    if kind == "boolean":
        return "bool"
    if kind == "array" and _plain(schema, member.get("items", {})).get("type") == "string":
        return "lines"
    if kind == "object" and _is_map_of_text(schema, member):
        return "pairs"
    return "json"


def _is_map_of_text(schema: Schema, member: Schema) -> bool:
    inner = [member.get("additionalProperties"), *member.get("patternProperties", {}).values()]
    kinds = [_plain(schema, each).get("type") for each in inner if isinstance(each, Mapping)]
    return "properties" not in member and bool(kinds) and set(kinds) == {"string"}


def _text(control: str, value: Any) -> str:
    match control:
        case "bool":
            return "on" if value else ""
        case "lines":
            return "\n".join(str(each) for each in value or ())
        case "pairs":
            return "\n".join(f"{key} = {each}" for key, each in (value or {}).items())
        case "json":
            return json.dumps(value, indent=2, ensure_ascii=False) if value else ""
    return "" if value is None else str(value)


def _value(schema: Schema, member: Schema, form: FormData, name: str) -> Any:
    """A member's value; None: left out."""
    field = PREFIX + name
    control = _control(schema, member)
    if control == "secret":
        return forms.secret(form, field) or None
    if control == "bool":
        return forms.text(form, field) == "on"
    text = forms.text(form, field, limit=_MAX)
    if not text:
        return None
    match control:
        case "number":
            return _number(text, is_whole=member.get("type") == "integer")
        case "lines":
            return [line.strip() for line in text.splitlines() if line.strip()]
        case "pairs":
            return dict(_pair(line) for line in text.splitlines() if line.strip())
        case "json":
            return strict_json(text.encode())
    return text


def _number(text: str, *, is_whole: bool) -> float:
    try:
        return int(text) if is_whole else float(text)
    except ValueError:
        raise Invalid("Give a number.") from None


def _pair(line: str) -> tuple[str, str]:
    name, separator, value = line.partition("=")
    if not separator or not name.strip() or not value.strip():
        raise Invalid("Write one pair per line: name = value.")
    return name.strip(), value.strip()


def _example(schema: Schema, member: Schema, depth: int = 0) -> Any:
    """A value of the right shape, so that nobody writes JSON into an empty box."""
    member = _plain(schema, member)
    if "enum" in member:
        return " | ".join(str(each) for each in member["enum"])
    match member.get("type"):
        case "array":
            return [_example(schema, member.get("items", {}), depth + 1)]
        case "object" if "properties" in member and depth < 6:
            return {
                name: _example(schema, each, depth + 1)
                for name, each in member["properties"].items()
            }
        case "object":
            return {"name": "value"}
        case "integer" | "number":
            return member.get("default", 0)
        case "boolean":
            return bool(member.get("default", False))
    return "..."
