"""The only door to nats-py: connections, requests to JetStream, and how events lie in messages."""
