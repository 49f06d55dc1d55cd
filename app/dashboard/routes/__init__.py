"""The dashboard: every page under ``/dashboard``, and the error page for people."""

from __future__ import annotations

from app.dashboard.access import router
from app.dashboard.render import render_problem
from app.dashboard.routes import (
    account,
    alerts,
    archived,
    consent,
    deliveries,
    destinations,
    lists,
    overview,
    queues,
    requests,
    sites,
    static,
    tasks,
    team,
)

__all__ = [
    "account",
    "alerts",
    "archived",
    "consent",
    "deliveries",
    "destinations",
    "lists",
    "overview",
    "queues",
    "render_problem",
    "requests",
    "router",
    "sites",
    "static",
    "tasks",
    "team",
]
