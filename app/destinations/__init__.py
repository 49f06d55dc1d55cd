"""Configured connectors: settings, secrets, catalogue, tools, health."""
