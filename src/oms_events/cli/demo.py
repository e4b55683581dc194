"""`oms-events demo`."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import click

from oms_events.cli.common import ends_cleanly, run
from oms_events.cli.output import print_json, tell
from oms_events.errors import MissingExtraError, OmsEventsError

_HERE = Path(__file__)
_PLACES = (
    # The wheel carries the example under this name; beside a source tree stands the example itself.
    _HERE.with_name("_demo.py"),
    _HERE.parents[3] / "examples" / "test_multiplatform_router.py",
)


@click.command()
@click.option("--source", "show_source", is_flag=True, help="Print the program instead of running it.")
@ends_cleanly
def demo(*, show_source: bool, as_json: bool) -> None:
    """Run the main job on real servers: publish, route, read back, fail over, recover, and the outbox.

    Starts a NATS server and an AWS emulator on loopback, and stops them at the end. The outbox gets 1,000 orders
    with their events, and one of its two processors is killed in the middle. Ends with 1 when something was not
    as it should be.
    """
    path = _find()
    if show_source:
        click.echo(path.read_text(encoding="utf-8"))
        return
    program = _load(path)
    shown = program.Demo()
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            code = run(program.run(shown))
    except BaseException:
        tell("stopped; every process of the stack has ended")
        raise
    if as_json:
        print_json({"ok": code == 0, "checks": [{"ok": ok, "text": text} for ok, text in shown.checks]})
    sys.exit(code)


def _find() -> Path:
    for path in _PLACES:
        if path.is_file():
            return path
    raise OmsEventsError(f"the demo is not part of this installation; looked for {_PLACES[0]}")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("oms_events_demo", path)
    if spec is None or spec.loader is None:
        raise OmsEventsError(f"the demo cannot be loaded from {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError("all", needed_for=f"the demo ({error})") from error
    return module
