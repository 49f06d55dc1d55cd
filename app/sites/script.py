"""The script a site embeds: the built widget with the banner's configuration inlined."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.sites.errors import WidgetNotBuilt

WIDGET = Path(__file__).parents[2] / "consent_widget" / "dist" / "widget.js"

_UNSAFE = str.maketrans({each: f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"})


def script(config: dict[str, Any], widget: Path = WIDGET) -> tuple[bytes, str]:
    """The script and its entity tag; 503 while the widget is not built."""
    body = f"(()=>{{{_read(widget)}\n;quittanceWidget.start({safe_json(config)})}})()\n".encode()
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'


@lru_cache(maxsize=256)
def packed(body: bytes) -> bytes:
    """As ``Content-Encoding: gzip``. There is no secret in it that a length could tell of."""
    return gzip.compress(body, 9, mtime=0)


def takes_gzip(accept_encoding: str) -> bool:
    """Whether the header names gzip, and not with the weight 0 (RFC 9110, 12.5.3)."""
    for part in accept_encoding.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in {"gzip", "x-gzip"}:
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0{0,3})?\s*", weight)
    return False


def safe_json(value: Any) -> str:
    """JSON that is also JavaScript and cannot end a script element, a comment or a line of
    either."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_UNSAFE)


def _read(widget: Path) -> str:
    try:
        return _text(widget, widget.stat().st_mtime_ns)
    except FileNotFoundError:
        raise WidgetNotBuilt from None


@lru_cache(maxsize=2)
def _text(widget: Path, _: int) -> str:
    return widget.read_text(encoding="utf-8")
