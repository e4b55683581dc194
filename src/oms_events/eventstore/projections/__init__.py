"""Projections: read models of events, exactly once, from every source."""
