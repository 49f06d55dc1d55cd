"""Tests mirror ``app/`` and ``connectors/``; whole stories are in ``journeys/``."""
