"""Personal data: fields encrypted under a key per person, and forgotten with it."""
