"""Signed statements of what was done, and their verification."""
