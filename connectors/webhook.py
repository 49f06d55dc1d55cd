"""Any HTTP endpoint of the controller's own: whole people, signed by Standard Webhooks v1.0.0.

Signature: https://github.com/standard-webhooks/standard-webhooks, specification 1.0.0.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import httpx
from pydantic import Field, SecretStr, field_validator

from connectors.contract import (
    ConnectorSettings,
    NotAuthentic,
    Outcome,
    Outcomes,
    PeopleConnector,
    Person,
    absent,
    accepted,
    done,
    failed,
    retry,
)

LONGEST_WAIT = dt.timedelta(days=7)
TOLERANCE = dt.timedelta(minutes=5)
"""How far a callback's timestamp may be from our clock."""
_UNDECODED = "x-undecoded-content-encoding"
"""Set by the guarded client on an answer that came packed though we asked for none."""
_RESULTS = {"done": done, "absent": absent}
_AGAIN = frozenset({408, 409, 425, 429})
"""409: the first call with this Idempotency-Key is still under way."""
_ERROR_WORDS = frozenset({"error", "errors", "failed", "failure", "fail"})
_JOB = re.compile(r"[!-~]{1,2000}")
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Webhook(PeopleConnector):
    """Posts people to an endpoint; it answers for all, one by one, or with a job to ask about."""

    title = "Webhook"
    accepts_all = True
    batch = 100

    class Settings(ConnectorSettings):
        url: str = Field(pattern=r"^(?i:https?)://[!-~]+$", description="Address to post to")
        signing_secret: SecretStr | None = Field(
            default=None, description="whsec_ and 24 to 64 bytes in Base64; signs every call"
        )

        @field_validator("signing_secret")
        @classmethod
        def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
            if value is not None:
                key_of(value.get_secret_value())
            return value

    @cached_property
    def _url(self) -> httpx.URL:
        return httpx.URL(self.settings.url)

    async def test(self) -> Outcomes:
        body = {"type": "quittance.ping", "call_id": self.tools.call.id}
        return outcomes(await self._post(body), (), self.settings.url, self.tools.now())

    async def erase(self, people: Sequence[Person]) -> Outcomes:
        return await self._send("erase", people)

    async def suppress(self, people: Sequence[Person]) -> Outcomes:
        return await self._send("suppress", people)

    async def unsuppress(self, people: Sequence[Person]) -> Outcomes:
        return await self._send("unsuppress", people)

    async def poll(self, job: str) -> Outcome:
        if not is_same_origin(job, self.settings.url):
            return failed("job_elsewhere")
        response = await self.tools.http.get(job, headers=self._signed(b""))
        return job_outcome(response, job, self.tools.now())

    def callback(self, headers: Mapping[str, str], body: bytes) -> Mapping[str, Outcome]:
        secret = self.settings.signing_secret
        if secret is None or not is_genuine(
            secret.get_secret_value(), headers, body, self.tools.now()
        ):
            raise NotAuthentic("The signature does not fit.")
        try:
            message = json.loads(body)
        except RecursionError:
            raise ValueError("too deep") from None
        return job_report(message, self.settings.url)

    async def _send(self, operation: str, people: Sequence[Person]) -> Outcomes:
        body = {
            "type": f"quittance.{operation}",
            "call_id": self.tools.call.id,
            "people": [_described(each) for each in people],
        }
        response = await self._post(body)
        ids = [each.id for each in people]
        return outcomes(response, ids, self.settings.url, self.tools.now())

    async def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        content = _ENCODER.encode(body).encode()
        headers = {
            "content-type": "application/json",
            "idempotency-key": self.tools.call.id,
            **self._signed(content),
        }
        return await self.tools.http.post(self._url, content=content, headers=headers)

    def _signed(self, content: bytes) -> dict[str, str]:
        call_id, moment = self.tools.call.id, str(int(self.tools.now().timestamp()))
        headers = {"webhook-id": call_id, "webhook-timestamp": moment}
        if secret := self.settings.signing_secret:
            headers["webhook-signature"] = sign(secret.get_secret_value(), call_id, moment, content)
        return headers


def key_of(secret: str) -> bytes:
    """The bytes of a ``whsec_...`` secret; ValueError says what one looks like."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("a signing secret is whsec_ followed by 24 to 64 bytes in Base64")
    return key


def sign(secret: str, message_id: str, timestamp: str, content: bytes) -> str:
    """Scheme v1: HMAC-SHA-256 over ``id.timestamp.content``."""
    signed = f"{message_id}.{timestamp}.".encode() + content
    digest = hmac.digest(key_of(secret), signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def is_genuine(secret: str, headers: Mapping[str, str], content: bytes, now: dt.datetime) -> bool:
    """Whether one of the signatures is of just this message, made just now."""
    message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    # A full stop in the id would let the signed bytes be cut in another place.
    if not message_id or "." in message_id or not re.fullmatch(r"[0-9]{1,12}", stamp):
        return False
    if abs(now.timestamp() - int(stamp)) > TOLERANCE.total_seconds():
        return False
    expected = sign(secret, message_id, stamp, content).encode()
    given = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(each.encode(), expected) for each in given)


def _described(person: Person) -> dict[str, Any]:
    identifiers = [{"kind": each.kind, "value": each.value} for each in person.identifiers]
    return {"delivery_id": person.id, "identifiers": identifiers}


def outcomes(response: httpx.Response, ids: Sequence[str], url: str, now: dt.datetime) -> Outcomes:
    """What an answer to a post means for the people with these delivery ids."""
    status = response.status_code
    if not response.is_success:
        return refusal(response, now)
    answer, is_readable = _answer(response)
    if not is_readable:
        return retry("unreadable_answer", http_status=status)
    if isinstance(answer, dict) and "results" in answer:
        return _results(answer["results"], ids, status)
    if _says_error(answer):
        return failed("destination_error", http_status=status)
    if status == 202:
        # Taken, not done; without an address of ours to ask at, it can never be confirmed.
        return accepted(job_of(response, url), after=retry_after(response, now), http_status=status)
    return _counted(answer, len(ids), status)


def _results(results: object, ids: Sequence[str], status: int) -> Outcomes:
    """One by one; ids that are not ours are ignored, and a missing one is tried again."""
    if not isinstance(results, dict):
        return retry("unreadable_answer", http_status=status)
    return {each: _result(results.get(each), status) for each in ids}


def _result(word: object, status: int | None) -> Outcome:
    if isinstance(word, str) and word in _RESULTS:
        return _RESULTS[word](http_status=status)
    if word == "failed":
        return failed("destination_failed", http_status=status)
    return retry("missing_result" if word is None else "unknown_result", http_status=status)


def _counted(answer: object, people: int, status: int) -> Outcome:
    """A body that counts what it deleted is believed: none is nobody, too few is not everybody."""
    deleted = answer.get("deleted") if isinstance(answer, dict) else None
    if isinstance(deleted, int) and not isinstance(deleted, bool) and people:
        if deleted <= 0:
            return absent(http_status=status)
        if deleted < people:
            return retry("fewer_deleted", http_status=status)
    return done(http_status=status)


def job_outcome(response: httpx.Response, job: str, now: dt.datetime) -> Outcome:
    """What a job's address says; whatever is not an end is still pending."""
    status = response.status_code
    if not response.is_success:
        return refusal(response, now)
    answer, is_readable = _answer(response)
    if not is_readable:
        return retry("unreadable_answer", http_status=status)
    if end := _end(answer, status):
        return end
    if status == 202 or (isinstance(answer, dict) and answer.get("status") is not None):
        return accepted(job, after=retry_after(response, now), http_status=status)
    return done(http_status=status)


def _end(answer: object, status: int | None) -> Outcome | None:
    """How a job ended, if its ``status`` is one of an end."""
    word = answer.get("status") if isinstance(answer, dict) else None
    if isinstance(word, str) and word in {"done", "absent", "failed"}:
        return _result(word, status)
    return failed("destination_error", http_status=status) if _says_error(answer) else None


def job_report(message: object, url: str) -> dict[str, Outcome]:
    """What a genuine callback says of its job; other messages say nothing to us. ValueError."""
    if not isinstance(message, dict):
        raise ValueError("not an object")
    if message.get("type") != "quittance.job":
        return {}
    job = message.get("job")
    address = job_at(job, url) if isinstance(job, str) else None
    if address is None:
        raise ValueError("no job of ours")
    return {address: _end(message, None) or accepted(address)}


def refusal(response: httpx.Response, now: dt.datetime) -> Outcome:
    """What a status other than 2xx means; a redirect is never followed."""
    status = response.status_code
    if status in {401, 403}:
        return retry("unauthorized", retry_after(response, now), parks=True, http_status=status)
    if status in _AGAIN or status >= 500:
        reason = "rate_limited" if status == 429 else "destination_unavailable"
        return retry(reason, retry_after(response, now), http_status=status)
    if 300 <= status < 400:
        return failed("redirected", http_status=status)
    return failed({404: "not_found", 410: "gone"}.get(status, "refused"), http_status=status)


def _answer(response: httpx.Response) -> tuple[object, bool]:
    """The JSON body (None when there is none, or plain text), and whether it could be read."""
    content = response.content.strip()
    if _UNDECODED in response.headers or content.startswith(b"<"):
        return None, False  # packed, or a page for people: sign-in walls answer 200 too
    try:
        return json.loads(content), True
    except (ValueError, RecursionError):
        is_json = content[:1] in {b"{", b"["} or "json" in response.headers.get("content-type", "")
        return None, not (is_json and content)


def _says_error(answer: object) -> bool:
    """A 2xx whose body says that it went wrong."""
    if not isinstance(answer, dict):
        return answer is False
    if any(answer.get(name) is False for name in ("ok", "success", "deleted", "done")):
        return True
    if any(answer.get(name) for name in _ERROR_WORDS):
        return True
    return str(answer.get("status", "")).lower() in _ERROR_WORDS


def job_of(response: httpx.Response, url: str) -> str | None:
    """The address of the job in ``Location``."""
    return job_at(response.headers.get("location", ""), url)


def job_at(location: str, url: str) -> str | None:
    """The job's full address, if it is at the endpoint's own origin."""
    try:
        job = str(httpx.URL(url).join(location).copy_with(fragment=None)) if location else ""
    except (httpx.InvalidURL, ValueError):
        return None
    return job if _JOB.fullmatch(job) and is_same_origin(job, url) else None


def is_same_origin(one: str, other: str) -> bool:
    """Same scheme, host and port, and no user name that could hide another host."""
    try:
        first, second = httpx.URL(one), httpx.URL(other)
    except (httpx.InvalidURL, ValueError):
        return False
    return not first.userinfo and _origin(first) == _origin(second)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def retry_after(response: httpx.Response, now: dt.datetime) -> dt.timedelta | None:
    """Seconds or a date, at most ``LONGEST_WAIT``; anything else, and the past, is no wish."""
    text = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+", text, re.ASCII):
        seconds = int(text[:10])
        return min(dt.timedelta(seconds=seconds), LONGEST_WAIT) if seconds else None
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    wait = moment - now
    return min(wait, LONGEST_WAIT) if wait > dt.timedelta() else None
