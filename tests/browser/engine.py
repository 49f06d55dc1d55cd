"""What a story needs of a browser, whichever engine it has; ``bidi`` and ``webdriver`` are two."""

from __future__ import annotations

import json
from typing import Any, Protocol

from tests.journeys.instance import wait_for

Actions = list[dict[str, Any]]
"""As in WebDriver's "perform actions", which BiDi has the same."""

PATIENCE = 15.0
TAB = "\ue004"
ENTER = "\ue006"
ESCAPE = "\ue00c"


class Engine(Protocol):
    """One window that nobody sees, with storage of its own."""

    def goto(self, url: str) -> None: ...

    def reload(self) -> None: ...

    def evaluate(self, expression: str) -> Any:
        """The expression's value, or its promise's, as JSON can say it."""

    def perform(self, actions: Actions) -> None:
        """What somebody's hands do."""

    def close(self) -> None: ...


def as_json(expression: str) -> str:
    """A promise of the value as text."""
    return f"(async () => JSON.stringify(await ({expression})))()"


def until(engine: Engine, expression: str) -> None:
    wait_for(lambda: engine.evaluate(expression), expression, PATIENCE)


def press(engine: Engine, key: str) -> None:
    strokes = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
    engine.perform([{"type": "key", "id": "keyboard", "actions": strokes}])


def click(engine: Engine, element: str) -> None:
    """Point at the middle of what the expression ``element`` names, and press the button."""
    box = engine.evaluate(f"({element}).getBoundingClientRect().toJSON()")
    x, y = (round(box[at] + box[size] / 2) for at, size in (("x", "width"), ("y", "height")))
    steps = [
        {"type": "pointerMove", "x": x, "y": y},
        {"type": "pointerDown", "button": 0},
        {"type": "pointerUp", "button": 0},
    ]
    engine.perform([{"type": "pointer", "id": "mouse", "actions": steps}])


def decoded(text: str | None) -> Any:
    """``undefined`` has no text."""
    return None if text is None else json.loads(text)
