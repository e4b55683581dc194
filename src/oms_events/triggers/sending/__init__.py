"""Where starts go on, wait, and end: chunks, events, the delay queue, dead letters."""
