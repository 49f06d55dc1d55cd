"""Which Debian packages the servers come from, and how they get onto a machine that lacks them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PACKAGES = {
    "postgres": ("postgresql",),
    "mariadb": ("mariadb-server",),
    "redis": ("redis-server",),
    "rabbitmq": ("rabbitmq-server",),
    "chromium": ("chromium",),
    "firefox": ("firefox-esr",),
    "webkit": ("webkit2gtk-driver", "xvfb"),
}
SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/rabbitmq/bin")
POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = """#!/bin/sh
# Written by Quittance's tests while they install packages; safe to delete.
exit 101
"""


def find(program: str) -> str | None:
    """The path of ``program``; servers often live where an ordinary PATH does not look."""
    newest_first = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True
    )
    places = (*map(str, newest_first), os.environ.get("PATH", os.defpath), *SYSTEM_DIRECTORIES)
    return shutil.which(program, path=os.pathsep.join(places))


PROGRAMS = {
    "postgres": ("initdb", "postgres", "psql"),
    "mariadb": ("mariadbd", "mariadb-install-db"),
    "redis": ("redis-server",),
    "rabbitmq": ("rabbitmq-server", "epmd"),
    "chromium": ("chromium",),
    "firefox": ("firefox-esr",),
    "webkit": ("WebKitWebDriver", "Xvfb"),
}
BROWSERS = {
    "chromium": "TEST_CHROMIUM",
    "firefox": "TEST_FIREFOX",
    "webkit": "TEST_WEBKIT",
}
"""The variables that name the first of their programs."""


def missing() -> list[str]:
    """Names (keys of ``PACKAGES``) of what is not on this machine."""
    return [name for name, programs in PROGRAMS.items() if not all(map(find, programs))]


def can_install() -> bool:
    return (
        os.geteuid() == 0 and Path("/etc/debian_version").exists() and find("apt-get") is not None
    )


def install(names: list[str], log: Path) -> bool:
    """Install the packages of ``names``, waiting for any other apt; its words are in ``log``."""
    packages = packages_of(names)
    say(f"installing {' '.join(packages)} (first run only, apt's words are in {log}) ...")
    with services_stay_stopped(), log.open("w") as output:
        for attempt in range(10):  # `update` does not wait for its lock by itself
            if attempt:
                time.sleep(10)
            if apt_get("update", output=output):
                break
        # An `update` that never succeeded is no reason to give up: an older index may do.
        is_done = install_packages(packages, output)
        if not is_done and len(names) > 1:  # one that this system lacks must not cost the others
            each_done = [install_packages(PACKAGES[name], output) for name in names]
            is_done = all(each_done)
    if not is_done:
        say(log.read_text(errors="replace")[-2000:])
    return is_done


def packages_of(names: Sequence[str]) -> list[str]:
    return [package for name in names for package in PACKAGES[name]]


def install_packages(packages: Sequence[str], output: IO[str]) -> bool:
    return apt_get("install", "--no-install-recommends", *packages, output=output)


def apt_get(*arguments: str, output: IO[str]) -> bool:
    command = ["apt-get", "--yes", "--quiet=2", "-o", "DPkg::Lock::Timeout=300", *arguments]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    ended = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return ended.returncode == 0


@contextmanager
def services_stay_stopped() -> Iterator[None]:
    """Keep packages from starting servers; a machine's own policy is left as it is."""
    if POLICY.exists() and POLICY.read_text() != POLICY_TEXT:
        yield
        return
    POLICY.write_text(POLICY_TEXT)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def advice(names: list[str]) -> str:
    """What a person does about ``names`` when the tests may not install them."""
    packages = " ".join(packages_of(names))
    return (
        f"not on this machine: {', '.join(names)}. On Debian or Ubuntu: "
        f"sudo apt-get install {packages}; elsewhere put their programs on PATH, "
        "or set TEST_..._URL to a server that the tests may fill and empty."
    )


def say(text: str) -> None:
    sys.stderr.write(f"services: {text}\n")
    sys.stderr.flush()
