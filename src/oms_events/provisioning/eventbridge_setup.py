"""Sets the OMS bus up in one go: `python -m oms_events.provisioning.eventbridge_setup --aws-region us-east-1`.

It deploys the preset `oms`, tells each step, and says what was made and how to use it. Needs the extra `aws`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from oms_events._aio import Clock
from oms_events._aws.config import AwsConfig
from oms_events.errors import ConfigurationError, DataLossRefusedError, MissingExtraError, OmsEventsError
from oms_events.provisioning.deployment.changes import Action, Plan, discard, plan
from oms_events.provisioning.deployment.deploy import apply
from oms_events.provisioning.deployment.progress import OnEvent, StackEvent
from oms_events.provisioning.deployment.stacks import outputs
from oms_events.provisioning.presets.oms import OmsPreset
from oms_events.provisioning.synthesis import synthesize

_OK: Final = 0
_FAILED: Final = 1
_USAGE: Final = 2
_INTERRUPTED: Final = 130


async def setup(
    preset: OmsPreset,
    config: AwsConfig,
    *,
    template_bucket: str | None = None,
    on_event: OnEvent | None = None,
    clock: Clock | None = None,
    session: Any = None,
) -> dict[str, Any]:
    """Deploys the preset, or brings its stack up to date; gives the stack's outputs.

    Raises as `plan` and `apply` do, `DataLossRefusedError` among them: what loses data is for `oms-events infra
    apply --allow-data-loss`. Cancelled once CloudFormation has begun, it goes on there.
    """
    made = await _planned(preset, config, template_bucket=template_bucket, clock=clock, session=session)
    await apply(made, config, on_event=on_event, clock=clock, session=session)
    return await outputs(made.stack_name, config, session=session)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit code: 0, 1 when it failed, 2 for wrong options, 130 for Ctrl-C."""
    options = _parser().parse_args(argv)
    try:
        preset = OmsPreset(
            event_bus_name=options.event_bus_name,
            alarm_topic_arn=options.alarm_topic_arn,
            enable_archive=options.archive,
            enable_alarms=options.alarms,
            enable_outbox=options.tables,
            enable_idempotency=options.tables,
        )
        config = AwsConfig(
            aws_region=options.aws_region, endpoint_url=options.endpoint_url, profile_name=options.profile
        )
        return _run(preset, config, options)
    except (ConfigurationError, MissingExtraError) as error:
        _tell(f"Error: {error}")
        return _USAGE
    except OmsEventsError as error:
        _tell(f"Error: {error}")
        return _FAILED
    except KeyboardInterrupt:
        _tell(
            "stopped; what CloudFormation has begun goes on: see it with `oms-events infra follow oms`, "
            "and `--set event_bus_name=NAME` for a bus of another name"
        )
        return _INTERRUPTED


def _run(preset: OmsPreset, config: AwsConfig, options: argparse.Namespace) -> int:
    made = asyncio.run(_planned(preset, config, template_bucket=options.template_bucket))
    goes_on = False
    try:
        for line in _plan_lines(made):
            _say(line)
        # Asked outside the event loop, which would wait for the answer even after Ctrl-C.
        goes_on = not options.dry_run and _may_go_on(made, yes=options.yes)
    finally:
        if not goes_on:
            asyncio.run(discard(made, config))
    if not goes_on:
        return _OK if options.dry_run else _FAILED
    for line in _result_lines(preset, config, asyncio.run(_applied(made, config))):
        _say(line)
    return _OK


async def _applied(made: Plan, config: AwsConfig) -> Mapping[str, Any]:
    await apply(made, config, on_event=_tell_event)
    return await outputs(made.stack_name, config)


async def _planned(
    preset: OmsPreset,
    config: AwsConfig,
    *,
    template_bucket: str | None = None,
    clock: Clock | None = None,
    session: Any = None,
) -> Plan:
    template = synthesize(preset.stack())
    made = await plan(template, config, template_bucket=template_bucket, clock=clock, session=session)
    if made.data_loss:
        await discard(made, config, clock=clock, session=session)
        raise DataLossRefusedError(
            f"stack {made.stack_name!r} would lose data: {'; '.join(made.data_loss)}; nothing was done. If you "
            "mean it, deploy it with `oms-events infra apply oms --allow-data-loss` and the same variables",
            reasons=made.data_loss,
        )
    return made


def _may_go_on(made: Plan, *, yes: bool) -> bool:
    """Whether the plan may be applied: it is asked for when it is more than something new."""
    if yes or all(change.action is Action.ADD for change in made.changes):
        return True
    if not sys.stdin.isatty():
        _tell("it changes what is there, and nobody can be asked: nothing was done; --yes allows it")
        return False
    _tell("it changes what is there; go on? [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _plan_lines(made: Plan) -> Iterator[str]:
    if made.is_empty:
        yield f"stack {made.stack_name}: nothing to change"
        return
    yield f"stack {made.stack_name} ({'new' if made.creates else 'exists'}):"
    counts = Counter((change.action, change.type) for change in made.changes if change.action is Action.ADD)
    for (action, kind), count in sorted(counts.items()):
        yield f"  {action} {count} {kind}"
    for change in made.changes:
        if change.action is not Action.ADD:
            what = ", ".join(one.path for one in change.properties)
            yield f"  {change.action} {change.logical_id} ({change.type}){f': {what}' if what else ''}"


def _result_lines(preset: OmsPreset, config: AwsConfig, found: Mapping[str, Any]) -> Iterator[str]:
    yield f"The bus {found['event_bus_name']} is ready, with {len(found['rule_names'])} rules:"
    yield from (
        f"  {name} = {value}"
        for name, value in found.items()
        if value is not None and not isinstance(value, Mapping)
    )
    yield ""
    yield "What your service sets to publish to it:"
    settings = {
        "AWS_REGION": config.aws_region,
        "AWS_ENDPOINT_URL": config.endpoint_url,
        "OMS_EVENTBRIDGE_BUS_NAME": found["event_bus_name"],
        "OMS_OUTBOX_TABLE": found["outbox_table_name"],
    }
    yield from (f"  export {name}={value}" for name, value in settings.items() if value is not None)
    yield f"It runs as the role {found['publisher_role_name']}; `publisher_trust` says who else may take it."
    if not preset.default_targets and not preset.targets:
        yield (
            'The rules have no targets yet. Write them into a file with `preset = "oms"`, and deploy it with '
            "`oms-events infra apply FILE`."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m oms_events.provisioning.eventbridge_setup",
        # An option that was cut short would mean another one once there are more.
        allow_abbrev=False,
        description="Makes the event bus of the OMS on AWS with its rules, role, alarms, dashboard, archive, "
        "dead-letter queue and tables, or brings them up to date. It is the preset 'oms' of 'oms-events infra', "
        "which has more options. It asks only before something that exists is changed: a new stack is made at "
        "once. --dry-run shows it before.",
        epilog="Credentials come from the normal AWS chain. Exit codes: 0 all went well; 1 it did not; 2 wrong "
        "options; 130 interrupted by Ctrl-C.",
    )
    parser.add_argument("--event-bus-name", default="oms-events", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument(
        "--aws-region",
        default=os.environ.get("AWS_REGION"),
        metavar="NAME",
        help="(default: AWS_REGION, AWS_DEFAULT_REGION, or the profile's)",
    )
    parser.add_argument("--profile", metavar="NAME", help="a profile of the AWS configuration files")
    parser.add_argument(
        "--endpoint-url",
        metavar="URL",
        help="where AWS is; the embedded emulator needs --no-archive --no-alarms as well",
    )
    parser.add_argument("--alarm-topic-arn", metavar="ARN", help="a topic of yours that the alarms notify")
    parser.add_argument(
        "--no-tables", dest="tables", action="store_false", help="without the outbox and idempotency tables"
    )
    parser.add_argument("--no-archive", dest="archive", action="store_false", help="without the archive")
    parser.add_argument("--no-alarms", dest="alarms", action="store_false", help="without the alarms")
    parser.add_argument(
        "--template-bucket", metavar="NAME", help="a bucket of the region for a template above 51,200 bytes"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    parser.add_argument(
        "--yes",
        action="store_true",
        help="do not ask before something that exists is changed; without a terminal it is refused otherwise",
    )
    return parser


def _tell_event(event: StackEvent) -> None:
    what = "the stack" if event.of_stack else f"{event.logical_id} ({event.type})"
    _tell(f"{event.time:%H:%M:%S} {event.status:<20} {what}{f': {event.reason}' if event.reason else ''}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _tell(text: str, *, end: str = "\n") -> None:
    sys.stderr.write(f"{text}{end}")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
