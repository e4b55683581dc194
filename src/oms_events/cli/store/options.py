"""What the event store's commands share: an open store, and how aggregates, times and registries are given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oms_events.cli.common import load_object, read_settings
from oms_events.errors import InvalidEventError
from oms_events.eventstore.append import check_aggregate_id
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.time_ranges import parse_time

if TYPE_CHECKING:
    from oms_events.eventstore.dynamodb import DynamoDBEventStore

segments_option = click.option(
    "--segments",
    type=click.IntRange(1, 1000),
    default=4,
    show_default=True,
    metavar="N",
    help="Read the table in so many parts side by side.",
)


@asynccontextmanager
async def open_store(config_file: Path | None) -> AsyncIterator[DynamoDBEventStore]:
    """The settings' event store, open."""
    async with read_settings(config_file).create_event_store() as store:
        yield store


def to_aggregate(text: str) -> str:
    """An aggregate's id. Raises `BadParameter`."""
    try:
        check_aggregate_id(text)
    except InvalidEventError as error:
        raise click.BadParameter(str(error)) from None
    return text


def to_time(text: str) -> datetime:
    """A time, or how long ago. Raises `BadParameter`."""
    try:
        return parse_time(text, now=datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def to_registry(text: str) -> EventRegistry:
    """The registry at `module:name`, where the module may lie in the current folder. Raises `BadParameter`."""
    return load_object(text, EventRegistry, example="shop.events:registry")
