"""The guard on every way out: which addresses may be reached, and the one HTTP client that asks it.

The numeric address that is really connected to decides, not the name: a name is looked up once, all
its answers must pass, and the socket is opened to one of them. Nothing is followed, unpacked or
remembered between calls.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any
from urllib.parse import unquote

import aiohttp
import certifi
import httpx
import yarl
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError

from app.core.settings import Networks, Settings
from connectors.contract import AddressRefused

ANSWER_LIMIT = 1 << 20
"""Bytes read of one answer; it is never unpacked, so this is also the decoded size."""
UNDECODED = "x-undecoded-content-encoding"
"""Header we add: the encoding of an answer that came packed though we asked for none."""

Address = IPv4Address | IPv6Address
Lookup = Callable[..., list[Any]]
"""``socket.getaddrinfo`` or a test's stand-in."""

_GLOBAL_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
# `ipaddress` calls these global: relays and sinks of the registries, and a cloud's host agent.
_REFUSED = tuple(
    ipaddress.ip_network(each)
    for each in (
        "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata service is 192.0.0.192
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.175.48.0/24",
        "168.63.129.16/32",  # Azure's host agent
        "2001::/23",
        "2620:4f:8000::/48",
        "3fff::/20",  # documentation
    )
)
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?][!-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)


class AnswerTooLarge(httpx.TransportError):
    """The destination answered with more than ``ANSWER_LIMIT`` bytes; reading stopped there."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Where destinations may be.

    ``extra_allowed`` are pairs of numeric address and port: the demo's own receivers.
    """

    networks: Networks = ()
    ports: frozenset[int] = frozenset({443})
    extra_allowed: set[tuple[str, int]] = field(default_factory=set)


def policy_of(settings: Settings) -> Policy:
    return Policy(settings.allowed_private_networks, frozenset(settings.allowed_ports))


def is_allowed_address(
    ip: str | Address, port: int, policy: Policy, *, is_plain: bool = False
) -> bool:
    """Whether a socket may be opened there; ``is_plain``: without TLS, so to no public address."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    meant = (address, *_embedded(address))
    if any(each.is_multicast or each.is_unspecified for each in meant):
        return False
    if _is_listed(address, port, policy):
        return True
    return all(
        _is_listed(each, port, policy)
        or (not is_plain and port in policy.ports and _is_public(each))
        for each in meant[1:] or meant
    )


def _embedded(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that a mapped, compatible, 6to4, Teredo or NAT64 address leads to."""
    if isinstance(address, IPv4Address):
        return ()
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address.sixtofour:
        return (address.sixtofour,)
    if address.teredo:
        return address.teredo
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    return ()


def _is_listed(address: Address, port: int, policy: Policy) -> bool:
    return (str(address), port) in policy.extra_allowed or any(
        address in network for network in policy.networks
    )


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and (address not in _GLOBAL_V6 or address.is_site_local):
        return False
    return (
        address.is_global
        and not address.is_reserved
        and not any(address in network for network in _REFUSED)
    )


def resolve(host: str, port: int, policy: Policy, lookup: Lookup = socket.getaddrinfo) -> str:
    """A numeric address of ``host`` for a driver to connect to; all must pass. Blocking."""
    return _checked_answers(host, port, policy, lookup, is_plain=False)[0]


def _checked_answers(
    host: str, port: int, policy: Policy, lookup: Lookup, *, is_plain: bool
) -> list[str]:
    """All numeric addresses; ``AddressRefused`` if one may not be used, OSError if none is."""
    found = lookup(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    if not addresses:
        raise OSError("the name has no address")
    _require(addresses, port, policy, is_plain=is_plain)
    return addresses


def _require(addresses: Iterable[str], port: int, policy: Policy, *, is_plain: bool) -> None:
    if not all(is_allowed_address(each, port, policy, is_plain=is_plain) for each in addresses):
        raise AddressRefused(
            "The address or port may not be reached: public addresses only with TLS and on the "
            "ports of QUITTANCE_ALLOWED_PORTS, others in QUITTANCE_ALLOWED_PRIVATE_NETWORKS."
        )


def check_url(url: str, policy: Policy, lookup: Lookup = socket.getaddrinfo) -> None:
    """Refuse an HTTP address that could never be called (``AddressRefused``), when it is saved.

    Only one spelling is taken, so that no two parsers can differ. A name is looked up (blocking)
    only where it must be private: for plain http, and for ports closed to public addresses.
    """
    found = _URL.fullmatch(url)
    if found is None or len(url) > 2000 or "#" in url or "\\" in url or "@" in _authority(url):
        raise AddressRefused(
            "Write the address as https://host/path: ASCII only, at most 2000 characters, without "
            "a user name, a fragment, spaces or back slashes."
        )
    is_plain = found["scheme"].lower() == "http"
    port = int(found["port"] or (80 if is_plain else 443))
    host = found["host"].strip("[]").lower()
    literal = _literal(host)
    if literal:
        _require([literal], port, policy, is_plain=is_plain)
    elif is_plain or port not in policy.ports:
        _check_private_name(host, port, policy, lookup, is_plain=is_plain)


def _authority(url: str) -> str:
    return re.split(r"[/?]", url.partition("://")[2], maxsplit=1)[0]


def _literal(host: str) -> str | None:
    """The address that ``host`` spells, None for a name; odd spellings of numbers are refused."""
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    if ":" not in host and not _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return None
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise AddressRefused(
            "Write a numeric address in its usual form, such as 192.0.2.1."
        ) from None


def _check_private_name(
    host: str, port: int, policy: Policy, lookup: Lookup, *, is_plain: bool
) -> None:
    if not policy.networks and not policy.extra_allowed:
        _require([""], port, policy, is_plain=is_plain)
    try:
        _checked_answers(host, port, policy, lookup, is_plain=is_plain)
    except OSError:
        raise AddressRefused(
            "The name cannot be found now; plain http and other ports need a name inside "
            "QUITTANCE_ALLOWED_PRIVATE_NETWORKS."
        ) from None


_IS_PLAIN: ContextVar[bool] = ContextVar("is_plain", default=False)
"""Whether the call being made goes without TLS: read where its socket is opened."""


class _Resolver(AbstractResolver):
    """Looks names up in threads of its own, and refuses a name with one bad answer."""

    def __init__(self, policy: Policy, lookup: Lookup) -> None:
        self._policy = policy
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(16, "resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        is_plain = _IS_PLAIN.get()
        addresses = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: _checked_answers(host, port, self._policy, self._lookup, is_plain=is_plain),
        )
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                proto=socket.IPPROTO_TCP,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Transport(httpx.AsyncBaseTransport):
    """Calls through an aiohttp session; an answer is read whole, neither unpacked nor endless."""

    def __init__(self, open_session: Callable[[], aiohttp.ClientSession]) -> None:
        self._open_session = open_session
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        _refuse_odd(request.url)
        if self._session is None:
            self._session = self._open_session()
        content = await request.aread()
        timeout = request.extensions.get("timeout", {})
        token = _IS_PLAIN.set(request.url.scheme == "http")
        try:
            async with self._session.request(
                request.method,
                # As it is: httpx has quoted it, and somebody may have signed that.
                yarl.URL(
                    f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
                    f"{request.url.raw_path.decode('ascii')}",
                    encoded=True,
                ),
                headers=_headers_of(request),
                data=content or None,
                allow_redirects=False,
                timeout=_timeout_of(timeout),
            ) as answer:
                content = await _read(
                    answer, timeout.get("read"), is_empty=request.method == "HEAD"
                )
        except AnswerTooLarge as error:
            error.request = request
            raise
        except (aiohttp.ClientError, HttpProcessingError, TimeoutError) as error:
            raise _as_httpx(error)(str(error), request=request) from error
        finally:
            _IS_PLAIN.reset(token)
        return _Answer(answer, content, request)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


def _headers_of(request: httpx.Request) -> dict[str, str]:
    """What is sent: nothing that would have the answer packed, and no chunks, as the length of the
    body is known.
    """
    headers = dict(request.headers.items())  # the names in lower case
    headers["accept-encoding"] = "identity"
    headers.pop("transfer-encoding", None)
    return headers


class _Answer(httpx.Response):
    """An answer that was read whole. What is at hand is kept from httpx's own ways of reading,
    which unpack all at once and cost a tenth of a call.
    """

    def __init__(
        self, answer: aiohttp.ClientResponse, content: bytes, request: httpx.Request
    ) -> None:
        headers = httpx.Headers(answer.raw_headers)
        if hdrs.CONTENT_ENCODING in answer.headers:
            _hide_encoding(headers)
        stream = httpx.ByteStream(content)
        super().__init__(answer.status, headers=headers, stream=stream, request=request)
        self._whole = content

    @property
    def content(self) -> bytes:
        return self._whole


async def _read(answer: aiohttp.ClientResponse, seconds: float | None, *, is_empty: bool) -> bytes:
    """The whole body, waiting for each piece so long; ``AnswerTooLarge``."""
    if not is_empty and (answer.content_length or 0) > ANSWER_LIMIT:
        answer.close()
        raise AnswerTooLarge("the answer is too large")
    chunks, size = [], 0
    while not answer.content.at_eof():
        # aiohttp's own timer stops with a connection whose framing broke.
        async with asyncio.timeout(seconds):
            chunk = await answer.content.readany()
        chunks.append(chunk)
        size += len(chunk)
        if size > ANSWER_LIMIT:
            answer.close()
            raise AnswerTooLarge("the answer is too large")
    return b"".join(chunks)


def _timeout_of(wanted: Mapping[str, float | None]) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        connect=wanted.get("pool"),
        sock_connect=wanted.get("connect"),
        sock_read=wanted.get("read"),
    )


def _as_httpx(error: Exception) -> type[httpx.TransportError]:
    """What httpx calls it."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout
        case TimeoutError():
            return httpx.ReadTimeout
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError
        case aiohttp.ClientOSError():
            return httpx.ReadError
    return httpx.RemoteProtocolError


def _refuse_odd(url: httpx.URL) -> None:
    if url.scheme not in {"http", "https"} or url.userinfo:
        raise AddressRefused("Only http and https addresses without a user name can be called.")
    path = url.raw_path.decode("ascii").partition("?")[0]
    if "%2e" in path.lower() and any(unquote(part) in {".", ".."} for part in path.split("/")):
        raise httpx.InvalidURL("the path climbs")  # the layer below would resolve it


def _hide_encoding(headers: httpx.Headers) -> None:
    """From httpx, which would unpack the whole answer at once."""
    encoding = headers.get("content-encoding", "").strip()
    if encoding and encoding.lower() != "identity":
        headers[UNDECODED] = encoding
        del headers["content-encoding"]


class _Client(httpx.AsyncClient):
    """Sends each request just once: nothing is followed, signed in to, or remembered."""

    def __init__(self, transport: _Transport, **options: Any) -> None:
        super().__init__(transport=transport, **options)
        self._way_out = transport

    def build_request(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        timeout: Any = httpx.USE_CLIENT_DEFAULT,
        extensions: Mapping[str, Any] | None = None,
        **parts: Any,
    ) -> httpx.Request:
        """The request as it is given: there is nothing of the client's own to merge it with."""
        more = dict(extensions or {})
        if timeout is not httpx.USE_CLIENT_DEFAULT:
            more.setdefault("timeout", httpx.Timeout(timeout).as_dict())
        return httpx.Request(method, url, extensions=more, **parts)

    async def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
        request.extensions.setdefault("timeout", self.timeout.as_dict())
        return await self._way_out.handle_async_request(request)


@cache
def _authorities() -> ssl.SSLContext:
    """Trusts the system's own authorities and certifi's; reading them takes a tenth of a second."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


class Outbound:
    """The way out of this process: one HTTP client with one pool, and the same guard for drivers.

    Its session opens with the first call and belongs to the event loop of that call.
    """

    def __init__(
        self, policy: Policy, *, connections: int = 256, lookup: Lookup = socket.getaddrinfo
    ) -> None:
        self.policy = policy
        self._connections = connections
        self._lookup = lookup
        self._resolver = _Resolver(policy, lookup)
        self._tls = _authorities()
        self.http = _Client(
            _Transport(self._open_session),
            timeout=httpx.Timeout(30, connect=10),
            trust_env=False,
        )

    @classmethod
    def of(cls, settings: Settings) -> Outbound:
        return cls(policy_of(settings), connections=settings.worker_in_flight)

    def resolve(self, host: str, port: int) -> str:
        """See ``resolve``."""
        return resolve(host, port, self.policy, self._lookup)

    def check_url(self, url: str) -> None:
        """See ``check_url``."""
        check_url(url, self.policy, self._lookup)

    async def close(self) -> None:
        await self.http.aclose()
        await self._resolver.close()

    def _open_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._connections,
            ssl=self._tls,
            resolver=self._resolver,
            socket_factory=self._socket,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            headers={hdrs.USER_AGENT: f"Quittance/{metadata.version('quittance')}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )
        # It would send a DELETE once more by itself when a kept connection turns out to be dead;
        # what was perhaps applied is sent again by the engine alone, and written down.
        session._retry_connection = False
        return session

    def _socket(self, info: Any) -> socket.socket:
        """Called for every address about to be connected to, literal or looked up."""
        family, kind, protocol, _, (address, port, *_) = info
        _require([address], port, self.policy, is_plain=_IS_PLAIN.get())
        return socket.socket(family, kind, protocol)
