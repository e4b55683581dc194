"""oms-events."""
