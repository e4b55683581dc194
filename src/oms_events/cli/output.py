"""How results are shown: tables on a terminal, aligned text elsewhere, JSON when asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
import orjson

Rows = Sequence[Sequence[object]]


def print_json(value: Any) -> None:
    """One line of JSON."""
    click.echo(orjson.dumps(value, default=str).decode())


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
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{name.ljust(width)}  {_cell(value)}")


def tell(text: str) -> None:
    """A message to the human, on stderr."""
    # Not by click, which would write beside a progress bar that has taken stderr over, and into it.
    print(one_line(text), file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """The text without control characters, which could forge lines or command the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


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
