"""`oms-events replay ...`."""
