"""The real servers the tests talk to: installed if need be, started privately, stopped completely.

``python -m tests.services up | down | env | run -- COMMAND``. Only the standard library is
used, so that it works before anything else does.
"""
