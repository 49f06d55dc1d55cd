"""The API's page: every operation with its parameters, body and scope, rendered here from the
OpenAPI document.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, select_autoescape

_HERE = Path(__file__).parent
_PAGES = Environment(
    loader=FileSystemLoader(_HERE),
    autoescape=select_autoescape(["html"]),
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(document: Mapping[str, Any]) -> HTMLResponse:
    """The page, under a policy that allows its own style and nothing else."""
    style = _PAGES.get_template("page.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    html = _PAGES.get_template("page.html").render(
        version=document["info"]["version"], groups=_groups(document)
    )
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(html, headers={"Content-Security-Policy": policy})


def _groups(document: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            tag = (operation.get("tags") or ["pages"])[0]
            groups.setdefault(tag, []).append(_operation(document, path, verb, operation))
    return groups


def _operation(
    document: Mapping[str, Any], path: str, verb: str, operation: Mapping[str, Any]
) -> dict[str, Any]:
    status, answer = next(iter(operation.get("responses", {}).items()), ("", {}))
    return {
        "verb": verb.upper(),
        "path": path,
        "summary": operation.get("summary", ""),
        "description": operation.get("description", ""),
        "parameters": operation.get("parameters", []),
        "body": _schema(document, operation.get("requestBody", {})),
        "status": status,
        "answer": _schema(document, answer),
    }


def _schema(document: Mapping[str, Any], holder: Mapping[str, Any]) -> str:
    """The JSON schema of a body or answer, with references one level deep written out."""
    schema = holder.get("content", {}).get("application/json", {}).get("schema", {})
    if name := schema.get("$ref", "").rpartition("/")[2]:
        schema = document["components"]["schemas"][name]
    return json.dumps(schema.get("properties", {}), indent=2) if schema.get("properties") else ""
