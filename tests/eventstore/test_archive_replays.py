"""Replays of EventBridge archives, on the emulator; and what it does not show, from answers as AWS gives them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.devstack import FaultProxy
from oms_events.devstack.faults import Denied, LoseAnswer
from oms_events.errors import AccessError, ConfigurationError, ProvisioningError, ReplayError
from oms_events.eventstore.replay.archive import ArchiveReplays
from oms_events.eventstore.replay.archive_replays import ArchiveReplay, read_replay
from oms_events.eventstore.time_ranges import TimeRange
from oms_events.testing import ManualClock
from tests.outbox.support import Settings, session_of, settings_of

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def last_hour() -> TimeRange:
    now = datetime.now(UTC)
    return TimeRange(now - timedelta(hours=1), now)


@dataclass
class Bus:
    """A bus with an archive of it, and a rule that puts what it sees into a queue."""

    events: ControlClient
    sqs: ControlClient
    name: str
    arn: str
    queue_url: str
    rule_arn: str

    async def put(self, *ids: str) -> None:
        entries = [
            {
                "Source": "shop",
                "DetailType": "order",
                "Detail": json.dumps({"id": one}),
                "EventBusName": self.name,
            }
            for one in ids
        ]
        await self.events.call("PutEvents", Entries=entries)

    async def got(self, count: int) -> list[Mapping[str, Any]]:
        """What the rule put into the queue."""
        found: list[Mapping[str, Any]] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                answer = await self.sqs.call(
                    "ReceiveMessage", QueueUrl=self.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1
                )
                for message in answer.get("Messages", ()):
                    found.append(json.loads(message["Body"]))
                    await self.sqs.call(
                        "DeleteMessage", QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"]
                    )
        return found


@pytest.fixture(scope="session")
async def clients(aws: Settings) -> AsyncIterator[tuple[ControlClient, ControlClient]]:
    config = AwsConfig(**aws)
    async with open_control(config, "events") as events, open_control(config, "sqs") as sqs:
        yield events, sqs


@pytest.fixture
async def bus(clients: tuple[ControlClient, ControlClient]) -> AsyncIterator[Bus]:
    name = f"replays-{uuid4().hex[:8]}"
    events, sqs = clients
    arn = (await events.call("CreateEventBus", Name=name))["EventBusArn"]
    queue = (await sqs.call("CreateQueue", QueueName=name))["QueueUrl"]
    asked = {"QueueUrl": queue, "AttributeNames": ["QueueArn"]}
    queue_arn = (await sqs.call("GetQueueAttributes", **asked))["Attributes"]["QueueArn"]
    pattern = json.dumps({"source": ["shop"]})
    rule = await events.call("PutRule", Name="orders", EventBusName=name, EventPattern=pattern)
    await events.call("PutTargets", Rule="orders", EventBusName=name, Targets=[{"Id": "queue", "Arn": queue_arn}])
    await events.call("CreateArchive", ArchiveName=name, EventSourceArn=arn)
    yield Bus(events, sqs, name, arn, queue, rule["RuleArn"])
    await events.call("DeleteArchive", ArchiveName=name)
    await sqs.call("DeleteQueue", QueueUrl=queue)
    await events.call("RemoveTargets", Rule="orders", EventBusName=name, Ids=["queue"])
    await events.call("DeleteRule", Name="orders", EventBusName=name)
    await events.call("DeleteEventBus", Name=name)


async def test_an_archive_is_replayed_to_its_bus(aws: Settings, bus: Bus) -> None:
    await bus.put("1", "2", "3")
    assert len(await bus.got(3)) == 3
    warnings: list[str] = []
    seen: list[ArchiveReplay] = []
    async with ArchiveReplays(AwsConfig(**aws)) as archives:
        started = await archives.start(bus.name, last_hour(), on_warning=warnings.append)
        ended = await archives.follow(started.name, on_progress=seen.append, interval=0.01)
        listed = [one async for one in archives.replays(bus.name)]
    replayed = await bus.got(3)
    assert sorted(event["detail"]["id"] for event in replayed) == ["1", "2", "3"]
    assert {event["replay-name"] for event in replayed} == {started.name}
    assert (ended.is_complete, ended.progress, ended.bus) == (True, 1.0, bus.arn)
    assert seen[-1] == ended
    assert [(one.name, one.state) for one in listed] == [(started.name, "COMPLETED")]
    assert any("up to 10 minutes" in text for text in warnings)


async def test_only_the_range_is_replayed_to_the_whole_second(aws: Settings, bus: Bus) -> None:
    await bus.put("1")
    await bus.got(1)
    now = datetime.now(UTC)
    async with ArchiveReplays(AwsConfig(**aws)) as archives:
        early = await archives.start(
            bus.arn.replace("event-bus", "archive"), TimeRange(now - timedelta(days=2), now - timedelta(days=1))
        )
        assert (await archives.follow(early.name, interval=0.01)).is_complete
    # Of the second in which it ends, the part before counts.
    clock = ManualClock(now + timedelta(seconds=5))
    async with ArchiveReplays(AwsConfig(**aws), clock=clock) as archives:
        late = await archives.start(bus.name, TimeRange(now - timedelta(minutes=1), datetime.now(UTC)))
        assert late.end is not None
        assert late.end >= now
        assert (await archives.follow(late.name)).is_complete
    (event,) = await bus.got(1)
    assert event["replay-name"] == late.name


async def test_a_rule_is_given_by_its_name_or_its_arn(aws: Settings, bus: Bus) -> None:
    async with ArchiveReplays(AwsConfig(**aws)) as archives:
        by_name = await archives.start(bus.name, last_hour(), rules=["orders"])
        by_arn = await archives.start(bus.name, last_hour(), rules=[bus.rule_arn])
        assert by_name.rules == by_arn.rules == (bus.rule_arn,)
        with pytest.raises(ReplayError, match="there is no rule 'order' on the bus"):
            await archives.start(bus.name, last_hour(), rules=["order"])
        with pytest.raises(ConfigurationError, match="is of the bus 'default', but the archive's events go to"):
            await archives.start(bus.name, last_hour(), rules=[bus.rule_arn.replace(f"{bus.name}/", "")])
        await bus.events.call("DisableRule", Name="orders", EventBusName=bus.name)
        warnings: list[str] = []
        await archives.start(bus.name, last_hour(), rules=["orders"], on_warning=warnings.append)
    assert "rule 'orders' is disabled: it takes nothing" in warnings


async def test_what_is_not_there_is_named(aws: Settings, bus: Bus) -> None:
    async with ArchiveReplays(AwsConfig(**aws)) as archives:
        with pytest.raises(ReplayError) as raised:
            await archives.start(f"{bus.name}x", last_hour())
        assert str(raised.value) == (
            f"there is no archive '{bus.name}x' in region {aws['aws_region']}; did you mean '{bus.name}'?"
        )
        with pytest.raises(ReplayError, match=r"there is no archive 'nothing-like-it' .*; there are: .*replays-"):
            await archives.start("nothing-like-it", last_hour())
        other = f"arn:aws:events:eu-south-2:111122223333:archive/{bus.name}"
        with pytest.raises(ReplayError, match=r"is arn:aws:events:\S+, not arn:aws:events:eu-south-2"):
            await archives.start(other, last_hour())
        for ask in (archives.describe, archives.follow, archives.cancel):
            with pytest.raises(
                ReplayError, match=f"there is no replay 'no-such' of an archive in region {aws['aws_region']}"
            ):
                await ask("no-such")


@pytest.mark.parametrize(
    ("archive", "time_range", "options", "problem"),
    [
        ("two words", TimeRange(NOW), {}, "archive = 'two words': give its name, or its ARN"),
        ("arn:aws:events:us-east-1:1:rule/x", TimeRange(NOW), {}, "give its name, or its ARN"),
        ("shop", TimeRange(), {}, "start is missing"),
        ("shop", TimeRange(NOW + timedelta(days=99_999)), {}, "is in the future: nothing is there"),
        ("shop", TimeRange(NOW, NOW + timedelta(days=99_999)), {}, "end it now at the latest"),
        ("shop", TimeRange(NOW), {"name": "two words"}, "name = 'two words'"),
    ],
)
async def test_what_cannot_be_is_refused_before_aws_is_asked(
    archive: str, time_range: TimeRange, options: dict[str, Any], problem: str
) -> None:
    nobody = {**settings_of("http://127.0.0.1:9"), "connect_timeout": 0.1}
    async with ArchiveReplays(AwsConfig(**nobody), clock=ManualClock(NOW + timedelta(days=1))) as archives:
        with pytest.raises(ConfigurationError) as raised:
            await archives.start(archive, time_range, **options)
    assert problem in str(raised.value)


async def test_a_name_that_is_taken_is_told_and_a_lost_answer_is_not_a_taken_name(
    aws: Settings, bus: Bus, oms_fault_proxy: FaultProxy
) -> None:
    name = f"{bus.name}-once"
    config = AwsConfig(**{**aws, "endpoint_url": oms_fault_proxy.endpoint_url})
    async with ArchiveReplays(config) as archives:
        oms_fault_proxy.script(LoseAnswer(), operation="StartReplay")
        started = await archives.start(bus.name, last_hour(), name=name)
        assert started.name == name
        assert len(oms_fault_proxy.calls_of("StartReplay")) == 2
        with pytest.raises(
            ReplayError, match=f"there is a replay '{name}' already, running or ended; choose another"
        ):
            await archives.start(bus.name, last_hour(), name=name)


async def test_a_replay_that_has_ended_cannot_be_cancelled(aws: Settings, bus: Bus) -> None:
    async with ArchiveReplays(AwsConfig(**aws)) as archives:
        started = await archives.start(bus.name, last_hour())
        await archives.follow(started.name, interval=0.01)
        with pytest.raises(ReplayError, match="has ended already: COMPLETED"):
            await archives.cancel(started.name)


async def test_what_aws_refuses_is_told(aws: Settings, bus: Bus, oms_fault_proxy: FaultProxy) -> None:
    config = AwsConfig(**{**aws, "endpoint_url": oms_fault_proxy.endpoint_url})
    async with ArchiveReplays(config) as archives:
        oms_fault_proxy.script(Denied(), operation="StartReplay")
        with pytest.raises(AccessError, match="allow StartReplay to these credentials"):
            await archives.start(bus.name, last_hour())
        oms_fault_proxy.script(Denied("ValidationException", "Parameter EventEndTime"), operation="StartReplay")
        with pytest.raises(ProvisioningError, match="Parameter EventEndTime"):
            await archives.start(bus.name, last_hour())
        # Without the right to look at rules it goes on, and says so.
        oms_fault_proxy.script(Denied(), operation="DescribeRule")
        warnings: list[str] = []
        started = await archives.start(bus.name, last_hour(), rules=["orders"], on_warning=warnings.append)
        assert started.rules == (bus.rule_arn,)
        assert any("whether there is a rule 'orders' could not be seen" in text for text in warnings)
        # Nor is the right to list archives needed to hear that one is missing.
        oms_fault_proxy.script(Denied(), operation="ListArchives")
        with pytest.raises(ReplayError, match="check its name and the region"):
            await archives.start("no-such", last_hour())


async def test_a_session_of_ones_own_is_used(aws: Settings, bus: Bus) -> None:
    config = AwsConfig(aws_region=aws["aws_region"], endpoint_url=aws["endpoint_url"])
    async with ArchiveReplays(config, session=session_of(aws)) as archives:
        assert [one async for one in archives.replays(bus.name)] == []


async def test_outside_of_its_context_it_says_how_to_use_it(aws: Settings) -> None:
    with pytest.raises(ReplayError, match="async with ArchiveReplays"):
        await ArchiveReplays(AwsConfig(**aws)).describe("x")


# ---------------------------------------------------------------------- what the emulator does not show

ARCHIVE_ARN = "arn:aws:events:us-east-1:111122223333:archive/shop"
BUS_ARN = "arn:aws:events:us-east-1:111122223333:event-bus/shop"
ARCHIVE = {"ArchiveArn": ARCHIVE_ARN, "EventSourceArn": BUS_ARN, "State": "ENABLED"}


class Answers:
    """A client of `events` whose answers come from a list, the last one for ever."""

    def __init__(self, **answers: list[Any]) -> None:
        mapping = {"describe_archive": "DescribeArchive", "describe_replay": "DescribeReplay"}
        mapping |= {"start_replay": "StartReplay", "cancel_replay": "CancelReplay", "list_replays": "ListReplays"}
        self.meta = SimpleNamespace(method_to_api_mapping=mapping, region_name="us-east-1")
        self.asked: list[tuple[str, dict[str, Any]]] = []
        for method, operation in mapping.items():
            left = answers.get(operation, [{}])

            async def call(left: list[Any] = left, operation: str = operation, **given: Any) -> Any:
                self.asked.append((operation, given))
                answer = left.pop(0) if len(left) > 1 else left[0]
                if isinstance(answer, Exception):
                    raise answer
                return answer

            setattr(self, method, call)


def replay(state: str, **fields: Any) -> dict[str, Any]:
    times = {"EventStartTime": NOW - timedelta(hours=1), "EventEndTime": NOW}
    return {"ReplayName": "x", "State": state, "EventSourceArn": ARCHIVE_ARN, **times, **fields}


async def test_it_is_followed_until_it_ends_however_that_is() -> None:
    states = [
        replay("STARTING"),
        replay("RUNNING", EventLastReplayedTime=NOW - timedelta(minutes=45)),
        replay("RUNNING", EventLastReplayedTime=NOW - timedelta(minutes=15)),
        replay("FAILED", StateReason="the bus is gone", EventLastReplayedTime=NOW - timedelta(minutes=15)),
    ]
    clock = ManualClock(NOW)
    seen: list[ArchiveReplay] = []
    async with ArchiveReplays(AwsConfig(), client=Answers(DescribeReplay=states), clock=clock) as archives:
        following = asyncio.create_task(archives.follow("x", on_progress=seen.append, interval=5))
        for _ in range(4):
            await clock.advance(5)
        ended = await following
    assert [one.progress for one in seen] == [0.0, 0.25, 0.75, 0.75]
    assert (ended.is_over, ended.is_complete, ended.reason) == (True, False, "the bus is gone")
    assert clock.monotonic() == 20


@pytest.mark.parametrize("state", ["DISABLED", "CREATING", "CREATE_FAILED"])
async def test_an_archive_that_is_not_enabled_is_refused(state: str) -> None:
    client = Answers(DescribeArchive=[{**ARCHIVE, "State": state, "StateReason": "somebody did it"}])
    async with ArchiveReplays(AwsConfig(), client=client, clock=ManualClock(NOW)) as archives:
        with pytest.raises(ReplayError, match=rf"archive 'shop' is {state} \(somebody did it\), not ENABLED"):
            await archives.start("shop", TimeRange(NOW - timedelta(hours=1)))
    assert [operation for operation, _ in client.asked] == ["DescribeArchive"]


async def test_what_it_may_miss_is_told_and_what_is_asked_is_in_whole_seconds() -> None:
    made = NOW - timedelta(days=1)
    described = {**ARCHIVE, "CreationTime": made, "RetentionDays": 7}
    client = Answers(DescribeArchive=[described], DescribeReplay=[replay("STARTING")])
    warnings: list[str] = []
    part = timedelta(milliseconds=250)
    async with ArchiveReplays(
        AwsConfig(), client=client, clock=ManualClock(NOW), rng=random.Random(1)
    ) as archives:
        asked = TimeRange(NOW - timedelta(days=30) + part, NOW - timedelta(hours=1) + part)
        await archives.start("shop", asked, name="x", on_warning=warnings.append)
    assert len(warnings) == 2
    assert "nothing from before it was made, 2026-01-30T12:00:00+00:00" in warnings[0]
    assert "keeps events for 7 days" in warnings[1]
    (_, given) = next(one for one in client.asked if one[0] == "StartReplay")
    assert given.pop("Description").startswith("oms-events ")
    assert given == {
        "ReplayName": "x",
        "EventSourceArn": ARCHIVE_ARN,
        "EventStartTime": NOW - timedelta(days=30),
        "EventEndTime": NOW - timedelta(hours=1) + timedelta(seconds=1),
        "Destination": {"Arn": BUS_ARN},
    }


async def test_it_never_ends_in_the_future() -> None:
    client = Answers(DescribeArchive=[ARCHIVE], DescribeReplay=[replay("STARTING")])
    now = NOW + timedelta(milliseconds=700)
    async with ArchiveReplays(AwsConfig(), client=client, clock=ManualClock(now)) as archives:
        for end in (None, now - timedelta(milliseconds=200), now + timedelta(seconds=30)):
            await archives.start("shop", TimeRange(NOW - timedelta(milliseconds=1), end))
        with pytest.raises(ConfigurationError, match="is now, or is in the future: nothing is there to replay"):
            await archives.start("shop", TimeRange(NOW + timedelta(milliseconds=1)))
    asked = [given for operation, given in client.asked if operation == "StartReplay"]
    assert [one["EventEndTime"] for one in asked] == [NOW] * 3
    assert {one["EventStartTime"] for one in asked} == {NOW - timedelta(seconds=1)}


async def test_a_replay_that_was_started_is_told_though_it_cannot_be_looked_at() -> None:
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DescribeReplay")
    gone = ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "not yet"}}, "DescribeReplay")
    for error in (denied, gone):
        client = Answers(DescribeArchive=[ARCHIVE], DescribeReplay=[error])
        warnings: list[str] = []
        async with ArchiveReplays(AwsConfig(), client=client, clock=ManualClock(NOW)) as archives:
            started = await archives.start(
                "shop", TimeRange(NOW - timedelta(hours=2), NOW - timedelta(hours=1)), on_warning=warnings.append
            )
        (given,) = [given for operation, given in client.asked if operation == "StartReplay"]
        assert started == ArchiveReplay(
            name=given["ReplayName"],
            state="STARTING",
            archive=ARCHIVE_ARN,
            bus=BUS_ARN,
            start=given["EventStartTime"],
            end=given["EventEndTime"],
        )
        assert f"replay '{started.name}' was started, but could not be looked at" in warnings[-1]


async def test_a_running_replay_is_cancelled() -> None:
    client = Answers(DescribeReplay=[replay("RUNNING"), replay("CANCELLING")])
    async with ArchiveReplays(AwsConfig(), client=client) as archives:
        assert (await archives.cancel("x")).state == "CANCELLING"
    assert ("CancelReplay", {"ReplayName": "x"}) in client.asked


async def test_too_many_replays_are_told_as_such() -> None:
    # Here without botocore's own attempts, which take this for throttling.
    refused = ClientError({"Error": {"Code": "LimitExceededException", "Message": "10"}}, "StartReplay")
    client = Answers(DescribeArchive=[ARCHIVE], StartReplay=[refused])
    async with ArchiveReplays(AwsConfig(), client=client, clock=ManualClock(NOW)) as archives:
        with pytest.raises(ReplayError, match=r"too many replays are running .*; wait for one, or cancel one"):
            await archives.start("shop", TimeRange(NOW - timedelta(hours=1)))


async def test_a_replay_that_ends_while_it_is_cancelled_is_told_as_ended() -> None:
    refused = ClientError({"Error": {"Code": "IllegalStatusException", "Message": "ended"}}, "CancelReplay")
    client = Answers(DescribeReplay=[replay("RUNNING"), replay("COMPLETED")], CancelReplay=[refused])
    async with ArchiveReplays(AwsConfig(), client=client) as archives:
        with pytest.raises(ReplayError, match="has ended meanwhile: COMPLETED"):
            await archives.cancel("x")


async def test_all_pages_of_replays_are_listed() -> None:
    pages = [{"Replays": [replay("RUNNING")], "NextToken": "more"}, {"Replays": [replay("FAILED")]}]
    client = Answers(ListReplays=pages)
    async with ArchiveReplays(AwsConfig(), client=client) as archives:
        assert [one.state async for one in archives.replays()] == ["RUNNING", "FAILED"]
    assert client.asked == [("ListReplays", {}), ("ListReplays", {"NextToken": "more"})]


def test_a_replay_without_a_range_has_made_no_progress() -> None:
    assert read_replay({"ReplayName": "x", "State": "RUNNING"}).progress == 0.0
