"""Rules on the emulator; what it does not answer as AWS does is put into its answers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import aioboto3
import pytest

from oms_events._aws.config import AwsConfig
from oms_events.devstack import AwsEmulator
from oms_events.errors import AccessError, ConfigurationError, ScheduleError
from oms_events.triggers.deployed_schedules import DeployedSchedules
from oms_events.triggers.schedules import parse_schedule

ROLE = "arn:aws:iam::000000000000:role/starter"
EVENING = "cron(0 22 * * ? *)"


class Rules:
    """Rules of this test's own on the emulator, and what was asked of it meanwhile."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._made: list[str] = []

    async def make(self, name: str | None = None, **fields: Any) -> str:
        name = name or f"{uuid.uuid4().hex[:8]}-evening"
        await self.client.put_rule(**{"Name": name, "ScheduleExpression": EVENING, **fields})
        self._made.append(name)
        self.asked.clear()
        return name

    async def clear(self) -> None:
        for name in self._made:
            targets = (await self.client.list_targets_by_rule(Rule=name))["Targets"]
            if targets:
                await self.client.remove_targets(Rule=name, Ids=[target["Id"] for target in targets])
            await self.client.delete_rule(Name=name)

    @property
    def changes(self) -> list[tuple[str, dict[str, Any]]]:
        return [one for one in self.asked if one[0] not in ("DescribeRule", "ListRules")]

    @contextmanager
    def answers(self, operation: str, code: str | None = None, **fields: Any) -> Iterator[None]:
        """An operation fails with a code of AWS, or has more fields in its answer."""

        def refuse(**_: Any) -> tuple[Any, Any]:
            error = {"Code": code, "Message": "no"}
            return SimpleNamespace(status_code=400), {"Error": error, "ResponseMetadata": {"HTTPStatusCode": 400}}

        def add(parsed: dict[str, Any], **_: Any) -> None:
            parsed.update(fields)

        event, handler = (
            (f"before-call.events.{operation}", refuse) if code else (f"after-call.events.{operation}", add)
        )
        self.client.meta.events.register(event, handler)
        yield
        self.client.meta.events.unregister(event, handler)


@pytest.fixture(scope="module")
async def client(oms_aws_emulator: AwsEmulator) -> AsyncIterator[Any]:
    session = aioboto3.Session("test", "test", region_name="us-east-1")
    async with session.client("events", endpoint_url=oms_aws_emulator.endpoint_url) as client:
        yield client


@pytest.fixture
async def rules(client: Any) -> AsyncIterator[Rules]:
    rules = Rules(client)

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        rules.asked.append((model.name, dict(params)))

    client.meta.events.register("before-parameter-build.events", note)
    yield rules
    client.meta.events.unregister("before-parameter-build.events", note)
    await rules.clear()


@pytest.fixture
async def schedules(client: Any) -> AsyncIterator[DeployedSchedules]:
    async with DeployedSchedules(AwsConfig(), client=client) as schedules:
        yield schedules


async def test_a_rule_is_shown_as_it_is(rules: Rules, schedules: DeployedSchedules) -> None:
    name = await rules.make(Description="each evening", RoleArn=ROLE, State="DISABLED")
    found = await schedules.show(name)
    assert (found.name, found.bus, found.state, found.is_paused) == (name, "default", "DISABLED", True)
    assert (found.expression, found.schedule) == (EVENING, parse_schedule(EVENING))
    assert (found.description, found.role_arn, found.has_pattern, found.managed_by) == (
        "each evening", ROLE, False, None,
    )  # fmt: skip
    assert found.arn.endswith(f":rule/{name}")


async def test_a_client_of_its_own_is_made_and_closed(rules: Rules, oms_aws_emulator: AwsEmulator) -> None:
    name = await rules.make()
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "aws_region": "us-east-1"}
    schedules = DeployedSchedules(AwsConfig(endpoint_url=oms_aws_emulator.endpoint_url, **keys))
    async with schedules:
        assert (await schedules.show(name)).name == name
    with pytest.raises(ScheduleError, match="not open"):
        await schedules.show(name)


async def test_a_rule_is_paused_and_resumed(rules: Rules, schedules: DeployedSchedules) -> None:
    name = await rules.make(Description="kept")
    before = await schedules.show(name)
    paused = await schedules.pause(name)
    assert (paused.before, paused.after.is_paused, paused.is_empty) == (before, True, False)
    assert await schedules.show(name) == paused.after
    assert (await schedules.pause(name)).is_empty
    resumed = await schedules.resume(name)
    assert (resumed.before, resumed.after) == (paused.after, before)
    assert await schedules.show(name) == before
    assert (await schedules.resume(name)).is_empty
    place = {"Name": name, "EventBusName": "default"}
    assert rules.changes == [("DisableRule", place), ("EnableRule", place)]


@pytest.mark.parametrize("state", ["ENABLED", "DISABLED"])
async def test_a_schedule_is_set_and_all_else_is_kept(
    rules: Rules, schedules: DeployedSchedules, state: str
) -> None:
    name = await rules.make(
        Description="each evening", RoleArn=ROLE, State=state, Tags=[{"Key": "team", "Value": "prices"}]
    )
    arn = "arn:aws:sqs:us-east-1:000000000000:starts"
    await rules.client.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn, "Input": "{}"}])
    before = await schedules.show(name)
    rules.asked.clear()
    change = await schedules.set(name, " cron(30  21 ? * MON-FRI *)")
    assert (change.before, change.is_empty) == (before, False)
    assert change.after.expression == "cron(30 21 ? * MON-FRI *)"
    # The emulator keeps what PutRule leaves out, and AWS takes it away.
    assert rules.changes == [
        (
            "PutRule",
            {
                "Name": name, "EventBusName": "default", "ScheduleExpression": "cron(30 21 ? * MON-FRI *)",
                "State": state, "Description": "each evening", "RoleArn": ROLE,
            },
        )
    ]  # fmt: skip
    assert await schedules.show(name) == change.after
    targets = (await rules.client.list_targets_by_rule(Rule=name))["Targets"]
    assert [(target["Id"], target["Input"]) for target in targets] == [("queue", "{}")]
    tags = (await rules.client.list_tags_for_resource(ResourceARN=before.arn))["Tags"]
    assert tags == [{"Key": "team", "Value": "prices"}]
    assert (await schedules.set(name, "cron(30 21 ? * MON-FRI *)")).is_empty
    assert [operation for operation, _ in rules.changes if operation == "PutRule"] == ["PutRule"]


async def test_what_a_rule_does_not_have_is_not_sent(rules: Rules, schedules: DeployedSchedules) -> None:
    name = await rules.make()
    await schedules.set(name, "rate(5 minutes)")
    (_, sent) = rules.changes[0]
    assert sent.keys() == {"Name", "EventBusName", "ScheduleExpression", "State"}


async def test_a_dry_run_says_what_would_be_and_changes_nothing(
    rules: Rules, schedules: DeployedSchedules
) -> None:
    name = await rules.make()
    before = await schedules.show(name)
    assert (await schedules.pause(name, dry_run=True)).after.is_paused
    assert (await schedules.set(name, "rate(1 day)", dry_run=True)).after.expression == "rate(1 day)"
    assert rules.changes == []
    assert await schedules.show(name) == before
    with pytest.raises(ScheduleError, match="there is no rule"):
        await schedules.pause(f"{name}-2", dry_run=True)


async def test_an_expression_is_checked_before_anything_is_sent(
    rules: Rules, schedules: DeployedSchedules
) -> None:
    name = await rules.make()
    with pytest.raises(ConfigurationError, match="Hours = '24': give 0-23"):
        await schedules.set(name, "cron(0 24 * * ? *)")
    for wrong in ("no rule", "", "x" * 65):
        with pytest.raises(ConfigurationError, match="a rule's name is 1 to 64 letters"):
            await schedules.show(wrong)
    with pytest.raises(ConfigurationError, match=r"rule = 'a b'.*bus = 'c d': give the name or the ARN"):
        await schedules.pause("a b", bus="c d")
    assert rules.asked == []


PATTERN = '{"source": ["shop"]}'


@pytest.mark.parametrize(
    ("rule", "answer", "said"),
    [
        ({"ScheduleExpression": "", "EventPattern": PATTERN}, {}, "is for events, by an event pattern"),
        ({"EventPattern": PATTERN}, {}, "is for events too"),
        ({}, {"ManagedBy": "schemas.amazonaws.com"}, "is managed by schemas.amazonaws.com: change it there"),
    ],
)
async def test_rules_that_are_not_for_this_are_shown_and_not_changed(
    rules: Rules, schedules: DeployedSchedules, rule: dict[str, str], answer: dict[str, str], said: str
) -> None:
    name = await rules.make(**rule)
    with rules.answers("DescribeRule", **answer):
        assert (await schedules.show(name)).has_pattern is ("EventPattern" in rule)
        for change in (
            schedules.pause(name),
            schedules.resume(name),
            schedules.set(name, "rate(1 day)"),
        ):
            with pytest.raises(ScheduleError, match=said):
                await change
    assert rules.changes == []


async def test_a_rule_that_is_not_there_is_told_with_those_that_are(
    rules: Rules, schedules: DeployedSchedules
) -> None:
    prefix = uuid.uuid4().hex[:8]
    names = [await rules.make(f"{prefix}-{name}") for name in ("ingestion-schedule", "cleanup")]
    await rules.make(f"{prefix}-ingestion-events", ScheduleExpression="", EventPattern=PATTERN)
    place = "on the bus 'default' in us-east-1"
    with pytest.raises(ScheduleError) as near:
        await schedules.show(f"{prefix}-ingestion-shedule")
    assert str(near.value) == f"there is no rule '{prefix}-ingestion-shedule' {place}; did you mean {names[0]!r}?"
    assert rules.asked[-1] == ("ListRules", {"EventBusName": "default", "NamePrefix": prefix})
    with pytest.raises(ScheduleError) as far:
        await schedules.pause(f"{prefix}-x")
    assert str(far.value).endswith(f"; rules with a schedule are: {names[1]}, {names[0]}")
    with pytest.raises(ScheduleError, match=f"there is no rule 'nothing-like-it' {place}; "):
        await schedules.resume("nothing-like-it")
    # None begins so: all are asked for.
    assert rules.asked[-1] == ("ListRules", {"EventBusName": "default"})
    with pytest.raises(ScheduleError, match="no rule there has a schedule; check the region and the account"):
        await schedules.show("x", bus=f"{prefix}-bus")


async def test_who_may_not_list_rules_is_told_what_is_missing_all_the_same(
    rules: Rules, schedules: DeployedSchedules
) -> None:
    with (
        rules.answers("ListRules", code="AccessDeniedException"),
        pytest.raises(ScheduleError, match=r"there is no rule 'x' on the bus 'default' in us-east-1$"),
    ):
        await schedules.show("x")
    with (
        rules.answers("DescribeRule", code="ResourceNotFoundException"),
        rules.answers("ListRules", code="ResourceNotFoundException"),
        pytest.raises(ScheduleError, match=r"there is no bus 'y' in us-east-1$"),
    ):
        await schedules.show("x", bus="y")
    with (
        rules.answers("DescribeRule", code="AccessDeniedException"),
        pytest.raises(AccessError, match="allow DescribeRule to these credentials"),
    ):
        await schedules.show("x")


async def test_an_expression_that_cannot_be_read_here_can_be_paused_and_replaced(
    rules: Rules, schedules: DeployedSchedules
) -> None:
    name = await rules.make()
    with rules.answers("DescribeRule", ScheduleExpression="cron(0 9 LW * ? *)"):
        found = await schedules.show(name)
        assert (found.expression, found.schedule) == ("cron(0 9 LW * ? *)", None)
        assert (await schedules.pause(name)).after.is_paused
        assert not (await schedules.set(name, EVENING)).is_empty
    assert (await schedules.show(name)).expression == EVENING
