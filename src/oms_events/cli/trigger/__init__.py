"""The commands `oms-events trigger ...`."""
