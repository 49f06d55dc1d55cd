"""The dashboard: every page under ``/dashboard``, and the error page for people."""

from __future__ import annotations

from app.dashboard.access import router
from app.dashboard.render import render_problem
from app.dashboard.routes import account, static

__all__ = ["account", "render_problem", "router", "static"]
