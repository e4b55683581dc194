"""`oms-events trigger table create`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from oms_events._aws.table import DynamoTable
from oms_events.cli.common import ends_cleanly, run
from oms_events.cli.output import print_json, print_table
from oms_events.cli.progress import progress_bar
from oms_events.cli.trigger.options import not_configured, takes_settings
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.schema import BREAKER, IDEMPOTENCY, RATE
from oms_events.triggers.settings import TriggerSettings


@click.group()
def table() -> None:
    """The tables of the guards."""


@table.command()
@ends_cleanly
@takes_settings
def create(*, settings: TriggerSettings, as_json: bool) -> None:
    """Create the guards' tables of the settings, billed on demand, and wait until they can be used.

    Those are, where the settings have them, the tables of starts that have been, of breakers and of quotas; what
    is there already, of the right shape, is left as it is. For development and tests: deploy the preset
    ingestion-triggers for anything else.
    """
    tables = _tables(settings)
    if not tables:
        raise not_configured("idempotency_table")
    with progress_bar("creating tables", wanted=not (as_json and sys.stdout.isatty())):
        made = run(_create(tables))
    if as_json:
        for guard, name, is_new in made:
            print_json({"guard": guard, "table": name, "created": is_new})
    else:
        print_table(("guard", "table", "created"), made)


def _tables(settings: TriggerSettings) -> list[tuple[str, DynamoTable]]:
    """What each table is for, and the table, not open."""
    wanted = (
        ("starts", settings.idempotency_table, IDEMPOTENCY),
        ("breakers and leases", settings.breaker_table, BREAKER),
        ("quotas", settings.rate_table, RATE),
    )
    aws = settings.aws("dynamodb")
    return [
        (guard, DynamoTable(GuardTableConfig(**aws, table_name=name), name, shape))
        for guard, name, shape in wanted
        if name is not None
    ]


async def _create(tables: Sequence[tuple[str, DynamoTable]]) -> list[tuple[str, str, bool]]:
    """What each table is for, its name, and whether it is new."""
    return [(guard, one.name, await one.create()) for guard, one in tables]
