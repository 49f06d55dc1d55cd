"""What a caller can get wrong about sites, and what somebody else got wrong."""

from __future__ import annotations

from app.core.errors import Forbidden, Invalid, NotFound, Problem, Unavailable


class UnknownSite(NotFound):
    slug, title = "unknown-site", "There is no such site"

    def __init__(self) -> None:
        super().__init__("Check the site key, and that the site is published.")


class OriginNotListed(Forbidden):
    slug, title = "origin-not-listed", "The site does not list this origin"

    def __init__(self) -> None:
        super().__init__("Add the page's exact origin to the site.")


class PartIsOff(NotFound):
    slug, title = "part-is-off", "The published site does not use this part of the widget"

    def __init__(self, module: str) -> None:
        super().__init__(f"Add `{module}` to the site's `modules` and publish it.")


class InvalidOrigin(Invalid):
    slug, title = "invalid-origin", "An origin is not valid"


class NotPublishable(Invalid):
    slug, title = "not-publishable", "The draft cannot be published"


class WidgetNotBuilt(Unavailable):
    slug, title = "widget-not-built", "The consent widget is not built"

    def __init__(self) -> None:
        super().__init__(
            "The built widget is missing; run `make widget`, or install a complete copy."
        )


class NoticeAltered(Problem):
    """Nothing a caller can cause: somebody has changed the database by hand."""

    status, slug, title = 500, "notice-altered", "The words are not those that were published"

    def __init__(self, version_id: str) -> None:
        super().__init__(
            f"The content of {version_id} no longer has the hash it was published with, so it is "
            "not shown as proof. Restore it from a backup; `quittance doctor` lists all such "
            "versions."
        )
