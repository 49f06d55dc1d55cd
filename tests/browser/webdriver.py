"""WebKitGTK's MiniBrowser over WebDriver (W3C), on a screen that nobody sees."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.browser.engine import PATIENCE, Actions, as_json, decoded
from tests.journeys.instance import wait_for
from tests.services.install import find
from tests.services.processes import free_ports

SCRIPT = """const done = arguments[0];
%s.then((value) => done({ value }), (error) => done({ error: String(error) }));"""
# No graphics card, no desktop.
SURROUNDINGS = {
    "GDK_BACKEND": "x11",
    "LIBGL_ALWAYS_SOFTWARE": "1",
    "NO_AT_BRIDGE": "1",
    "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
    "WEBKIT_DISABLE_DMABUF_RENDERER": "1",
}


class WebKit:
    """An ``Engine``; what its programs say is in ``webkit.log`` of its directory."""

    def __init__(self, driver: Path, directory: Path) -> None:
        self._log = directory / "webkit.log"
        self._programs: list[subprocess.Popen[bytes]] = []
        self._environment = os.environ | SURROUNDINGS | {"HOME": str(directory)}
        (port,) = free_ports(1)
        self._driver = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False
        )
        try:
            self._begin(driver, port)
        except BaseException:
            self.close()
            raise

    def _begin(self, driver: Path, port: int) -> None:
        self._environment["DISPLAY"] = self._screen()
        self._start(str(driver), "--host=127.0.0.1", f"--port={port}")
        wait_for(self._is_ready, "WebKit's driver to answer")
        browser = {"binary": str(mini_browser()), "args": ["--automation"]}
        wanted = {"alwaysMatch": {"webkitgtk:browserOptions": browser}}
        session = self._ask("POST", "/session", {"capabilities": wanted})["sessionId"]
        self._driver.base_url = httpx.URL(f"http://127.0.0.1:{port}/session/{session}")
        self._ask("POST", "/timeouts", {"script": int(PATIENCE * 1000)})

    def _start(self, *command: str, **more: Any) -> None:
        with self._log.open("ab") as output:
            program = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                **more,
            )
        self._programs.append(program)

    def _screen(self) -> str:
        """A screen that the server itself chose the number of."""
        screen = find("Xvfb")
        assert screen, "Xvfb is not on this machine"
        reading, writing = os.pipe()
        size = ("-screen", "0", "1280x900x24", "-nolisten", "tcp")
        self._start(screen, "-displayfd", str(writing), *size, pass_fds=[writing])
        os.close(writing)
        with os.fdopen(reading) as number:
            return f":{number.readline().strip()}"

    def _is_ready(self) -> bool:
        try:
            return self._driver.get("/status").is_success
        except httpx.TransportError:
            return False

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._driver.request(method, path, json=body)
        assert answer.is_success, f"{path}: {answer.text}"
        return answer.json()["value"]

    def goto(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def reload(self) -> None:
        self._ask("POST", "/refresh", {})

    def evaluate(self, expression: str) -> Any:
        script = SCRIPT % as_json(expression)
        answer = self._ask("POST", "/execute/async", {"script": script, "args": []})
        assert "error" not in answer, f"{expression}: {answer['error']}"
        return decoded(answer.get("value"))

    def perform(self, actions: Actions) -> None:
        self._ask("POST", "/actions", {"actions": actions})

    def close(self) -> None:
        with suppress(httpx.TransportError):
            self._driver.delete("")
        self._driver.close()
        for program in reversed(self._programs):
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()


def mini_browser() -> Path:
    """The newest of those that came with WebKitGTK."""
    found = sorted(
        [
            *Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"),
            *Path("/usr/libexec").glob("webkit2gtk-4.*/MiniBrowser"),
        ]
    )
    assert found, "there is no MiniBrowser beside WebKitGTK"
    return found[-1]
