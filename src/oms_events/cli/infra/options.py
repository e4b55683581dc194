"""What the commands of the AWS side share: where a stack comes from, where AWS is, and asking first."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from oms_events._aws.config import AwsConfig
from oms_events.errors import StackNotFoundError
from oms_events.provisioning.sources import read_source
from oms_events.provisioning.synthesis import synthesize

Command = Callable[..., None]

_SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="A variable of the preset, or a field of the file; may be given several times. Dots lead to fields "
    'within fields: tags.team=orders, tags."a.b"=orders.',
)  # fmt: skip
_STACK_NAME = click.option("--stack-name", metavar="NAME", help="The stack's name.  [default: that of SOURCE]")
_AWS = (
    click.option("--region", "aws_region", envvar="AWS_REGION", metavar="NAME", help="The AWS region."),
    click.option("--profile", "profile_name", metavar="NAME", help="A profile of the AWS configuration files."),
    click.option("--role-arn", metavar="ARN", help="A role to assume first."),
    click.option(
        "--endpoint-url", envvar="AWS_ENDPOINT_URL", metavar="URL",
        help="Where AWS is, such as the local stack of `dev up`.",
    ),
)  # fmt: skip

asks_first = click.option("--yes", is_flag=True, help="Do not ask first; needed where stdin is no terminal.")


def takes_template(command: Command) -> Command:
    """Gives a command SOURCE, --set and --stack-name, as one `Template` named `template`."""

    @click.argument("source")
    @_SETTINGS
    @_STACK_NAME
    @functools.wraps(command)
    def with_template(*, source: str, settings: Sequence[str], stack_name: str | None, **options: Any) -> None:
        stack = read_source(source, settings)
        if stack_name is not None:
            stack = stack.model_copy(update={"name": stack_name})
        command(template=synthesize(stack), **options)

    return with_template


def takes_stack(command: Command) -> Command:
    """Gives a command SOURCE, --set and --stack-name, as the name or id of a stack that exists, `stack_name`.

    SOURCE is read even where --stack-name says it all, so that the words of `apply` mean the same stack here.
    """

    @click.argument("source", required=False)
    @_SETTINGS
    @_STACK_NAME
    @functools.wraps(command)
    def with_stack(*, source: str | None, settings: Sequence[str], stack_name: str | None, **options: Any) -> None:
        if source is not None:
            named = read_source(source, settings).name
            try:
                command(stack_name=stack_name or named, **options)
            except StackNotFoundError as error:
                if stack_name is not None:
                    raise
                hint = "the name is that of SOURCE: give the same --set as at apply, or --stack-name"
                raise StackNotFoundError(f"{error} ({hint})", code=error.code) from error
        elif settings:
            raise click.UsageError("--set is for SOURCE, a preset or a file; give it too")
        elif stack_name:
            command(stack_name=stack_name, **options)
        else:
            raise click.UsageError("no stack; give SOURCE (a preset or a file), or --stack-name")

    return with_stack


def takes_aws(command: Command) -> Command:
    """Gives a command the options that lead to AWS, as one `AwsConfig` named `config`."""

    @functools.wraps(command)
    def with_config(**options: Any) -> None:
        names = ("aws_region", "profile_name", "role_arn", "endpoint_url")
        command(config=AwsConfig(**{name: options.pop(name) for name in names}), **options)

    decorated: Command = with_config
    for option in reversed(_AWS):
        decorated = option(decorated)
    return decorated


def require_answer(*, yes: bool) -> None:
    """Before anything is done: there must be somebody to ask. Raises `UsageError`."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("stdin is no terminal, so nobody can be asked; give --yes to go on without")


def ask(question: str, *, yes: bool) -> None:
    """Raises `Abort` when the answer is no, and `CancelledError` for Ctrl-C and SIGTERM."""
    if yes:
        return
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        click.confirm(question, abort=True, err=True)
    except asyncio.CancelledError:
        # The shell's next line shall not stand behind the question.
        click.echo(err=True)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: object) -> NoReturn:
    raise asyncio.CancelledError
