"""The reference is what the code says, and the reference covers all of it."""

from __future__ import annotations

from app.core.settings import Settings
from app.main import create_app
from app.security.limits import RateLimits
from app.sites import regimes
from docs import build


def test_the_reference_is_what_the_code_says() -> None:
    assert build.stale() == [], "run `python -m docs.build`"


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_route_under_v1_is_described_with_its_scope() -> None:
    page = build.pages()["http-api.md"]
    for route in build.routes_of(create_app(Settings())):
        if not route.path.startswith("/v1/") or not route.include_in_schema:
            continue
        for method in route.methods or ():
            section = page.partition(f"### `{method} {route.path}`")[2].partition("###")[0]
            assert section, route.path
            scope = build.scope_of(route)
            assert (f"Needs `{scope}`." in section) == (scope is not None), route.path


def test_a_scope_that_a_parameter_of_the_route_asks_for_is_described_too() -> None:
    page = build.pages()["http-api.md"]
    for path in ("/v1/consents", "/v1/consents/export"):
        section = page.partition(f"### `GET {path}`")[2].partition("###")[0]
        assert "Needs `consents:read`." in section, path


def test_the_limits_page_states_each_rate_and_the_setting_that_moves_it() -> None:
    page = build.pages()["limits.md"]
    for name, item in RateLimits(Settings()).budgets.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"| {item.amount} |" in row
    assert page.count("| fixed |") == 1


def test_the_command_line_names_every_law() -> None:
    page = build.pages()["cli.md"]
    assert page.count(f"| `--regime REGIME` | {', '.join(regimes.load())} |") == 2
    assert "au_privacy" in regimes.load()
