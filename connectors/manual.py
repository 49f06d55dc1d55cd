"""A human does it: opens a task per person inside Quittance and waits until it is ticked off."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from pydantic import Field

from connectors.contract import (
    ConnectorSettings,
    Outcome,
    Outcomes,
    PeopleConnector,
    Person,
    absent,
    accepted,
    done,
    failed,
)


class Manual(PeopleConnector):
    """For systems without an interface; ticking a task off says what happened."""

    title = "Manual task"
    accepts_all = True
    batch = 100
    poll_schedule = (
        dt.timedelta(minutes=1),
        dt.timedelta(minutes=10),
        dt.timedelta(hours=1),
        dt.timedelta(days=1),
    )
    """Ticking a task off wakes its delivery; asking unasked is for what went wrong."""

    class Settings(ConnectorSettings):
        instructions: str = Field(
            min_length=1, max_length=4000, description="What to do, for the person who does it"
        )
        assignee: str | None = Field(default=None, max_length=200, description="Who does it")

    async def test(self) -> str:
        return "Tasks will wait on the dashboard."

    async def erase(self, people: Sequence[Person]) -> Outcomes:
        return await self._open(people)

    async def suppress(self, people: Sequence[Person]) -> Outcomes:
        return await self._open(people)

    async def unsuppress(self, people: Sequence[Person]) -> Outcomes:
        return await self._open(people)

    async def poll(self, job: str) -> Outcome:
        match await self.tools.tasks.state(job):
            case "done":
                return done()
            case "absent":
                return absent()
            case "refused":
                return failed("refused_by_operator")
        return accepted(job)

    async def _open(self, people: Sequence[Person]) -> Outcomes:
        call, settings = self.tools.call, self.settings
        return {
            person.id: accepted(
                await self.tools.tasks.open(call, person, settings.instructions, settings.assignee)
            )
            for person in people
        }
