"""What the tests of deployments share: a scripted CloudFormation, and a clock that they move."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oms_events.testing.clock import ManualClock
from tests.provisioning.cloudformation import (
    CHANGE_SET_ID,
    QUEUE,
    STACK_ID,
    CloudFormation,
    change_set,
    serving,
    stack,
)


@pytest.fixture
def aws() -> Iterator[CloudFormation]:
    """With answers for what every plan of a stack that exists asks, and every end of it."""
    with serving() as scripted:
        scripted.answer("DescribeStacks", stack("UPDATE_COMPLETE"))
        scripted.answer("CreateChangeSet", {"Id": CHANGE_SET_ID, "StackId": STACK_ID})
        scripted.answer("DescribeChangeSet", change_set(changes=[QUEUE]))
        for operation in ("DeleteChangeSet", "ExecuteChangeSet", "DeleteStack", "UpdateTerminationProtection"):
            scripted.answer(operation, {})
        scripted.answer("ListChangeSets", {"Summaries": []})
        yield scripted


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
