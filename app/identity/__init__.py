"""Identifiers: normalising them, keeping them sealed, proving that somebody is who they say."""
