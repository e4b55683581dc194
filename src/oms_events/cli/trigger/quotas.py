"""`oms-events trigger quotas`, that is `quotas list`, and `quotas reset`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from oms_events.cli.common import ExitCode, ends_cleanly, run
from oms_events.cli.output import print_json, print_table, tell
from oms_events.cli.trigger.options import not_configured, takes_settings, wait_text
from oms_events.triggers.guards.rate import check_name
from oms_events.triggers.settings import TriggerSettings

if TYPE_CHECKING:
    from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter


class _Lists(click.Group):
    """A group that lists when it is given options only."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_bare = not args or (args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx))
        return super().parse_args(ctx, ["list", *args] if is_bare else args)


def to_quota_name(text: str) -> str:
    """A quota's name. Raises `BadParameter`."""
    try:
        check_name("name", text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return text


@click.group(cls=_Lists)
def quotas() -> None:
    """The quotas, which say how many starts may run; alone it lists them."""


@quotas.command("list")
@ends_cleanly
@takes_settings
def list_(*, settings: TriggerSettings, as_json: bool) -> None:
    """Show the quotas of starts, how much of them is used, and when the next may run; counts nothing."""
    found = run(_look(settings))
    if as_json:
        for one in found:
            print_json(one)
        return
    rows = [
        (one["name"], one["used"], one["limit"], f"{one['window']:g} s", wait_text(one["retry_after"]))
        for one in found
    ]
    print_table(("quota", "used", "limit", "in any", "next start"), rows)


@quotas.command()
@click.argument("name", type=to_quota_name)
@ends_cleanly
@takes_settings
def reset(*, name: str, settings: TriggerSettings, as_json: bool) -> None:
    """Forget the starts that the quota NAME has counted, and that others wait for it.

    It is free at once. Ends with 1 when there is nothing to forget.
    """
    was_there = run(_reset(settings, name))
    if as_json:
        print_json({"name": name, "reset": was_there})
    elif was_there:
        click.echo(f"the quota {name} is free")
    else:
        known = ", ".join(sorted(settings.config.quotas))
        tell(f"nothing was counted for a quota {name!r}; those of starts are {known}")
    sys.exit(ExitCode.OK if was_there else ExitCode.FAILED)


async def _look(settings: TriggerSettings) -> list[dict[str, Any]]:
    async with _limiter(settings) as limiter:
        return [
            {
                "name": name,
                "used": await limiter.used(name, quota),
                "limit": quota.limit,
                "window": quota.window,
                "retry_after": await limiter.look(name, quota),
            }
            for name, quota in sorted(settings.config.quotas.items())
        ]


async def _reset(settings: TriggerSettings, name: str) -> bool:
    async with _limiter(settings) as limiter:
        return await limiter.reset(name)


def _limiter(settings: TriggerSettings) -> DynamoDBRateLimiter:
    limiter = settings.create_rate_limiter()
    if limiter is None:
        raise not_configured("rate_table")
    return limiter
