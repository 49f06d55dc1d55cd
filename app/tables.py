"""Every table, imported once, for migrations and tests."""

from __future__ import annotations

import app.consent.models
import app.crypto.models
import app.delivery.models
import app.destinations.models
import app.identity.models
import app.notifications.models
import app.receipts.models
import app.security.models
import app.sites.models
import app.subject_requests.models
import app.suppression.models
from app.core.db import Keys, Main

MAIN = Main.metadata
KEYS = Keys.metadata

__all__ = ["KEYS", "MAIN"]
