"""What the commands share: exit codes, options, and how a command ends."""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import math
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from oms_events.errors import ConfigurationError, MissingExtraError, OmsEventsError
from oms_events.publishers.memory import MemoryPublisher
from oms_events.routing.router import EventRouter
from oms_events.settings import Settings

T = TypeVar("T")
Command = Callable[..., None]


class ExitCode(IntEnum):
    """How a command ended; where `FAILED` and `BAD_INPUT` both fit, it is `FAILED`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    BAD_INPUT = 3
    INTERRUPTED = 130


EXIT_CODES: Final = (
    "Exit codes: 0 all went well; 1 it did not (an event was not delivered, a rule is wrong, the primary platform "
    "is not healthy); 2 the command line or the configuration cannot work, or an extra is not installed; 3 some "
    "of the input is no event, and all else was done; 130 interrupted by Ctrl-C or SIGTERM."
)

_EXTRAS: Final = {
    "nats": "nats",
    "nkeys": "nats",
    "aioboto3": "aws",
    "aiobotocore": "aws",
    "botocore": "aws",
    "yaml": "yaml",
    "rich": "cli",
    "aiohttp": "devstack",
}


class _PositiveNumber(click.FloatRange):
    """A number above 0, and below infinity: a wait that never ends is none."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number above 0.", param, ctx)
        return number


POSITIVE_NUMBER: Final = _PositiveNumber()

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
config_option = click.option(
    "--config", "config_file", type=_FILE, help="A TOML or YAML file of settings; the environment goes before it."
)
platform_option = click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="NAME",
    help="Take these platforms as configured instead of those of the settings; may be given several times.",
)


def ends_cleanly(command: Command) -> Command:
    """Gives a command `--json` and `--debug`, and ends it with one line and an exit code, without a traceback."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON, one value per line.")
    @click.option("--debug", is_flag=True, help="Show logs and the traceback of an error.")
    @functools.wraps(command)
    def run_command(*args: Any, debug: bool, **options: Any) -> None:
        with _errors_as_lines(debug=debug), _logs(debug=debug):
            command(*args, **options)

    return run_command


@contextmanager
def _errors_as_lines(*, debug: bool) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(ExitCode.INTERRUPTED)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _EXTRAS:
            raise
        _fail(MissingExtraError(_EXTRAS[module], needed_for="this command"), ExitCode.USAGE, debug=debug)
    except (ConfigurationError, MissingExtraError) as error:
        _fail(error, ExitCode.USAGE, debug=debug)
    except BrokenPipeError:
        # Whoever read our output has gone; click ends us quietly.
        raise
    except (OmsEventsError, OSError) as error:
        _fail(error, ExitCode.FAILED, debug=debug)


def _fail(error: Exception, code: ExitCode, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    first, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # What a program said last is most often why it ended.
    rest = f" {more[-1]}" + (" (--debug shows all of it)" if len(more) > 1 and not debug else "") if more else ""
    click.echo(f"Error: {first}{rest}", err=True)
    sys.exit(code)


@contextmanager
def _logs(*, debug: bool) -> Iterator[None]:
    """What the package and its drivers log goes to stderr with `--debug`, else nowhere: results tell it all."""
    log = logging.getLogger()
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if debug else logging.NullHandler()
    handler.setFormatter(logging.Formatter("log: %(name)s: %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a command's coroutine to its end. Ctrl-C and SIGTERM cancel it, so that it cleans up, and are raised
    as `KeyboardInterrupt` and `CancelledError`."""
    return asyncio.run(_until_stopped(main))


async def _until_stopped(main: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    if task is not None:
        # Not on Windows, whose loops have no signal handlers.
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await main


def read_settings(config_file: Path | None) -> Settings:
    """The settings of the file, if there is one, and the environment."""
    return Settings.from_environment() if config_file is None else Settings.from_file(config_file)


def load_object(text: str, kind: type[T], *, example: str) -> T:
    """What is at `module:name`, where the module may lie in the current folder. Raises `BadParameter`."""
    module, _, name = text.partition(":")
    if not module or not name:
        raise click.BadParameter(f"{text!r}: write module:name, such as {example}")
    # As `python -m` does it: a command of its own finds installed packages only.
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise click.BadParameter(f"{text!r}: {error}; is it the right folder, or PYTHONPATH?") from None
    except Exception as error:
        raise click.BadParameter(f"{text!r}: importing it failed: {error!r}") from error
    if not isinstance(found, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise click.BadParameter(f"{text!r} is {type(found).__name__}; name {article} {kind.__name__}")
    return found


def configured_platforms(settings: Settings, platforms: Sequence[str]) -> tuple[str, ...]:
    """The names of `platforms`, or else of those that are configured, at least one."""
    names = platforms or [name for name in ("nats", "eventbridge") if getattr(settings, name) is not None]
    if not names:
        problem = "no platform is configured; set OMS_NATS_URL or OMS_EVENTBRIDGE_BUS_NAME, or give --config"
        raise ConfigurationError("settings", [problem])
    return tuple(dict.fromkeys(names))


def make_router(settings: Settings, platforms: Sequence[str] = ()) -> EventRouter:
    """The router of the settings, not open; `platforms` stand in for the configured ones, and take nothing."""
    names = configured_platforms(settings, platforms)
    if not platforms:
        return settings.create_router()
    bare = settings.model_copy(update={"nats": None, "eventbridge": None})
    return bare.create_router(publishers={name: MemoryPublisher() for name in names})
