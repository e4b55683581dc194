"""`oms-events rules check`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from oms_events.cli.common import (
    ExitCode,
    config_option,
    configured_platforms,
    ends_cleanly,
    platform_option,
    read_settings,
)
from oms_events.cli.output import print_json, print_table, tell
from oms_events.errors import RuleError
from oms_events.oms.rules import default_rules
from oms_events.publishing import Platform
from oms_events.routing.checks import Severity, check_rules
from oms_events.routing.rulefile import load_rules
from oms_events.routing.rules import RoutingRule, unknown_platforms, unknown_platforms_error

Row = tuple[str, str, str, str]


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--no-default-rules", is_flag=True, help="Check without the default rules beside them.")
@platform_option
@config_option
@ends_cleanly
def check(
    *,
    file: Path | None,
    no_default_rules: bool,
    platforms: Sequence[str],
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Find rules that cannot work, never decide, or cannot be exported to EventBridge.

    Checks the rules of FILE, else those of the settings, beside the default rules. Ends with 1 when there is an
    error: a rule that cannot be read, a platform that nobody knows, no platform that is configured.
    """
    settings = read_settings(config_file)
    configured = configured_platforms(settings, platforms)
    findings: list[Row] = []
    rules: list[RoutingRule] = []
    try:
        rules = list(settings.rules if file is None else load_rules(file))
    except RuleError as error:
        findings = [(error.subject, "invalid", Severity.ERROR.value, problem) for problem in error.problems]
    if not findings:
        if settings.add_default_rules and not no_default_rules:
            rules += default_rules()
        findings = _findings(rules, configured)
    if as_json:
        names = ("rule", "kind", "severity", "message")
        print_json({"rules": len(rules), "findings": [dict(zip(names, row, strict=True)) for row in findings]})
    elif findings:
        print_table(("rule", "finding", "severity", "what and what to do"), findings)
    errors = sum(row[2] == Severity.ERROR for row in findings)
    tell(f"{len(rules)} rules for {', '.join(configured)}: {len(findings)} findings, {errors} errors")
    sys.exit(ExitCode.FAILED if errors else ExitCode.OK)


def _findings(rules: Sequence[RoutingRule], configured: Sequence[str]) -> list[Row]:
    known = {*configured, *(platform.value for platform in Platform)}
    unknown = [
        (rule.name, "unknown_platform", Severity.ERROR.value, problem)
        for rule in rules
        if unknown_platforms(rule, known)
        for problem in unknown_platforms_error(rule, known).problems
    ]
    names: set[str] = set()
    twice = []
    for rule in rules:
        if rule.name in names:
            twice.append((rule.name, "name_taken", Severity.ERROR.value, "another rule has this name; rename it"))
        names.add(rule.name)
    checked = [
        (finding.rule, finding.kind.value, finding.severity.value, finding.message)
        for finding in check_rules(rules, configured=configured)
    ]
    return unknown + twice + checked
