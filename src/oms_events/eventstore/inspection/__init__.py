"""Looking into a store: verification, statistics, following new events."""
