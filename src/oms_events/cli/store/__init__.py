"""The commands `oms-events store ...`."""
