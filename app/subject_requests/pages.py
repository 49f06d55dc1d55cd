"""The pages of people without an account: request form, confirmation, status.

All of them work without JavaScript. Order matters below: ``/privacy/confirm/...`` and
``/privacy/status/...`` come before a site's own page.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import mimetypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import jinja2
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.routing import APIRoute
from itsdangerous import BadData, URLSafeTimedSerializer

from app.core.clock import utc_now
from app.core.errors import Forbidden, Gone, Invalid, NotFound, Problem, TooLarge, WrongType
from app.core.http import client_network
from app.core.ids import new_id
from app.core.logging import get_logger
from app.crypto.keyring import KeyRing
from app.identity import vault
from app.identity.normalise import InvalidIdentifier, normalise
from app.security.limits import RateLimits
from app.security.models import Workspace
from app.sites import regimes
from app.sites.banner import request_regime_of, show
from app.sites.directory import Notice, PublishedSite, directory_of
from app.sites.languages import accepted, best
from app.sites.models import Site
from app.sites.visitor import Visitor, visitor_of
from app.subject_requests import choice, decide, mails, people, proof, status
from app.subject_requests.models import SubjectRequest
from app.subject_requests.services import Services
from app.subject_requests.states import OPERATIONS, Kind, Status
from app.subject_requests.words import LANGUAGES, Words, choose, words_of

log = get_logger(__name__)

_HERE = Path(__file__).parent
MAX_NOTE = 2000
MAX_BODY = 32_768
FORM_LIFETIME = dt.timedelta(minutes=30)
FORM_MIN_AGE = dt.timedelta(seconds=1)
"""Who sends the form sooner is asked to send it again: a program might not, a person does."""
TRAP = "website"
"""The field that people do not see, and programs fill in."""


class ForeignForm(Forbidden):
    slug, title = "foreign-form", "The form was not sent from our own page"


class NoFiles(Invalid):
    slug, title = "no-files", "The form takes no files"


class NoAnswer(NotFound):
    slug, title = "no-answer", "There is no file"


class NoReceipt(NotFound):
    slug, title = "no-receipt", "There is no receipt yet"


# What every answer has in common


@dataclass(frozen=True, slots=True)
class Frame:
    """Who may frame a page, and whether the site's own widget runs on it."""

    ancestors: tuple[str, ...] = ()
    has_widget: bool = False

    def csp(self) -> str:
        scripts = "script-src 'self'; connect-src 'self'; " if self.has_widget else ""
        return (
            f"default-src 'none'; {scripts}style-src 'self'; img-src 'self' data:; "
            "form-action 'self'; base-uri 'none'; "
            f"frame-ancestors {' '.join(self.ancestors) or chr(39) + 'none' + chr(39)}"
        )


_NO_FRAME = Frame()
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
    "Vary": "Accept-Language",
}


class PersonRoute(APIRoute):
    """What goes wrong becomes a page that says what to do, in the person's language."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                answer: Response = await handle(request)
            except Problem as problem:
                if _wants_json(request):
                    raise
                answer = await _problem_page(request, problem)
            return answer

        return handler


router = APIRouter(prefix="/privacy", route_class=PersonRoute, tags=["public"])


def _wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "json" in accept and "text/html" not in accept


def _page(
    template: str, words: Words, *, code: int = 200, frame: Frame = _NO_FRAME, **context: Any
) -> HTMLResponse:
    context = {"home": None, "switch": [], "site": "", "refresh": None, **context}
    html = _environment().get_template(template).render(t=words, lang=words.tag, **context)
    return HTMLResponse(html, code, headers={**_HEADERS, "Content-Security-Policy": frame.csp()})


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = asset_url
    return environment


def _words(request: Request, default: str = "en") -> Words:
    """``?lang=``, else what the browser asks for."""
    return choose(
        [
            request.query_params.get("lang", "")[:35],
            *accepted(request.headers.get("accept-language")),
        ],
        default,
    )


def _words_for(request: Request, language: str) -> Words:
    """``?lang=``, else the language the person asked in."""
    return choose([request.query_params.get("lang", "")[:35]], words_of(language).tag)


def _switch(path: str, words: Words, **query: str | None) -> list[dict[str, Any]]:
    """Links to the same page in the other languages."""
    return [
        {
            "tag": tag,
            "name": words_of(tag).name,
            "href": _with_query(path, lang=tag, **query),
            "is_current": tag == words.tag,
        }
        for tag in LANGUAGES
    ]


def _with_query(path: str, **query: str | None) -> str:
    pairs = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(pairs)}" if pairs else path


_ERRORS = {
    "unknown-site": "site",
    "not-found": "site",
    "link-unknown": "link_unknown",
    "link-used": "link_used",
    "link-expired": "link_expired",
    "too-many-requests": "too_many",
    "wrong-state": "too_late",
    "foreign-form": "foreign",
    "no-files": "no_files",
    "too-large": "too_large",
    "no-receipt": "no_receipt",
    "no-answer": "no_answer",
}


async def _problem_page(request: Request, problem: Problem) -> Response:
    words, home = _words(request), None
    if isinstance(problem, people.LinkEnded):
        words = _words_for(request, problem.language)
        home = await _home_of(request, problem.site_id)
    elif (site_key := request.path_params.get("site_key")) and problem.slug != "unknown-site":
        home = _with_query(f"/privacy/{quote(site_key)}", lang=words.tag)
    key = f"error.{_ERRORS.get(problem.slug, 'other')}"
    wait = problem.headers.get("Retry-After", "60")
    minutes = max(1, -(-int(wait) // 60)) if wait.isdigit() else 1
    answer = _page(
        "problem.html",
        words,
        code=problem.status,
        title=words(key),
        text=words(f"{key}.text", minutes=minutes),
        home=home,
        site="",
    )
    answer.headers.update(problem.headers)
    return answer


async def _home_of(request: Request, site_id: str | None) -> str | None:
    """The form a request came from."""
    async with _services(request).database.reading() as session:
        site = await session.get(Site, site_id) if site_id else None
    return f"/privacy/{site.site_key}" if site and site.deleted_at is None else None


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _token_of(request: Request, request_id: str) -> str:
    links: people.StatusLinks = request.app.state.status_links
    return links.token(request_id)


# Static files


class Asset(NamedTuple):
    content: bytes
    media_type: str
    version: str


@cache
def assets() -> dict[str, Asset]:
    """Every static file by name; only what was here at start is ever served."""
    return {
        path.name: Asset(
            path.read_bytes(),
            mimetypes.guess_type(path.name)[0] or "text/plain",
            hashlib.sha256(path.read_bytes()).hexdigest()[:12],
        )
        for path in sorted((_HERE / "static").iterdir())
    }


def asset_url(name: str) -> str:
    """Changes with the content, so that browsers may keep it for good."""
    return f"/privacy/static/{name}?v={assets()[name].version}"


@router.get("/static/{name}", include_in_schema=False)
async def static_file(name: str, request: Request) -> Response:
    found = assets().get(name)
    if found is None:
        raise NotFound
    is_versioned = request.query_params.get("v") == found.version
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if is_versioned else "no-cache",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return Response(found.content, media_type=found.media_type, headers=headers)


# Posts


def _check_origin(request: Request) -> None:
    """Refuse what a browser says comes from another site.

    There is no session to ride on; who may act is decided by the token in the form or the path. So
    a client that says nothing is let through, and so is ``Origin: null``: under our own
    ``no-referrer`` browsers hide the origin, and over plain http they send no ``Sec-Fetch-Site``.
    """
    fetch_site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if fetch_site is not None:
        if fetch_site not in {"same-origin", "none"}:
            raise ForeignForm
    elif origin not in {None, "null", _own_origin(request)}:
        raise ForeignForm


def _own_origin(request: Request) -> str:
    public = urlsplit(request.app.state.settings.public_url)
    return f"{public.scheme}://{public.netloc}"


async def _fields(request: Request) -> Mapping[str, str]:
    """The fields of a urlencoded form; of a repeated one the first counts. Files stay unread."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        raise NoFiles("Send the form as application/x-www-form-urlencoded.")
    if content_type not in {"", "application/x-www-form-urlencoded"}:
        raise WrongType("Send the form as application/x-www-form-urlencoded.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLarge(f"Send at most {MAX_BODY} bytes.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=50, errors="strict"
        )
    except ValueError:
        raise Invalid("The form cannot be read.") from None
    return dict(reversed(pairs))


async def _own_form(request: Request) -> Mapping[str, str]:
    _check_origin(request)
    return await _fields(request)


async def _spend(request: Request, budget: str) -> None:
    limits: RateLimits = request.app.state.limits
    await limits.spend(budget, client_network(request))


async def _spend_link(request: Request) -> None:
    await _spend(request, "link")


OwnForm = Annotated[Mapping[str, str], Depends(_own_form)]
SpendsLink = Depends(_spend_link)


# Form tokens


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a rendered form carries, signed: its page, its law, the request it will become."""

    about: str
    regime: str
    request_id: str
    rendered_at: dt.datetime


class Tickets:
    """Form tokens: signed, timed; single-use because the request they name can exist only once."""

    def __init__(self, ring: KeyRing) -> None:
        self._serializer = URLSafeTimedSerializer(
            ring.derive("form"),
            salt="form",
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def issue(self, about: str, regime: str, now: dt.datetime) -> str:
        content = [about, regime, new_id("req", now.timestamp()), now.timestamp()]
        return str(self._serializer.dumps(content))

    def read(self, about: str, token: str) -> Ticket | None:
        """None: not one of ours, for another page, or too old."""
        try:
            content = self._serializer.loads(token, max_age=int(FORM_LIFETIME.total_seconds()))
        except BadData:
            return None
        bound, regime, request_id, at = content
        if bound != about:
            return None
        return Ticket(bound, regime, request_id, dt.datetime.fromtimestamp(at, dt.UTC))


# Confirming


@router.head("/confirm/{token}", dependencies=[SpendsLink], include_in_schema=False)
@router.get("/confirm/{token}", dependencies=[SpendsLink], response_class=HTMLResponse)
async def confirm_page(token: str, request: Request) -> Response:
    """What will happen, and a button. Reading it changes nothing, however often it is read."""
    services = _services(request)
    async with services.database.reading() as session:
        about = await people.find_link(session, token, utc_now())
        workspace = await session.get_one(Workspace, about.workspace_id)
        site = await session.get(Site, about.site_id) if about.site_id else None
        has_cooling_off = await people.has_cooling_off(session, services, about, workspace)
        labels = await people.places(session, services, about)
        notes = await vault.open_holder(session, services.keys, [about.id], ("note",))
    words = _words_for(request, about.language)
    zone, name = workspace.timezone, site.name if site else workspace.name
    kind = about.kind if Kind(about.kind) in people.FORM_KINDS else "other"
    return _page(
        "confirm.html",
        words,
        site=name,
        kind=kind,
        is_manual=Kind(about.kind) not in OPERATIONS,
        received=words.date(about.received_at, zone),
        due=words.date(about.due_at, zone),
        places=labels,
        note="\n\n".join(each.value for each in notes),
        cooling_hours=int(people.COOLING_OFF.total_seconds() // 3600) if has_cooling_off else 0,
        keeps_fingerprint=about.kind == Kind.OPT_OUT or workspace.suppress_after_erasure,
        suppression_months=services.settings.suppression_months,
        switch=_switch(request.url.path, words),
        action=_with_query(request.url.path, lang=request.query_params.get("lang")),
    )


@router.post("/confirm/{token}", dependencies=[SpendsLink], status_code=303)
async def confirm(token: str, request: Request, _: OwnForm) -> Response:
    """Use the link, once."""
    services = _services(request)
    async with services.database.writing() as session:
        about = await people.confirm(session, services, token, utc_now())
    path = f"/privacy/status/{_token_of(request, about.id)}"
    return _see_other(_with_query(path, lang=request.query_params.get("lang")))


def _see_other(path: str) -> Response:
    """To a page of ours; a reload then repeats nothing."""
    return RedirectResponse(path, 303, headers=_HEADERS)


# Status


async def _seen(request: Request, token: str) -> status.Seen:
    services = _services(request)
    links: people.StatusLinks = request.app.state.status_links
    request_id = links.request_id(token)
    async with services.database.reading() as session:
        about = await session.get(SubjectRequest, request_id)
        if about is None:
            raise people.LinkUnknown
        return await status.look(session, services, about)


@router.head("/status/{token}", include_in_schema=False)
@router.get("/status/{token}")
async def status_page(token: str, request: Request) -> Response:
    """How far the request is, for its person: a page, or JSON where that is asked for."""
    seen = await _seen(request, token)
    is_forgotten = seen.request.forgotten_at is not None
    path = f"/privacy/status/{quote(token)}"
    if _wants_json(request):
        public_url = request.app.state.settings.public_url
        answer = status.as_json(seen, f"{public_url}{path}/receipt" if seen.has_receipt else None)
        if is_forgotten:
            gone = Gone("The person is forgotten; what is left names nobody.").as_dict()
            return JSONResponse({**answer, **gone, "status": answer["status"]}, 410, _HEADERS)
        return JSONResponse(answer, headers=_HEADERS)
    words = _words_for(request, seen.request.language)
    zone, now = seen.workspace.timezone, utc_now()
    is_still = request.query_params.get("still") == "1"
    lang = request.query_params.get("lang")
    finished = seen.request.completed_at
    return _page(
        "status.html",
        words,
        code=410 if is_forgotten else 200,
        site=seen.site,
        seen=seen,
        told=status.tell(seen, words),
        is_open=finished is None,
        due=words.date(seen.due_at, zone),
        received=words.date(seen.request.received_at, zone),
        finished=words.minute(finished, zone) if finished else None,
        complaint=mails.complaint(words, seen.request.regime),
        verify=mails.verify_command(request.app.state.settings.public_url),
        cancel_token=_tickets(request).issue(f"cancel:{seen.request.id}", "", now),
        refresh=None if is_still else refresh_seconds(seen.request, now),
        still=_with_query(path, lang=lang, still="1"),
        path=path,
        query=_with_query("", lang=lang),
        home=f"/privacy/{seen.site_key}" if seen.site_key else None,
        switch=_switch(path, words),
    )


def refresh_seconds(request: SubjectRequest, now: dt.datetime) -> int | None:
    """How soon the page looks again by itself: often at first, only while machines work."""
    is_working = request.status in {Status.RESOLVING, Status.IN_PROGRESS}
    if not is_working or Kind(request.kind) not in OPERATIONS:
        return None
    age = now - (request.verified_at or request.received_at)
    if age < dt.timedelta(minutes=1):
        return 2
    return 10 if age < dt.timedelta(minutes=15) else 60


@router.post("/status/{token}/cancel", status_code=303)
async def cancel(token: str, request: Request, fields: OwnForm) -> Response:
    """Stop the request, as long as nothing has gone out."""
    services = _services(request)
    seen = await _seen(request, token)
    if _tickets(request).read(f"cancel:{seen.request.id}", fields.get("token", "")) is not None:
        async with services.database.writing() as session:
            await decide.cancel(
                session,
                services,
                seen.request.workspace_id,
                seen.request.id,
                decide.PERSON,
                utc_now(),
            )
    # A page that was open for too long is only shown again: the button is still on it.
    path = f"/privacy/status/{quote(token)}"
    return _see_other(_with_query(path, lang=request.query_params.get("lang")))


@router.get("/status/{token}/receipt", responses={200: {"content": {"application/jose": {}}}})
async def receipt(token: str, request: Request) -> Response:
    """The receipt as a file; as JSON with the openings while they exist."""
    services = _services(request)
    about = (await _seen(request, token)).request
    try:
        found = await proof.receipt_of(
            services, about.workspace_id, about.id, utc_now(), with_openings=_wants_json(request)
        )
    except NotFound:
        raise NoReceipt("It is made once the request is confirmed.") from None
    if _wants_json(request):
        return JSONResponse({"receipt": found.jws, "openings": found.openings}, headers=_HEADERS)
    return _attachment(found.jws.encode(), "receipt.jws", "application/jose")


@router.get(
    "/status/{token}/answer", responses={200: {"content": {"application/octet-stream": {}}}}
)
async def answer_file(token: str, request: Request) -> Response:
    """The file of an operator's answer: always saved, never shown, whatever it claims to be."""
    seen = await _seen(request, token)
    if seen.answer.file is None:
        raise NoAnswer
    name, content = seen.answer.file
    return _attachment(content, name, "application/octet-stream")


def _attachment(content: bytes, name: str, media_type: str) -> Response:
    headers = {
        **_HEADERS,
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
    }
    return Response(content, media_type=media_type, headers=headers)


def _tickets(request: Request) -> Tickets:
    return Tickets(request.app.state.ring)


# The receipt of a consent


@router.head("/receipt/{consent_id}", include_in_schema=False)
@router.get("/receipt/{consent_id}", response_class=HTMLResponse)
async def choice_page(consent_id: str, request: Request) -> Response:
    """The receipt of a consent to be read, with the words that were shown; whoever knows the id of
    the consent may see it."""
    jws = await _consent_receipt(request, consent_id)
    record = choice.record_of(jws)
    version_id = record["extension"]["notice_version"]
    notice = await directory_of(request.app.state.database).notice(version_id)
    if notice is None:
        raise NotFound
    seen = choice.seen(record, notice)
    words = _words_for(request, seen.language)
    path = f"/privacy/receipt/{quote(consent_id)}"
    law = regimes.load().get(seen.regime)
    return _page(
        "choice.html",
        words,
        site=seen.controller,
        seen=seen,
        law=law.name if law else seen.regime,
        until=words.date(seen.until, "UTC") if seen.until else "",
        jws=jws,
        file=f"{path}/file",
        verify=mails.verify_command(request.app.state.settings.public_url, f"{seen.id}.jws"),
        switch=_switch(path, words),
    )


@router.get("/receipt/{consent_id}/file", responses={200: {"content": {"application/jose": {}}}})
async def choice_file(consent_id: str, request: Request) -> Response:
    """The same bytes as `GET /v1/receipts/{receipt_id}`, to be saved by a browser."""
    jws = await _consent_receipt(request, consent_id)
    return _attachment(jws.encode(), f"{consent_id}.jws", "application/jose")


async def _consent_receipt(request: Request, consent_id: str) -> str:
    receipt = await request.app.state.consent_receipt(consent_id)
    if receipt is None:
        raise NotFound
    return str(receipt.jws)


# A site's own page


@dataclass(frozen=True, slots=True)
class Typed:
    """What a person typed into the form, shown again when something is wrong."""

    kind: str = ""
    email: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Desk:
    """One site's form, as this visitor sees it."""

    site: PublishedSite
    notice: Notice
    visitor: Visitor
    regime: regimes.Regime
    words: Words
    lang: str | None
    region: str | None

    @property
    def path(self) -> str:
        return f"/privacy/{self.site.site_key}"

    def url(self, path: str = "") -> str:
        return _with_query(self.path + path, lang=self.lang, region=self.region)


async def _desk(
    site_key: str, request: Request, lang: str | None = None, region: str | None = None
) -> Desk:
    site, notice = await directory_of(request.app.state.database).published(site_key)
    visitor = visitor_of(request, notice, lang, region)
    return Desk(
        site,
        notice,
        visitor,
        request_regime_of(notice, visitor.region),
        _words(request, choose([notice.content["default_language"]]).tag),
        best(LANGUAGES, [lang]) if lang else None,
        regimes.clean_region(region),
    )


AtDesk = Annotated[Desk, Depends(_desk)]


@router.head("/{site_key}", include_in_schema=False)
@router.get("/{site_key}", response_class=HTMLResponse)
async def site_page(desk: AtDesk, request: Request) -> Response:
    """Consent choices and the request form of a site."""
    return await _form_page(desk, request, Typed(), {})


@router.post("/{site_key}", status_code=303)
async def send_form(desk: AtDesk, request: Request) -> Response:
    """Take a request in; the answer is the same for every address."""
    _check_origin(request)
    await _spend(request, "form")
    fields = await _fields(request)
    typed = Typed(*(fields.get(name, "").strip() for name in ("kind", "email", "note")))
    if not desk.site.is_intake_open:
        return await _form_page(desk, request, typed, {}, code=404)
    ticket = _tickets(request).read(desk.site.site_key, fields.get("token", ""))
    form, errors = _checked(desk, typed, ticket)
    if form is None or ticket is None:
        return await _form_page(desk, request, typed, errors, code=422)
    if fields.get(TRAP):
        log.info("form_discarded", reason="trap", site_id=desk.site.id)
        return _see_other(desk.url("/sent"))
    if utc_now() - ticket.rendered_at < FORM_MIN_AGE:
        log.info("form_shown_again", reason="too_fast", site_id=desk.site.id)
        errors = {"form": desk.words("form.error.too_fast")}
        return await _form_page(desk, request, typed, errors, code=422, token=fields["token"])
    services = _services(request)
    async with services.database.reading() as session:
        workspace = await session.get_one(Workspace, desk.site.workspace_id)
    try:
        await people.submit(
            services, request.app.state.limits, workspace, desk.site.id, form, utc_now()
        )
    except people.FormUsed:
        errors = {"form": desk.words("form.error.used")}
        return await _form_page(desk, request, typed, errors, code=422)
    return _see_other(desk.url("/sent"))


@router.head("/{site_key}/sent", include_in_schema=False)
@router.get("/{site_key}/sent", response_class=HTMLResponse)
async def sent_page(desk: AtDesk) -> Response:
    """The one answer to every form."""
    return _page(
        "sent.html",
        desk.words,
        frame=_frame(desk),
        site=desk.site.name,
        home=desk.url(),
        switch=_switch(f"{desk.path}/sent", desk.words, region=desk.region),
    )


def _checked(
    desk: Desk, typed: Typed, ticket: Ticket | None
) -> tuple[people.FormIn | None, dict[str, str]]:
    """The form, or what is wrong with it by field."""
    words, errors = desk.words, {}
    if ticket is None:
        errors["form"] = words("form.error.expired")
    kind = next((each for each in people.FORM_KINDS if each == typed.kind), None)
    if kind is None:
        errors["kind"] = words("form.error.kind")
    if len(typed.note) > MAX_NOTE:
        errors["note"] = words("form.error.note", limit=MAX_NOTE)
    elif kind is Kind.RECTIFICATION and not typed.note:
        errors["note"] = words("form.note")  # nobody can correct without knowing what
    try:
        email = normalise("email", typed.email)
    except InvalidIdentifier:
        errors["email"] = words("form.error.email")
        return None, errors
    if errors or kind is None or ticket is None:
        return None, errors
    note = typed.note or None if kind is Kind.RECTIFICATION else None
    return (
        people.FormIn(kind, email, ticket.regime, words.tag, note, ticket.request_id),
        errors,
    )


async def _form_page(
    desk: Desk,
    request: Request,
    typed: Typed,
    errors: Mapping[str, str],
    code: int = 200,
    token: str | None = None,
) -> Response:
    """``token``: the one that the form had before, where it is still good."""
    now, words, content = utc_now(), desk.words, desk.notice.content
    async with _services(request).database.reading() as session:
        workspace = await session.get_one(Workspace, desk.site.workspace_id)
    due = regimes.clocks(desk.regime, Kind.ERASURE, now, workspace.timezone).due_at
    frame = _frame(desk)
    if _own_origin(request) in desk.site.origins:
        frame = replace(frame, has_widget=True)
    return _page(
        "form.html",
        words,
        code=code,
        frame=frame,
        site=desk.site.name,
        kinds=[each.value for each in people.FORM_KINDS],
        typed=typed,
        errors=errors,
        trap=TRAP,
        max_note=MAX_NOTE,
        token=token or _tickets(request).issue(desk.site.site_key, desk.regime.id, now),
        action=desk.url(),
        is_open=desk.site.is_intake_open,
        contact=content["controller"]["contact"] or workspace.contact,
        policy_url=_policy_url(content["policy_url"]),
        law=desk.regime.name,
        due=words.date(due, workspace.timezone),
        purposes=show(desk.notice, [words.tag], desk.visitor.region)["purposes"],
        visits=[
            {"href": each, "host": urlsplit(each).netloc}
            for each in sorted(desk.site.origins - {_own_origin(request)})
        ],
        widget=f"/b/{_with_query(desk.site.site_key + '.js', lang=words.tag, region=desk.region)}"
        if frame.has_widget
        else None,
        switch=_switch(desk.path, words, region=desk.region),
    )


def _frame(desk: Desk) -> Frame:
    """Only the site's own pages may frame its form."""
    return Frame(tuple(sorted(desk.site.origins)))


def _policy_url(url: str) -> str | None:
    """Only a whole address: a path belongs to the site, not to us."""
    return url if url.startswith("https:") else None
