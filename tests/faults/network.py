"""A network of its own for one destination: a namespace, and a wire to be cut (Linux, as root)."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
import uuid
from pathlib import Path
from types import TracebackType

from tests.services.install import find

IP = find("ip") or "ip"
NEAR, FAR = "10.231.77.1", "10.231.77.2"
NETWORK = f"{NEAR}/30"


class Wire:
    """``listener`` is a bound socket at the far end. Cut, it loses everything in silence."""

    def __init__(self) -> None:
        self._name = f"q{uuid.uuid4().hex[:8]}"
        self.listener = socket.socket()

    def __enter__(self) -> Wire:
        near, far = f"{self._name}n", f"{self._name}f"
        try:
            self._ip("netns", "add", self._name)
            self._ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self._name)
            self._ip("addr", "add", NETWORK, "dev", near)
            self._ip("link", "set", near, "up")
            self._ip("-n", self._name, "addr", "add", f"{FAR}/30", "dev", far)
            self._ip("-n", self._name, "link", "set", far, "up")
            entering = threading.Thread(target=self._listen_inside)
            entering.start()
            entering.join()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self.listener.close()
        subprocess.run([IP, "netns", "del", self._name], check=False, capture_output=True)

    def _listen_inside(self) -> None:
        """Only this thread enters the namespace; a socket stays where it was made."""
        with Path(f"/var/run/netns/{self._name}").open() as namespace:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        self.listener = socket.socket()
        self.listener.bind((FAR, 0))

    def cut(self) -> None:
        self._ip("-n", self._name, "link", "set", f"{self._name}f", "down")

    def mend(self) -> None:
        self._ip("-n", self._name, "link", "set", f"{self._name}f", "up")

    def _ip(self, *arguments: str) -> None:
        subprocess.run([IP, *arguments], check=True, capture_output=True)


def why_not() -> str | None:
    """Why no namespace can be made here; None if it can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root"
    try:
        with Wire():
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"the kernel or `ip` refuses ({error})"
