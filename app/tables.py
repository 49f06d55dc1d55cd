"""Every table, imported once, for migrations and tests."""

from __future__ import annotations

from app.consent import models as consent
from app.core.db import Keys, Main
from app.crypto import models as crypto
from app.delivery import models as delivery
from app.destinations import models as destinations
from app.identity import models as identity
from app.notifications import models as notifications
from app.receipts import models as receipts
from app.security import models as security
from app.sites import models as sites
from app.subject_requests import models as subject_requests
from app.suppression import models as suppression

DOMAINS = (
    consent,
    crypto,
    delivery,
    destinations,
    identity,
    notifications,
    receipts,
    security,
    sites,
    subject_requests,
    suppression,
)
"""Importing a domain's models puts its tables into ``MAIN`` or ``KEYS``."""

MAIN = Main.metadata
KEYS = Keys.metadata
