"""Where the command begins: with one clean line when the extra `cli` is missing."""

from __future__ import annotations

import sys

from oms_events.errors import MissingExtraError


def main() -> None:
    """Runs `oms-events` with the arguments of this process, and ends it with an exit code."""
    try:
        from oms_events.cli.app import app

        app(prog_name="oms-events")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("click", "rich"):
            raise
        print(MissingExtraError("cli", needed_for="the command oms-events"), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
