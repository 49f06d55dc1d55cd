"""Consent records: validating, appending and reading back choices."""
