"""Two ways for mail to leave: SMTP, or files in the data directory (the embedded form,
shown at /dev/mail).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import smtplib
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from app.core.clock import rfc3339
from app.core.settings import Settings
from app.notifications.service import Letter, Postman, Undeliverable, message_of


class FilePostman:
    """Writes each mail as one JSON file, newest last by name; nothing leaves the machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def deliver(self, mail_id: str, letter: Letter, at: dt.datetime) -> None:
        content = {
            "id": mail_id,
            "to": letter.to,
            "subject": letter.subject,
            "text": letter.text,
            "html": letter.html,
            "links": list(letter.links),
            "at": rfc3339(at),
            "attachment": letter.attachment
            and dict(zip(("name", "text"), letter.attachment, strict=True)),
        }
        await asyncio.to_thread(self._write, mail_id, content)

    def _write(self, mail_id: str, content: dict[str, Any]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = self._directory / f".{mail_id}"
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file)
        scratch.rename(self._directory / f"{mail_id}.json")

    def read(self, limit: int = 200) -> list[dict[str, Any]]:
        """The newest mails, newest first."""
        if not self._directory.is_dir():
            return []
        paths = sorted(self._directory.glob("mail_*.json"), reverse=True)[:limit]
        return [json.loads(path.read_text()) for path in paths]

    def sweep(self, older_than: dt.datetime) -> None:
        """Mail files hold addresses: they do not stay."""
        if self._directory.is_dir():
            for path in self._directory.glob("mail_*.json"):
                if path.stat().st_mtime < older_than.timestamp():
                    path.unlink(missing_ok=True)


class SmtpPostman:
    """One connection per mail, with verified TLS: ``smtps://`` from the start, ``smtp://`` by
    STARTTLS.

    A server without STARTTLS is accepted on loopback only.
    """

    def __init__(self, url: str, sender: str) -> None:
        self._url = urlsplit(url)
        self._sender = sender

    async def deliver(self, mail_id: str, letter: Letter, at: dt.datetime) -> None:
        host = self._sender.rpartition("@")[2].rstrip("> ")
        message = message_of(letter, self._sender, at, f"privacy.{host}")
        await asyncio.to_thread(self._send, message)

    def _send(self, message: Any) -> None:
        host, is_tls = self._url.hostname or "localhost", self._url.scheme == "smtps"
        context = ssl.create_default_context()
        client: smtplib.SMTP
        if is_tls:
            client = smtplib.SMTP_SSL(host, self._url.port or 465, timeout=20, context=context)
        else:
            client = smtplib.SMTP(host, self._url.port or 587, timeout=20)
        with client:
            if not is_tls:
                self._start_tls(client, host, context)
            if self._url.username:
                client.login(unquote(self._url.username), unquote(self._url.password or ""))
            try:
                client.send_message(message)
            except smtplib.SMTPRecipientsRefused as error:
                if all(code >= 500 for code, _ in error.recipients.values()):
                    raise Undeliverable from None
                raise

    def _start_tls(self, client: smtplib.SMTP, host: str, context: ssl.SSLContext) -> None:
        client.ehlo()
        if client.has_extn("starttls"):
            client.starttls(context=context)
        elif host not in {"localhost", "127.0.0.1", "::1"}:
            raise ssl.SSLError("the mail server offers no STARTTLS")


def postman_for(settings: Settings) -> Postman:
    if settings.smtp_url:
        return SmtpPostman(settings.smtp_url, settings.mail_from)
    return FilePostman(settings.data_dir / "mail")
