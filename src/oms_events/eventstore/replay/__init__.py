"""Replays: from the event store through the router, and from an EventBridge archive."""
