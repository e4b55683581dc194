"""How results are shown: tables on a terminal, aligned text elsewhere, JSON when asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
import orjson

from oms_events._text import one_line

Rows = Sequence[Sequence[object]]


def print_json(value: Any) -> None:
    """One line of JSON."""
    try:
        text = orjson.dumps(value, default=str).decode()
    except TypeError:
        # Half characters and huge numbers, which others may send, are JSON too.
        text = json.dumps(value, default=str)
    click.echo(text)


def print_table(headers: Sequence[str], rows: Rows) -> None:
    """A table with lines and colours on a terminal, else columns of plain text, which other programs can cut."""
    cells = [[_cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(headers, cells)
        return
    table = [list(headers), *cells]
    widths = [max(len(row[at]) for row in table) for at in range(len(headers))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values, one pair per line."""
    shown = [(one_line(name), _cell(value)) for name, value in fields.items()]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name.ljust(width)}  {value}")


def tell(text: str) -> None:
    """A message to the human, on stderr."""
    # Not by click, which would write beside a progress bar that has taken stderr over, and into it.
    print(one_line(text), file=sys.stderr, flush=True)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return one_line(str(value))


def _print_rich(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers)
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(table)


_STYLES: Mapping[str, str] = {
    "delivered": "green",
    "healthy": "green",
    "taken": "green",
    "rejected": "red",
    "failed": "red",
    "unknown": "yellow",
    "skipped": "yellow",
    "unhealthy": "bold red",
    "error": "red",
    "warning": "yellow",
    "replace (loses data)": "bold red",
    "may replace (loses data)": "bold red",
    "remove (loses data)": "bold red",
    "replace": "yellow",
    "may replace": "yellow",
    "remove": "yellow",
}
