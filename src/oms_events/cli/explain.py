"""`oms-events route explain`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from oms_events.cli.common import (
    ExitCode,
    config_option,
    ends_cleanly,
    make_router,
    platform_option,
    read_settings,
)
from oms_events.cli.event_options import EventInput, takes_events
from oms_events.cli.output import print_fields, print_json, print_table, tell
from oms_events.cli.parsing import Item, make_parser
from oms_events.cli.reading import open_input, read_items
from oms_events.routing.explain import Explanation


@click.command()
@takes_events
@click.option("--down", multiple=True, metavar="PLATFORM", help="Assume that this platform is down.")
@platform_option
@config_option
@ends_cleanly
def explain(
    *, given: EventInput, down: Sequence[str], platforms: Sequence[str], config_file: Path | None, as_json: bool
) -> None:
    """Say which rule takes an event, why the others do not, and where it would go.

    The event comes from the flags (--type ...) or from FILE (- for standard input). Nothing is published, and
    nothing is connected to.
    """
    router = make_router(read_settings(config_file), platforms)
    known = {*router.get_platform_status()["platforms"], *(p for r in router.routing_rules for p in r.platforms)}
    if unknown := sorted(set(down) - known):
        raise click.BadParameter(
            f"nobody knows {', '.join(unknown)}; there are {', '.join(sorted(known))}", param_hint="--down"
        )
    bad = 0
    for number, item in enumerate(_items(given)):
        if isinstance(item.content, str):
            bad += 1
            tell(f"line {item.line}: {item.content}")
            continue
        explanation = router.explain(item.content, assume_down=down)
        if as_json:
            print_json(explanation.describe())
        else:
            if number > 0:
                click.echo()
            _print(explanation)
    sys.exit(ExitCode.BAD_INPUT if bad else ExitCode.OK)


def _items(given: EventInput) -> Iterator[Item]:
    if given.event is not None:
        yield Item(0, given.event)
        return
    with open_input(given.file) as file:
        yield from read_items(file, make_parser(given.form))


def _print(explanation: Explanation) -> None:
    print_fields(
        {
            "event type": explanation.event_type,
            "rule": explanation.rule or "none takes it: it goes to the primary platform",
            "strategy": explanation.strategy,
            "goes to": ", ".join(explanation.goes_to) or "nowhere",
        }
    )
    click.echo()
    print_table(("platform", "what happens"), list(explanation.platforms.items()))
    click.echo()
    print_table(
        ("rule", "priority", "takes it", "why"),
        [
            (verdict.rule.name, verdict.rule.priority, verdict.taken, verdict.reason)
            for verdict in explanation.verdicts
        ],
    )
