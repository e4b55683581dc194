"""The reference page and the command agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from oms_events.cli.app import app
from oms_events.cli.common import ExitCode

PAGE = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text(encoding="utf-8")


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join([*path, name]), command


@pytest.mark.parametrize(("name", "command"), list(commands(app)))
def test_every_command_and_option_is_on_the_page(name: str, command: click.Command) -> None:
    assert f"\n## {name}\n" in PAGE
    options = [option for option in command.params if isinstance(option, click.Option)]
    missing = [text for option in options for text in option.opts if text not in PAGE]
    assert missing == []


@pytest.mark.parametrize(("name", "command"), list(commands(app)))
def test_numbers_are_finite(name: str, command: click.Command) -> None:
    for option in command.params:
        if isinstance(option.type, (click.types.FloatParamType, click.FloatRange)):
            for value in ("nan", "inf"):
                with pytest.raises(click.BadParameter):
                    option.type.convert(value, option, None)


def test_every_exit_code_is_on_the_page() -> None:
    assert all(f"\n| {code.value} | " in PAGE for code in ExitCode)
