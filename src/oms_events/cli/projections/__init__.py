"""The commands `oms-events projections ...`."""
