"""Drip sequences of messages over many senders, as a state machine in PostgreSQL."""

__version__ = "0.1.0"

SCHEMA_VERSIONS: frozenset[str] = frozenset({"1"})
"""What `pgdrip.schema_version()` of a database may answer for this package."""
