"""Sharing a claim between calls that do something and polls that only ask whether it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Called = TypeVar("Called")


def share(work: Sequence[Called], polls: Sequence[Called], room: int) -> list[Called]:
    """At most half of the room for polls while there is work for the rest; nothing stays empty.
    Work goes first, so that it waits for no slow poll; a single place is never a poll's.
    """
    asked = polls[: max(room // 2, room - len(work))]
    return [*work[: room - len(asked)], *asked]
