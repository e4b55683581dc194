"""`oms-events infra check`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from oms_events._aws.config import AwsConfig
from oms_events.cli.common import ExitCode, config_option, ends_cleanly, read_settings, run
from oms_events.cli.infra.options import takes_aws
from oms_events.cli.output import print_json, print_table, tell
from oms_events.cli.parsing import make_parser
from oms_events.cli.reading import open_input, read_items
from oms_events.errors import ConfigurationError
from oms_events.events import EncodedEvent
from oms_events.idempotency.config import IdempotencyConfig
from oms_events.oms.rules import default_rules
from oms_events.provisioning.checks.checking import check as check_deployed
from oms_events.provisioning.checks.configuration import CheckedConfiguration
from oms_events.provisioning.checks.report import Level, Report
from oms_events.settings import Settings

_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)


@click.command()
@click.option(
    "--events",
    "events_file",
    type=_FILE,
    help="Samples of what you send, JSON events one per line or in an array (- for standard input).  "
    "[default: two of each type of the OMS]",
)
@click.option("--outbox-stream", is_flag=True, help="The outbox's table must have a stream.")
@click.option("--idempotency-table", metavar="NAME", help="Check this table of idempotent runs too.")
@click.option("--strict", is_flag=True, help="End with 1 for what could not be checked, too.")
@takes_aws
@config_option
@ends_cleanly
def check(
    *,
    events_file: str | None,
    outbox_stream: bool,
    idempotency_table: str | None,
    strict: bool,
    config: AwsConfig,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Compare what is deployed with what the settings need; changes nothing.

    Sample events go through the rules of the settings and the mapping of the publisher, and EventBridge itself
    says which of the bus's rules takes them. Bus, rules, targets, queues, archives, streams, tables and
    permissions are looked at: with the credentials of the settings, or with those of --profile and --role-arn.
    Ends with 1 when there is a problem; a warning is none, and what could not be checked is one with --strict.
    """
    settings = read_settings(config_file)
    configuration = CheckedConfiguration(
        eventbridge=settings.eventbridge,
        nats=settings.nats,
        jetstream=settings.jetstream,
        rules=(*settings.rules, *(default_rules() if settings.add_default_rules else ())),
        router=settings.router,
        outbox=settings.outbox,
        outbox_stream=outbox_stream,
        idempotency=_idempotency(settings, idempotency_table),
        aws=_looking(settings, config),
    )
    events = None if events_file is None else list(_events(events_file))
    report = run(check_deployed(configuration, events=events))
    passed = report.passed and (report.complete or not strict)
    if as_json:
        print_json({"passed": passed, "findings": report.findings})
    else:
        _print(report)
    counts = (f"{len(report.at(level))} {level.value}" for level in Level)
    tell(f"{len(report.findings)} findings: {', '.join(counts)}")
    sys.exit(ExitCode.OK if passed else ExitCode.FAILED)


def _looking(settings: Settings, given: AwsConfig) -> AwsConfig:
    """Who looks, and where: the options of the command, and the credentials of the settings where it has none."""
    if given.profile_name is not None or given.role_arn is not None:
        return given
    place = {"aws_region": given.aws_region, "endpoint_url": given.endpoint_url}
    return AwsConfig(**_connection(settings.eventbridge or settings.outbox) | place)


def _idempotency(settings: Settings, table: str | None) -> IdempotencyConfig | None:
    """Idempotent runs have no settings of their own: their table is where the outbox is, or else the bus."""
    if table is None:
        return None
    near = _connection(settings.outbox or settings.eventbridge)
    if settings.outbox is None:
        # It is the bus's own.
        near.pop("endpoint_url", None)
    return IdempotencyConfig(table_name=table, **near)


def _connection(config: AwsConfig | None) -> dict[str, Any]:
    return {} if config is None else {name: getattr(config, name) for name in AwsConfig.model_fields}


def _events(name: str) -> Iterator[EncodedEvent]:
    problems = []
    with open_input(name) as file:
        for item in read_items(file, make_parser()):
            if isinstance(item.content, str):
                problems.append(f"line {item.line}: {item.content}")
            else:
                yield item.content
    if problems:
        raise ConfigurationError(name, problems)


def _print(report: Report) -> None:
    print_table(
        ("area", "subject", "state", "what", "what to do"),
        [(found.area, found.subject, found.level.value, found.message, found.remedy) for found in report.findings],
    )
