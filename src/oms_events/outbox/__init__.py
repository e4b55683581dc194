"""The transactional outbox: events stored with the business write, relayed by processors in the same app."""
