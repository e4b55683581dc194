"""Runs all benchmarks; exit code 1 when a target was missed. Run: python -m benchmarks"""

from __future__ import annotations

import asyncio
import sys

from benchmarks import eventbridge, eventstore, jetstream, outbox, routing

if __name__ == "__main__":
    sys.exit(
        max(asyncio.run(jetstream.main()), eventbridge.main(), routing.main(), outbox.main(), eventstore.main())
    )
