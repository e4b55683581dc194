"""The commands `oms-events outbox ...`."""
