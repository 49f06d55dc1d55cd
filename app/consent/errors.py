"""What a caller can get wrong about consent."""

from __future__ import annotations

from app.core.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable


class OriginNotAllowed(Forbidden):
    slug, title = "origin-not-allowed", "The site does not allow this origin"

    def __init__(
        self, detail: str = "Add the page's exact origin to the site's `origins`."
    ) -> None:
        super().__init__(detail)


class NotFromAPage(OriginNotAllowed):
    """A choice without an ``Origin``, which every browser sends."""

    def __init__(self) -> None:
        super().__init__(
            "Without an `Origin`, only a server may send a choice: by method `api` or `migrated`, "
            "with a key that holds `sites:write`."
        )


class UnknownNotice(Invalid):
    slug, title = "unknown-notice-version", "This notice version was never published for the site"

    def __init__(self) -> None:
        super().__init__("Send the `notice_version` of the banner that was shown.")


class ChoicesDoNotFit(Invalid):
    slug, title = "choices-do-not-fit", "The choices do not fit the notice that was shown"


class EventReused(Conflict):
    slug, title = "event-reused", "This event_id was used for another choice"

    def __init__(self) -> None:
        super().__init__("Send a fresh `event_id` with every new choice.")


class WriterBusy(Unavailable):
    slug, title = "consent-writer-busy", "The choice could not be stored yet"

    def __init__(self) -> None:
        super().__init__(
            "Nothing was stored; send it again, with the same `event_id`.",
            headers={"Retry-After": "2"},
        )


class NoFirstParty(NotFound):
    slug, title = "no-first-party-host", "The site has no first-party host"

    def __init__(self) -> None:
        super().__init__("Set the site's `first_party` to where its own host serves this service.")


class RememberTokenNotValid(Forbidden):
    slug, title = "remember-token-not-valid", "The token is not one for this choice, or too old"

    def __init__(self) -> None:
        super().__init__(
            "It is good for five minutes. Send the choice again, with the same `event_id`, for a "
            "fresh one."
        )


class NoSharedDomain(Invalid):
    slug, title = "no-shared-domain", "The first-party host and the page share no domain"

    def __init__(self) -> None:
        super().__init__(
            "Set the site's `first_party` to the page's own host, or to one under the same "
            "domain, such as https://privacy.shop.example for pages of https://www.shop.example."
        )


class ChoiceSuperseded(Conflict):
    slug, title = "choice-superseded", "The visitor has chosen anew since"

    def __init__(self) -> None:
        super().__init__("Nothing was set. Remember the newest choice.")


class VisitorOfAnother(Conflict):
    slug, title = "visitor-of-another", "The visitor is linked to another account"

    def __init__(self) -> None:
        super().__init__(
            "Somebody else has signed in with this `visitor_id`; make a fresh one for this person "
            "and link that. The token was not used up."
        )


class TooManyLinks(Conflict):
    slug, title = "too-many-links", "The visitor has too many identifiers"


class TooManyVisitors(Invalid):
    slug, title = "too-many-visitors", "Too many visitors have this `user_id`"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most} visitors of the site are linked to it, which is more than one person has. If "
            "it stands for visitors who are not signed in, leave them unlinked."
        )
