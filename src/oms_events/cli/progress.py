"""Progress bars and counts, as commands show them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnDone = Callable[[int], None]


def counted(count: int, what: str) -> str:
    """A number of things: `what` is the word for one."""
    return f"{count} {what}{'' if count == 1 else 's'}"


@contextmanager
def progress_bar(text: str, *, total: int | None = None, wanted: bool = True) -> Iterator[OnDone]:
    """A bar on stderr, when that is a terminal; without a total it only moves."""
    if not wanted or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    counts = () if total is None else (MofNCompleteColumn(), TimeRemainingColumn())
    columns = (TextColumn(text), BarColumn(), *counts)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)
