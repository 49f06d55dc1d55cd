"""What the signal may and may not do, for every combination."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from app.consent.schemas import Method
from app.consent.service import apply_gpc
from app.sites import banner, regimes
from app.sites.config import SiteConfig
from app.sites.languages import accepted
from tests.consent.notices import notice

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
NOTICE = notice(SiteConfig(), NOW)
choices = st.fixed_dictionaries({purpose: st.booleans() for purpose in sorted(NOTICE.choices)})
laws = st.sampled_from(tuple(regimes.load().values()))
methods = st.sampled_from(Method)


@given(law=laws, method=methods, asked=choices, gpc=st.booleans())
def test_the_signal_only_ever_denies_and_only_what_it_means(
    law: regimes.Regime, method: Method, asked: dict[str, bool], *, gpc: bool
) -> None:
    found, applied = apply_gpc(NOTICE, law, method, asked, gpc=gpc)

    assert found.keys() == asked.keys()
    for purpose, granted in found.items():
        assert granted == asked[purpose] or (asked[purpose] and purpose in NOTICE.denied_by_gpc)
    if found != asked:
        assert applied
    if applied:
        assert gpc
        assert law.honours_gpc
        assert not any(found[purpose] for purpose in NOTICE.denied_by_gpc)
    if gpc and law.honours_gpc and method not in {Method.ACCEPT_ALL, Method.CUSTOM}:
        assert not found["advertising"]


@given(header=st.text(max_size=40), region=st.text(max_size=12), gpc=st.booleans())
def test_a_banner_is_shown_whatever_the_visitor_sends(
    header: str, region: str, *, gpc: bool
) -> None:
    shown = banner.show(NOTICE, accepted(header), region, gpc=gpc)

    assert shown["language"] in shown["languages"]
    assert shown["regime"] in regimes.load()
    for purpose in shown["purposes"]:
        if shown["mode"] == "opt_in":
            assert purpose["default"] is purpose["required"], "nothing runs before a choice"
