"""Starts from schedules, events, notifications and people, as one kind of request."""
