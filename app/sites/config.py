"""What operators set for a banner: purposes, regimes, languages, texts, design tokens. Plain text
only, no markup."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictBool, StrictInt, field_validator, model_validator

from app.core.http import Says, Schema
from app.sites import regimes
from app.sites.errors import InvalidOrigin
from app.sites.languages import OPTIONAL_TEXT_KEYS, TEXT_KEYS, direction, shipped
from app.sites.origins import clean_base

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
LONG_TEXTS = {
    "body": 2000,
    "body_opt_out": 2000,
    "body_for_notice": 2000,
    "dialog_body": 2000,
    "dialog_body_opt_out": 2000,
    "gpc_notice": 600,
    "gpc_overruled": 600,
    "placeholder": 600,
    "changed": 600,
    "changed_notice": 600,
    "expired": 600,
    "not_cleared": 600,
    "unavailable": 600,
}
"""The most characters of texts that may be longer than a line."""
MAX_SHORT = 120
MAX_CONTACT = 300
_RESERVED = frozenset({"constructor", "prototype"})  # names every JavaScript object has


def _plain(text: str) -> str:
    """Text for people: no control or direction-changing characters; never read as HTML, so ``<`` is
    a letter."""
    text = unicodedata.normalize("NFC", text).strip()
    if any(
        unicodedata.category(each) in {"Cc", "Cs", "Cn", "Co"} or each in _BIDI for each in text
    ):
        raise ValueError("text holds control characters")
    return text


def _policy_url(url: str) -> str:
    """``https:`` address or a path of the site itself."""
    url = _plain(url)
    if not url:
        return url
    if any(each.isspace() or each in '\\"<>' for each in url):
        raise ValueError("an address holds no spaces, quotes, backslashes or angle brackets")
    if re.match(r"/(?!/)", url):
        return url
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise ValueError("give an https: address or a path such as /privacy")
    return url


def _base(address: str) -> str:
    try:
        return clean_base(address) if address.strip() else ""
    except InvalidOrigin as error:
        raise ValueError(error.detail) from None


Text = Annotated[str, Field(max_length=2000), AfterValidator(_plain)]
ShortText = Annotated[str, Field(max_length=MAX_SHORT), AfterValidator(_plain)]
PurposeId = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9_]{0,31}$"),
    Says(
        "a purpose's id is up to 32 small letters, digits and _, a letter first, such as "
        "ad_partners"
    ),
]
LANGUAGE_TAG = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,2}$"
LanguageTag = Annotated[str, Field(pattern=LANGUAGE_TAG)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/*()&+ -]{1,100}$")]


class PurposeText(Schema):
    """A purpose in one language."""

    name: Annotated[ShortText, Field(min_length=1)]
    description: Annotated[str, Field(max_length=600), AfterValidator(_plain)] = ""


class Purpose(Schema):
    """What consent is asked for. ``denied_by_gpc``: counts as sale, sharing or targeted
    advertising. ``sensitive``: uses sensitive data, which some laws let people limit."""

    id: PurposeId
    required: StrictBool = False
    denied_by_gpc: StrictBool = False
    sensitive: StrictBool = False
    texts: dict[LanguageTag, PurposeText] = Field(default_factory=dict, max_length=60)


_HOST = r"(\*\.)?([a-z0-9_]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]{2,}"
_NAME = r"(?!qt_)[^\s;,=*\"]{2,100}\*?"  # our own cookie is nobody's tracker


def is_pattern(kind: str, pattern: str) -> bool:
    """Whether a rule of this kind may be written so."""
    return re.fullmatch(_HOST if kind == "host" else _NAME, pattern) is not None


class Tracker(Schema):
    """What a purpose brings along: a ``host`` (``*.`` in front: with its sub-domains) that scripts
    and frames come from, or a ``cookie`` or ``storage`` name (``*`` at the end: every name that
    begins so).

    ``http_only``: a cookie that scripts cannot remove.
    """

    kind: Literal["host", "cookie", "storage"]
    pattern: Annotated[str, Field(max_length=253)]
    purpose: PurposeId
    http_only: StrictBool = False

    @model_validator(mode="after")
    def _fits(self) -> Tracker:
        if not is_pattern(self.kind, self.pattern):
            raise ValueError(
                "a host is written stats.example or *.stats.example, a name _ga or _ga_*"
            )
        if self.http_only and self.kind != "cookie":
            raise ValueError("only a cookie can be http_only")
        return self


def _script_address(url: str) -> str:
    url = _policy_url(url)
    if not url:
        raise ValueError("give the script's address")
    return url


class Tag(Schema):
    """A script that the widget itself puts into the page once its purpose is granted."""

    src: Annotated[str, Field(max_length=500), AfterValidator(_script_address)]
    purpose: PurposeId
    load: Literal["ordered", "async", "module"] = "ordered"


Module = Literal["consent_mode", "gpp", "uet", "segment", "migrate", "report", "counts"]
"""Parts of the widget that only some sites need."""


class ConsentMode(Schema):
    """Google Consent Mode, where the module of that name is on. ``wait_ms``: how long tags wait for
    the widget. ``granted_in``: regions (ISO 3166) where all is granted until somebody objects.
    """

    wait_ms: Annotated[StrictInt, Field(ge=0, le=5000)] = 500
    granted_in: tuple[Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")], ...] = Field(
        default=(), max_length=100
    )
    redacts_ads: StrictBool = True
    passes_urls_through: StrictBool = False


class Theme(Schema):
    """Design tokens; there is no free CSS."""

    accent: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] = "#1f5fae"
    position: Literal["bottom", "center"] = "bottom"
    radius: Annotated[StrictInt, Field(ge=0, le=24)] = 8


class Controller(Schema):
    """Who decides why and how data is used. Empty name: the site's name is shown."""

    name: ShortText = ""
    contact: Annotated[str, Field(max_length=MAX_CONTACT), AfterValidator(_plain)] = ""


def _default_purposes() -> tuple[Purpose, ...]:
    return (
        Purpose(id="necessary", required=True),
        Purpose(id="functional"),
        Purpose(id="analytics"),
        Purpose(id="advertising", denied_by_gpc=True),
    )


class SiteConfig(Schema):
    """A site's draft. Published, it becomes an immutable notice version."""

    purposes: tuple[Purpose, ...] = Field(
        default_factory=_default_purposes, min_length=1, max_length=20
    )
    mapping: dict[Label, PurposeId] = Field(default_factory=dict, max_length=500)
    """The site's own label, such as a Segment integration -> purpose."""
    trackers: tuple[Tracker, ...] = Field(default=(), max_length=500)
    tags: tuple[Tag, ...] = Field(default=(), max_length=100)
    modules: tuple[Module, ...] = Field(default=(), max_length=10)
    consent_mode: ConsentMode = Field(default_factory=ConsentMode)
    regimes: tuple[str, ...] = Field(
        default_factory=regimes.offering_a_choice, min_length=1, max_length=50
    )
    languages: tuple[LanguageTag, ...] = Field(
        default_factory=lambda: tuple(shipped()), min_length=1, max_length=60
    )
    default_language: LanguageTag = "en"
    expiry_days: Annotated[StrictInt, Field(ge=1, le=390)] = 180
    texts: dict[LanguageTag, dict[str, Text]] = Field(default_factory=dict, max_length=60)
    theme: Theme = Field(default_factory=Theme)
    controller: Controller = Field(default_factory=Controller)
    policy_url: Annotated[str, Field(max_length=500), AfterValidator(_policy_url)] = ""
    shows_opt_out_banner: StrictBool = True
    """Under opt-out laws: show the banner at the first visit; false: only the site's own link opens
    it."""
    first_party: Annotated[str, Field(max_length=300), AfterValidator(_base)] = ""
    """Where a host of the site's own serves this service. Nobody is shown it: it is no part of a
    notice, and acts at once, as origins do."""

    @field_validator("texts")
    @classmethod
    def _known_texts(cls, texts: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        for overrides in texts.values():
            for key, text in overrides.items():
                if key not in {*TEXT_KEYS, *OPTIONAL_TEXT_KEYS}:
                    raise ValueError(
                        f"text keys are: {', '.join((*TEXT_KEYS, *OPTIONAL_TEXT_KEYS))}"
                    )
                if not text or len(text) > LONG_TEXTS.get(key, MAX_SHORT):
                    raise ValueError(
                        f"`{key}` has 1 to {LONG_TEXTS.get(key, MAX_SHORT)} characters"
                    )
        return texts

    @field_validator("regimes")
    @classmethod
    def _known_regimes(cls, wanted: tuple[str, ...]) -> tuple[str, ...]:
        if not set(wanted) <= set(regimes.load()) or len(set(wanted)) != len(wanted):
            raise ValueError(f"regimes are, each once: {', '.join(regimes.load())}")
        return wanted

    @model_validator(mode="after")
    def _consistent(self) -> SiteConfig:
        ids = [purpose.id for purpose in self.purposes]
        if len(set(ids)) != len(ids) or _RESERVED & set(ids):
            raise ValueError(
                "every purpose has an id of its own, other than constructor and prototype"
            )
        if all(purpose.required for purpose in self.purposes):
            raise ValueError("at least one purpose must be a choice")
        mapped = {*self.mapping.values()}
        mapped |= {each.purpose for each in self.trackers} | {each.purpose for each in self.tags}
        if not mapped <= set(ids):
            raise ValueError("mapping, trackers or tags name a purpose that does not exist")
        if len(set(self.modules)) != len(self.modules):
            raise ValueError("each module stands once in modules")
        if (
            len(set(self.languages)) != len(self.languages)
            or self.default_language not in self.languages
        ):
            raise ValueError(
                "each language stands once in languages, and the default language is one of them"
            )
        for tag in self.languages:
            language_of(self, tag)
        return self


def language_of(config: SiteConfig, tag: str) -> dict[str, Any]:
    """Everything said in one language: our texts with the operator's over them.

    A purpose of the operator's own that is not said in this language is said in the default one
    (``untranslated``). ValueError where something is missing altogether.
    """
    ours = shipped().get(tag) or {"texts": {}, "purposes": {}}
    texts = {**ours["texts"], **config.texts.get(tag, {})}
    purposes = {}
    for purpose in config.purposes:
        own = purpose.texts.get(tag)
        known = own.model_dump() if own else ours["purposes"].get(purpose.id)
        fallback = purpose.texts.get(config.default_language)
        purposes[purpose.id] = known or (fallback.model_dump() if fallback else None)
    texts = {key: texts[key] for key in (*TEXT_KEYS, *OPTIONAL_TEXT_KEYS) if key in texts}
    if missing := [key for key in TEXT_KEYS if key not in texts]:
        raise ValueError(f"language {tag} lacks texts: {', '.join(missing)}")
    if missing := [name for name, said in purposes.items() if said is None]:
        raise ValueError(f"language {tag} lacks names for purposes: {', '.join(missing)}")
    return {"direction": direction(tag), "texts": texts, "purposes": purposes}


def unsaid(config: SiteConfig) -> list[str]:
    """What visitors are not told of who asks, in words for operators."""
    needed = {
        "Controller: visitors read the site's name in its place": config.controller.name,
        "Contact: how the controller is reached": config.controller.contact,
        "Privacy policy: where visitors read more": config.policy_url,
    }
    return [each for each, text in needed.items() if not text]


def untranslated(config: SiteConfig) -> dict[str, list[str]]:
    """Purposes that have no words of their own in some languages, and in which."""
    found = {
        purpose.id: [
            tag
            for tag in config.languages
            if tag not in purpose.texts
            and purpose.id not in shipped().get(tag, {}).get("purposes", {})
        ]
        for purpose in config.purposes
    }
    return {purpose: tags for purpose, tags in found.items() if tags}
