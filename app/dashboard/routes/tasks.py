"""Human tasks: list and tick off."""

from __future__ import annotations

from typing import cast

from fastapi import Request, Response

from app.core.clock import utc_now
from app.core.errors import Invalid, Problem
from app.core.http import Reading
from app.dashboard import forms
from app.dashboard.access import SignedIn, router
from app.dashboard.render import page, redirect
from app.dashboard.views import tasks as views
from app.delivery import reports
from app.destinations import human_tasks
from app.security import audit
from app.security.sessions import Operator

_ANSWERS = ("done", "absent", "refused")


@router.get("/tasks")
async def task_list(request: Request, operator: SignedIn, session: Reading) -> Response:
    view = await views.task_list(session, request.app.state.key_store, operator, utc_now())
    return page(request, "tasks.html", view=view)


@router.post("/tasks/{task_id}")
async def close_task(task_id: str, request: Request, operator: SignedIn) -> Response:
    """Done, not found there, or refused; the delivery's queue looks at once."""
    form = await forms.read(request)
    now = utc_now()
    try:
        answer = forms.text(form, "answer", limit=10)
        if answer not in _ANSWERS:
            raise Invalid("Choose what came out: done, not found, or refused.")
        note = forms.text(form, "note", limit=1000) or None
        async with request.app.state.database.writing() as session:
            task = await human_tasks.close(
                session,
                workspace_id=operator.workspace_id,
                task_id=task_id,
                answer=cast(human_tasks.Answer, answer),
                actor=operator.actor,
                now=now,
                note=note,
            )
            await reports.task_ended(session, task, now)
    except Problem as problem:
        return await _with_problem(request, operator, problem)
    return redirect("/dashboard/tasks", "task-closed")


@router.post("/tasks/{task_id}/reveal")
async def reveal_person(task_id: str, request: Request, operator: SignedIn) -> Response:
    """Whom the task is about, in clear; the audit log says who looked."""
    now = utc_now()
    async with request.app.state.database.writing() as session:
        await views.find(session, operator.workspace_id, task_id)
        audit.record(
            session,
            workspace_id=operator.workspace_id,
            actor=operator.actor,
            verb="reveal_identifiers",
            target=task_id,
            now=now,
        )
    async with request.app.state.database.reading() as session:
        view = await views.task_list(session, request.app.state.key_store, operator, now, task_id)
    return page(request, "tasks.html", view=view)


async def _with_problem(request: Request, operator: Operator, problem: Problem) -> Response:
    async with request.app.state.database.reading() as session:
        view = await views.task_list(session, request.app.state.key_store, operator, utc_now())
    return page(request, "tasks.html", view=view, problem=problem)
