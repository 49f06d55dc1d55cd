"""Google Consent Mode's stub: what a page says before any tag may run, from what is stored already.

Source: developers.google.com/tag-platform/security/guides/consent, read 2026-11-23. The widget's
module (``consent_widget/src/modules/consent_mode.ts``) sends what changes later. Pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from app.sites import regimes

_TYPES = {
    "ad_storage": "advertising",
    "ad_user_data": "advertising",
    "ad_personalization": "advertising",
    "analytics_storage": "analytics",
    "functionality_storage": "functional",
    "personalization_storage": "functional",
}
"""Consent type -> purpose, unless the site's mapping names another; as in the widget's module."""


def asking_first(regions: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """Those of the regions where a site with these laws asks before anything runs."""
    laws = tuple(allowed)
    return [each for each in regions if regimes.asking_regime_for(each, laws).mode == "opt_in"]


def stub(site_key: str, config: Mapping[str, Any]) -> str:
    """The JavaScript to stand in a script element before Google's. ``config``: a ``SiteConfig`` as
    JSON.

    Denies all that no stored choice of this site grants, and grants nothing beforehand where the
    site asks first, whatever an old draft says. It reads the line described in
    ``consent_widget/src/storage.ts``; the cookie of a refusal may outlive the choice's term.
    """
    wished = config["consent_mode"]
    early = asking_first(wished["granted_in"], config["regimes"])
    granted_in = [region for region in wished["granted_in"] if region not in early]
    mapping = config["mapping"]
    purposes = {kind: mapping.get(kind, purpose) for kind, purpose in _TYPES.items()}
    state = ",".join(f"{kind}:g({json.dumps(purpose)})" for kind, purpose in purposes.items())
    wait = f"wait_for_update:{wished['wait_ms']}"
    said = [f'gtag("consent","default",{{{state},security_storage:"granted",{wait}}})']
    if granted_in:
        regions = json.dumps(granted_in, separators=(",", ":"))
        everything = ",".join(f'{kind}:"granted"' for kind in (*_TYPES, "security_storage"))
        said.append(
            "navigator.globalPrivacyControl||c[1]||"
            f'gtag("consent","default",{{{everything},region:{regions},{wait}}})'
        )
    said += [
        f'gtag("set","{name}",true)'
        for name, is_on in (
            ("ads_data_redaction", wished["redacts_ads"]),
            ("url_passthrough", wished["passes_urls_through"]),
        )
        if is_on
    ]
    return (
        "dataLayer=window.dataLayer||[];function gtag(){dataLayer.push(arguments)}"
        f'{{let c=(document.cookie.match(/qt_{site_key}=[^;]*/)+"").split(/[|:]/),'
        f'g=p=>c[4]>Date.now()-{config["expiry_days"] * 86_400_000}&&c.includes("+"+p)?'
        '"granted":"denied";' + ";".join(said) + "}"
    )
