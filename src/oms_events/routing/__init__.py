"""Routing: rules, conditions, strategies, destinations and the router."""

from __future__ import annotations
