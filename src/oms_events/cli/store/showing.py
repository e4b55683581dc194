"""Stored events as JSON values and as lines. Nobody here has the keys of personal data."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import click
import orjson

from oms_events._text import one_line
from oms_events.cli.output import print_json
from oms_events.errors import PersonalDataError
from oms_events.eventstore.inspection.item_checks import CheckedItem, check_event
from oms_events.eventstore.items import Item
from oms_events.eventstore.personal.sealed import masked, may_have_sealed
from oms_events.eventstore.records import RecordedEvent

_SHOWN: Final = 160
"""Characters of an event's data in one line."""


class EventPrinter:
    """Prints items as JSON, one per line, or for people; with `full` all that there is of each."""

    def __init__(self, *, as_json: bool, full: bool) -> None:
        self._as_json = as_json
        self._full = full

    def print(self, item: Item) -> CheckedItem:
        """Prints one item, and what is wrong with it."""
        found = check_event(item)
        if self._as_json:
            print_json(_described(found, item))
        else:
            self._print_lines(found, item)
        return found

    def _print_lines(self, found: CheckedItem, item: Item) -> None:
        event = found.event
        if event is None:
            click.echo(one_line(str(found.place)))
            text = orjson.dumps(item).decode()
        else:
            time = event.time.isoformat(timespec="milliseconds")
            click.echo(one_line(f"{found.place}  {time}  {event.type} version {event.version}  {event.id}"))
            text = _data(event)
        for problem in found.problems:
            click.echo(one_line(f"    {problem.kind}: {problem.text}"))
        if self._full:
            shown = item if event is None else orjson.loads(_event(event))
            for line in orjson.dumps(shown, option=orjson.OPT_INDENT_2, default=str).decode().split("\n"):
                click.echo(one_line(f"    {line}"))
        elif len(text) > _SHOWN:
            click.echo(one_line(f"    {text[:_SHOWN]}... ({len(text)} characters; --full shows all)"))
        else:
            click.echo(one_line(f"    {text}"))


def _described(found: CheckedItem, item: Item) -> Mapping[str, Any]:
    problems = [{"kind": problem.kind, "text": problem.text} for problem in found.problems]
    place = {"aggregate_id": found.place.aggregate_id, "sequence": found.place.sequence}
    if found.event is None:
        return {**place, "event": None, "item": item, "problems": problems}
    event = orjson.Fragment(_event(found.event))
    return {**place, "version": found.event.version, "event": event, "problems": problems}


def _event(event: RecordedEvent) -> bytes:
    """The CloudEvent's JSON in one line: as it was stored, digit by digit, but for personal data."""
    data = _data(event)
    if data == event.payload.decode():
        return event.encoded.json
    return orjson.dumps({**orjson.loads(event.encoded.head), "data": orjson.Fragment(data)})


def _data(event: RecordedEvent) -> str:
    """The data's JSON in one line; of what is no JSON, the text."""
    text = event.payload.decode()
    try:
        data = orjson.loads(text or "null")
    except orjson.JSONDecodeError:
        return orjson.dumps(text).decode()
    if may_have_sealed(event.payload):
        # What only looks encrypted is shown as it is.
        with suppress(PersonalDataError):
            return orjson.dumps(masked(data)).decode()
    # Somebody else has stored it: an append writes one line.
    return orjson.dumps(data).decode() if "\n" in text else text
