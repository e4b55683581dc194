"""Aggregates: pure decisions, their repository, and snapshots."""
