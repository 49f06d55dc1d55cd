"""What a caller can get wrong about destinations."""

from __future__ import annotations

from app.core.errors import Conflict, Invalid


class UnknownConnector(Invalid):
    slug, title = "unknown-connector", "There is no such connector"


class SettingsRefused(Invalid):
    slug, title = "settings-refused", "The connector does not take these settings"


class SecretNeeded(Invalid):
    slug, title = "secret-needed", "Enter the secrets again"


class ChangedMeanwhile(Conflict):
    slug, title = "changed-meanwhile", "Somebody else changed this destination"
