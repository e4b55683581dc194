"""Routes CloudEvents to several platforms at once: NATS JetStream, AWS EventBridge and your own."""
