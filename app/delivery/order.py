"""Who goes first: the order of deliveries within a queue.

Depth first, then the nearest legal deadline: a person whose request has begun to reach
destinations goes before people whose request has not, unless the deadline of those is near. The
rank of a delivery that was never tried is the day of its deadline, so that nothing has to be
re-ranked as days pass: what is urgent is decided by whoever claims.
"""

from __future__ import annotations

import datetime as dt

BOOSTED = 0
URGENT = 1
"""Started, and the deadline is near."""
STARTED = 2
WAITING = 3
"""For a vendor's job: asking earlier ends nothing earlier, so it has a share of its own (see
``app.delivery.turns``).
"""
FRESH = 4
"""From here on: the deadline's day, counted from 1970. Such a delivery is due since it was planned.
"""
NEAR = dt.timedelta(hours=72)
_UNBOUND = dt.timedelta(days=45)
"""What has no deadline (an opt-out is due at once) queues up as if it had this one."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def rank_of(deadline: dt.datetime | None, now: dt.datetime, *, is_started: bool) -> int:
    """The rank under which a delivery takes its place."""
    if is_started:
        return URGENT if deadline is not None and deadline - now <= NEAR else STARTED
    return max(FRESH, _day(deadline or now + _UNBOUND))


def last_urgent(now: dt.datetime) -> int:
    """The last rank of deliveries that were never tried and go before those already started."""
    return _day(now + NEAR)


def _day(moment: dt.datetime) -> int:
    return (moment - _EPOCH).days
