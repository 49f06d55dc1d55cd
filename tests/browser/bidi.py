"""Firefox over WebDriver BiDi (W3C), which it speaks by itself."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.browser.engine import PATIENCE, Actions, as_json, decoded
from tests.journeys.instance import wait_for

# Whatever it would like to tell or ask its makers ends at a port where nobody listens.
PREFERENCES = {
    "network.proxy.type": "1",
    "network.proxy.http": '"127.0.0.1"',
    "network.proxy.http_port": "9",
    "network.proxy.ssl": '"127.0.0.1"',
    "network.proxy.ssl_port": "9",
    "datareporting.policy.dataSubmissionEnabled": "false",
}


class Firefox:
    """An ``Engine``; what it says is in ``firefox.log`` of its directory."""

    def __init__(
        self, program: Path, directory: Path, preferences: Mapping[str, str] | None = None
    ) -> None:
        profile = directory / "profile"
        profile.mkdir()
        wanted = {**PREFERENCES, **(preferences or {})}
        lines = [f'user_pref("{name}", {value});\n' for name, value in wanted.items()]
        (profile / "user.js").write_text("".join(lines))
        self._log = directory / "firefox.log"
        command = [str(program), "--headless", "--no-remote", "--remote-debugging-port=0"]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "--profile", str(profile)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"HOME": str(directory)},
                start_new_session=True,
            )
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._http: aiohttp.ClientSession | None = None
        self._count = 0
        try:
            address = wait_for(self._address, "Firefox to listen")
            self._runner.run(self._connect(address))
            self._ask("session.new", capabilities={})
            # The first window has no focus, without which keys press no buttons.
            self._window = self._ask("browsingContext.create", type="window")["context"]
        except BaseException:
            self.close()
            raise

    def _address(self) -> str | None:
        said = re.search(r"BiDi listening on (ws://\S+)", self._log.read_text(errors="replace"))
        return said[1] if said else None

    async def _connect(self, address: str) -> None:
        self._http = aiohttp.ClientSession()
        self._socket = await self._http.ws_connect(f"{address}/session", max_msg_size=0)

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._runner.run(self._answer(method, parameters))

    async def _answer(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": parameters})
        while (said := await self._socket.receive_json(timeout=PATIENCE)).get("id") != self._count:
            """An event."""
        assert said["type"] == "success", f"{method}: {said}"
        return dict(said["result"])

    def goto(self, url: str) -> None:
        self._ask("browsingContext.navigate", context=self._window, url=url, wait="complete")

    def reload(self) -> None:
        self._ask("browsingContext.reload", context=self._window, wait="complete")

    def evaluate(self, expression: str) -> Any:
        answer = self._ask(
            "script.evaluate",
            expression=as_json(expression),
            target={"context": self._window},
            awaitPromise=True,
        )
        assert answer["type"] == "success", f"{expression}: {answer['exceptionDetails']['text']}"
        return decoded(answer["result"].get("value"))

    def perform(self, actions: Actions) -> None:
        self._ask("input.performActions", context=self._window, actions=actions)

    def close(self) -> None:
        if self._http is not None:
            self._runner.run(self._http.close())  # and with it the socket
        self._runner.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
