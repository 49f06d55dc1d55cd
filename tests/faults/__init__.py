"""Fault runs: the service is hurt in every way we know, then its history is held against the
invariants. ``make faults`` runs all of it, ``make test`` the most telling part.
"""
