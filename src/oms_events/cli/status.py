"""`oms-events status`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from oms_events.cli.common import ExitCode, config_option, ends_cleanly, make_router, read_settings, run
from oms_events.cli.output import print_json, print_table
from oms_events.routing.router import EventRouter


@click.command()
@config_option
@ends_cleanly
def status(*, config_file: Path | None, as_json: bool) -> None:
    """Connect to all platforms, check them once, and show how they are.

    Ends with 1 when the primary platform is not healthy.
    """
    found = run(_check(make_router(read_settings(config_file))))
    summary = found["health_summary"]
    if as_json:
        print_json(found)
    else:
        _print(found)
    sys.exit(ExitCode.OK if summary["primary_platform_healthy"] else ExitCode.FAILED)


async def _check(router: EventRouter) -> dict[str, Any]:
    async with router:
        return router.get_platform_status()


def _print(found: dict[str, Any]) -> None:
    print_table(
        ("platform", "primary", "state", "breaker", "error"),
        [
            (
                name,
                platform["is_primary"],
                "healthy" if platform["healthy"] else "unhealthy",
                platform["breaker"],
                platform["check_error"] or platform["last_error"],
            )
            for name, platform in found["platforms"].items()
        ],
    )
    summary = found["health_summary"]
    state = "healthy" if summary["primary_platform_healthy"] else "not healthy"
    click.echo(
        f"{summary['healthy_platforms']} of {summary['total_platforms']} platforms healthy; "
        f"the primary, {summary['primary_platform']}, is {state}; {len(found['routing_rules'])} rules"
    )
