"""Somebody's own site, on a port of its own, for the tests of what is embedded in it."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIXEL = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\0\0\0!\xf9\4\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
NONCE = "c2hvcA"

# Held back: `ran` tells what ran and in which order, the host's log what was fetched.
GATES = f"""
<script type="text/plain" data-purpose="analytics" nonce="{NONCE}">ran.push("first")</script>
<script type="text/plain" data-purpose="analytics" nonce="{NONCE}" data-src="/held/second.js"></script>
<script type="text/plain" data-purpose="analytics" nonce="{NONCE}">ran.push("third")</script>
<script type="text/plain" data-purpose="advertising" nonce="{NONCE}" data-src="/held/fourth.js"></script>
<img data-purpose="advertising" data-src="/held/pixel.gif" alt="">
<iframe data-purpose="functional" data-src="/held/film" width="400" height="225" title="Film"></iframe>
"""  # noqa: E501 - markup reads better in lines of its own
ORDER = ["first", "second", "third", "fourth"]


class Shop:
    """Somebody's site on an origin of its own; ``log`` has every path that was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[str, str]] = {}
        self.scripts: dict[str, bytes] = {}
        self.styles = ""
        self.log: list[str] = []
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.log.append(self.path)
                status, kind, body, policy = shop._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                if policy:
                    self.send_header("Content-Security-Policy", policy)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        # Not 127.0.0.1, so that the service is another site to the browser, not only another port.
        self.origin = f"http://localhost:{self._server.server_port}"

    def _answer(self, path: str) -> tuple[int, str, bytes, str]:
        if page := self.pages.get(path):
            return 200, "text/html; charset=utf-8", page[0].encode(), page[1]
        if own := self.scripts.get(path):
            return 200, "text/javascript", own, ""
        if path == "/look.css":
            return 200, "text/css", self.styles.encode(), ""
        if script := re.fullmatch(r"/held/(\w+)\.js", path):
            return 200, "text/javascript", f'ran.push("{script[1]}")'.encode(), ""
        if path.endswith(".gif"):
            return 200, "image/gif", PIXEL, ""
        return (200 if path == "/held/film" else 404), "text/html", b"<p>A film</p>", ""

    @property
    def vendor(self) -> str:
        """The same files on another site."""
        return self.origin.replace("localhost", "stats.localhost")

    def embed(
        self, tag: str, service: str, *, markup: str = GATES, types: str = "quittance",
        also: str = "",
    ) -> str:  # fmt: skip
        """The address of a new page with ``tag`` in its head, under a strict policy that allows the
        service's address and those in ``also``. The page keeps what ran and which rules of the
        policy were broken.
        """
        path = f"/{len(self.pages)}"
        html = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Shop</title>
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,"><link rel="stylesheet" href="/look.css">
<script nonce="{NONCE}">
  const ran = [];
  const broken = [];
  const note = (event) => broken.push(event.violatedDirective + " " + event.blockedURI);
  addEventListener("securitypolicyviolation", note);
</script>
{tag}
<body><main><h1>Shop</h1><a href="#">A link</a>{markup}</main></body></html>"""
        policy = (
            f"default-src 'none'; script-src 'nonce-{NONCE}' {service}; connect-src {service}; "
            f"style-src 'self' {also}; img-src 'self' data: {also}; frame-src 'self' {also}; "
            "base-uri 'none'; "
            f"form-action 'none'; require-trusted-types-for 'script'; trusted-types {types}"
        )
        self.pages[path] = html, policy
        return self.origin + path

    @property
    def held(self) -> list[str]:
        """What was fetched of what is held back."""
        return sorted(path for path in self.log if path.startswith("/held/"))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
