"""A deployment as the configuration needs it."""

from __future__ import annotations

import pytest

from oms_events.errors import ConfigurationError
from oms_events.provisioning.checks.configuration import CheckedConfiguration
from tests.provisioning.checks.broken import wrong
from tests.provisioning.checks.checked import CREATED, SUBJECT, Worlds


async def test_what_is_as_the_configuration_needs_it_is_ok_line_by_line(worlds: Worlds) -> None:
    async with worlds() as world:
        report = await world.check()
    assert wrong(report) == []
    assert report.passed
    lines = {
        (found.area, found.subject.replace(world.name, "W")): found.message.replace(world.name, "W")
        for found in report.findings
    }
    assert lines["events", CREATED] == "is taken by rule orders"
    assert lines["targets", "lambda handler"] == "exists (Active), and rule system may use it"
    assert (
        lines["stream", "W"]
        == f"covers the subjects that the events get: W.{CREATED}, W.{SUBJECT}, W.oms.system.error"
    )
    areas = ["archive", "bus", "events", "idempotency", "outbox", "permissions", "rules", "stream", "targets"]
    assert {area for area, _ in lines} == {*areas, "dead letters"}


def test_a_configuration_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing is configured"):
        CheckedConfiguration()
