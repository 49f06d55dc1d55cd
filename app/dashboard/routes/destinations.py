"""Destinations: list, add, change, test, their queues."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import FormData

from app.core.clock import utc_now
from app.core.errors import Invalid, NotFound, Problem
from app.core.http import Reading
from app.core.settings import Settings
from app.dashboard import forms, present
from app.dashboard.access import SignedIn, router
from app.dashboard.render import page, redirect
from app.dashboard.routes import queues
from app.dashboard.routes.account import type_password_again
from app.dashboard.views import destinations as views
from app.dashboard.views import schema_forms
from app.dashboard.views.choices import Option
from app.destinations import service
from app.destinations.catalogue import Catalogue, NoConnector, description
from app.destinations.models import Destination
from app.destinations.schemas import DestinationChange, DestinationIn
from app.destinations.settings import prepare
from app.security.models import Role
from app.security.sessions import Operator
from app.sites import regimes
from app.subject_requests.states import OPERATIONS


@dataclass(frozen=True, slots=True)
class Connector:
    """What can be added."""

    name: str
    title: str
    does: str


@dataclass(frozen=True, slots=True)
class DestinationForm:
    """Name, filters and the connector's own settings."""

    action: str
    submit: str
    name: str
    is_enabled: bool
    kinds: list[Option]
    regimes: list[Option]
    purposes: str
    fields: list[schema_forms.Field]
    has_secrets: bool
    is_fresh: bool


@router.get("/destinations")
async def destination_list(request: Request, operator: SignedIn, session: Reading) -> Response:
    rows = await views.healths(session, operator.workspace_id, utc_now())
    return page(request, "destinations.html", rows=rows, may_edit=operator.may(Role.OPERATOR))


@router.get("/destinations/new")
async def choose_connector(request: Request, operator: SignedIn) -> Response:
    catalogue: Catalogue = request.app.state.catalogue
    described = await asyncio.to_thread(catalogue.describe)
    found = [
        Connector(
            each["name"],
            each["title"],
            ", ".join(
                present.words(op)
                for op in each["operations"]
                if op in {"erase", "suppress", "unsuppress", "lookup", "export"}
            ),
        )
        for each in described
    ]
    return page(request, "destination_new.html", connectors=found, broken=dict(catalogue.broken))


@router.get("/destinations/new/{connector}")
async def new_destination(connector: str, request: Request, operator: SignedIn) -> Response:
    facts = _describe(request, connector)
    return page(
        request,
        "destination_add.html",
        title=facts["title"],
        form=_form(
            operator,
            facts,
            f"/dashboard/destinations/new/{connector}",
            "Add destination",
            facts["title"],
        ),
    )


@router.post("/destinations/new/{connector}")
async def add_destination(connector: str, request: Request, operator: SignedIn) -> Response:
    facts = _describe(request, connector)
    form = await forms.read(request)
    try:
        if schema_forms.has_secret(facts["settings_schema"], form):
            await type_password_again(request, operator, form)
        settings = schema_forms.parse(facts["settings_schema"], form, {}, {})
        wanted = DestinationIn(connector=connector, settings=settings, **_general(form))
        prepared = await prepare(
            request.app.state.instances, operator.workspace_id, connector, settings
        )
        async with request.app.state.database.writing() as session:
            made = await service.create(
                session,
                workspace_id=operator.workspace_id,
                actor=operator.actor,
                wanted=wanted,
                prepared=prepared,
                now=utc_now(),
            )
    except (Problem, ValidationError) as error:
        blank = _form(
            operator, facts, f"/dashboard/destinations/new/{connector}", "Add destination", ""
        )
        return page(
            request,
            "destination_add.html",
            title=facts["title"],
            problem=as_problem(error),
            form=_typed(blank, facts, form),
        )
    return redirect(f"/dashboard/destinations/{made.id}", "destination-added")


@router.get("/destinations/{destination_id}")
async def destination_page(
    destination_id: str, request: Request, operator: SignedIn, session: Reading
) -> Response:
    return await _page(request, operator, session, destination_id)


@router.post("/destinations/{destination_id}")
async def save_destination(destination_id: str, request: Request, operator: SignedIn) -> Response:
    form = await forms.read(request)
    database = request.app.state.database
    async with database.reading() as session:
        destination = await views.find(session, operator, destination_id)
    try:
        facts = _describe(request, destination.connector)
        if schema_forms.has_secret(facts["settings_schema"], form):
            await type_password_again(request, operator, form)
        shown = service.view(destination)["settings"]
        settings = schema_forms.parse(facts["settings_schema"], form, shown, destination.settings)
        change = DestinationChange(settings=settings, **_general(form))
        prepared = await prepare(
            request.app.state.instances,
            operator.workspace_id,
            destination.connector,
            settings,
            destination,
        )
        async with database.writing() as session:
            await service.update(
                session,
                workspace_id=operator.workspace_id,
                destination_id=destination_id,
                actor=operator.actor,
                change=change,
                prepared=prepared,
                now=utc_now(),
            )
    except (Problem, ValidationError) as error:
        async with database.reading() as session:
            return await _page(
                request, operator, session, destination_id, as_problem(error), typed=form
            )
    return redirect(f"/dashboard/destinations/{destination_id}", "destination-saved")


@router.post("/destinations/{destination_id}/test")
async def test_destination(destination_id: str, request: Request, operator: SignedIn) -> Response:
    """Ask it for a sign of life, and show on its page what came back."""
    state = request.app.state
    async with state.database.reading() as session:
        destination = await views.find(session, operator, destination_id)
    result = await service.test(state.instances, state.runner, destination)
    async with state.database.writing() as session:
        await service.note_test(session, destination.id, result, utc_now())
    async with state.database.reading() as session:
        return await _page(request, operator, session, destination_id, tested=result)


@router.post("/destinations/{destination_id}/queue")
async def change_queue(destination_id: str, request: Request, operator: SignedIn) -> Response:
    """Pause, resume, boost or flush."""
    try:
        action = await queues.change(request, operator, destination_id)
    except Problem as problem:
        async with request.app.state.database.reading() as session:
            return await _page(request, operator, session, destination_id, problem)
    return redirect(f"/dashboard/destinations/{destination_id}", action)


@router.post("/destinations/{destination_id}/delete")
async def delete_destination(destination_id: str, request: Request, operator: SignedIn) -> Response:
    async with request.app.state.database.writing() as session:
        await service.delete(
            session,
            workspace_id=operator.workspace_id,
            destination_id=destination_id,
            actor=operator.actor,
            ring=request.app.state.ring,
            now=utc_now(),
        )
    return redirect("/dashboard/destinations", "destination-deleted")


def as_problem(error: Problem | ValidationError) -> Problem:
    """Pydantic's findings in our words."""
    if isinstance(error, Problem):
        return error
    found = [
        {
            "at": ".".join(map(str, each["loc"]))[:100],
            "problem": each["msg"].removeprefix("Value error, ")[:200],
        }
        for each in error.errors(include_url=False, include_input=False, include_context=False)[:20]
    ]
    return Invalid("Correct what is listed here.", errors=found)


def _describe(request: Request, name: str) -> dict[str, Any]:
    try:
        return description(name, request.app.state.catalogue.find(name))
    except NoConnector as error:
        raise NotFound(str(error)) from None


def _general(form: FormData) -> dict[str, Any]:
    return {
        "name": forms.text(form, "name", limit=200),
        "enabled": forms.text(form, "enabled") == "on",
        "kinds": forms.texts(form, "kinds"),
        "regimes": forms.texts(form, "regimes"),
        "purposes": [
            each
            for line in forms.lines(form, "purposes")
            for each in line.replace(",", " ").split()
        ],
    }


def _form(
    operator: Operator,
    facts: Mapping[str, Any],
    action: str,
    submit: str,
    name: str,
    destination: Destination | None = None,
) -> DestinationForm:
    shown = service.view(destination)["settings"] if destination else {}
    kinds = destination.kinds if destination else []
    chosen = destination.regimes if destination else []
    return DestinationForm(
        action=action,
        submit=submit,
        name=name,
        is_enabled=destination.is_enabled if destination else True,
        kinds=[
            Option(kind.value, present.REQUEST_KIND[kind.value], kind.value in kinds)
            for kind in OPERATIONS
        ],
        regimes=[Option(each.id, each.name, each.id in chosen) for each in regimes.load().values()],
        purposes=", ".join(destination.purposes) if destination else "",
        fields=schema_forms.fields(facts["settings_schema"], shown),
        has_secrets=bool(facts["secrets"]),
        is_fresh=operator.is_fresh(utc_now()),
    )


def _typed(blank: DestinationForm, facts: Mapping[str, Any], form: FormData) -> DestinationForm:
    """The form as it was posted, for correcting it."""
    raw = {
        key: [each for each in form.getlist(key) if isinstance(each, str)]
        for key in ("name", "purposes", "kinds", "regimes", "enabled")
    }
    return DestinationForm(
        action=blank.action,
        submit=blank.submit,
        name=" ".join(raw["name"]),
        is_enabled=raw["enabled"] == ["on"],
        kinds=[Option(o.value, o.text, o.value in raw["kinds"]) for o in blank.kinds],
        regimes=[Option(o.value, o.text, o.value in raw["regimes"]) for o in blank.regimes],
        purposes=" ".join(raw["purposes"]),
        fields=schema_forms.as_typed(facts["settings_schema"], form, blank.fields),
        has_secrets=blank.has_secrets,
        is_fresh=blank.is_fresh,
    )


async def _page(
    request: Request,
    operator: Operator,
    session: AsyncSession,
    destination_id: str,
    problem: Problem | None = None,
    *,
    typed: FormData | None = None,
    tested: service.TestResult | None = None,
) -> Response:
    destination = await views.find(session, operator, destination_id)
    form, title = None, destination.connector
    try:
        facts = _describe(request, destination.connector)
        title = facts["title"]
        if operator.may(Role.OPERATOR):
            form = _form(
                operator,
                facts,
                f"/dashboard/destinations/{destination_id}",
                "Save",
                destination.name,
                destination,
            )
            form = _typed(form, facts, typed) if typed is not None else form
    except NotFound as gone:
        problem = problem or gone
    settings: Settings = request.app.state.settings
    catalogue: Catalogue = request.app.state.catalogue
    listens = catalogue.listens(destination.connector)
    return page(
        request,
        "destination.html",
        view=await views.health(session, destination, utc_now()),
        connector=title,
        form=form,
        problem=problem,
        tested=tested,
        created_at=destination.created_at,
        callback_url=f"{settings.public_url}/hooks/{destination_id}" if listens else None,
    )
