"""The script a site embeds: the built widget with the banner's configuration inlined."""

from __future__ import annotations

import hashlib
import json
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
