"""One thing at a time that is not as it should be, and exactly what is told of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from oms_events.provisioning.checks.report import Finding, Level, Report
from tests.provisioning.checks.checked import BUS, PATTERNS, World, Worlds

OK, PROBLEM, WARNING, NOT_CHECKED = Level.OK, Level.PROBLEM, Level.WARNING, Level.NOT_CHECKED

Act = Callable[[World], Awaitable[Any]]

Expected = tuple[str, str, Level, str]
"""Area, subject with `{}` for the world's name, level, and a part of the message or the remedy."""


def wrong(report: Report) -> list[Finding]:
    return [found for found in report.findings if found.level is not Level.OK]


def assert_exactly(report: Report, expected: Sequence[Expected], name: str) -> None:
    found = wrong(report)
    told = [(one.area, one.subject, one.level) for one in found]
    assert sorted(told) == sorted((area, subject.format(name), level) for area, subject, level, _ in expected), (
        found
    )
    for area, subject, level, text in expected:
        assert any(
            (one.area, one.subject, one.level) == (area, subject.format(name), level)
            and text.format(name) in f"{one.message} {one.remedy}"
            for one in found
        ), (text, found)
    assert all(one.remedy for one in found)
    assert report.passed is all(level is not PROBLEM for _, _, level, _ in expected)


@dataclass(frozen=True)
class Broken:
    """One thing that is not as it should be, and exactly what is told of it."""

    name: str
    act: Act
    expected: tuple[Expected, ...]
    parts: tuple[str, ...]


def broken(name: str, act: Act, *expected: Expected, parts: tuple[str, ...] = BUS) -> Any:
    return pytest.param(Broken(name, act, expected, parts), id=name.replace(" ", "-"))


def on(service: str, operation: str, **parameters: Any) -> Act:
    """A call with `{}` for the world's name in its texts."""

    def fill(value: Any, name: str) -> Any:
        return value.replace("{}", name) if isinstance(value, str) else value

    async def act(world: World) -> None:
        filled = {key: fill(value, world.name) for key, value in parameters.items()}
        await getattr(world.clients[service], operation)(**filled)

    return act


def both(*acts: Act) -> Act:
    async def act(world: World) -> None:
        for one in acts:
            await one(world)

    return act


def target(rule: str, arn: Callable[[World], str], **more: Any) -> Act:
    return lambda world: world.put_target(rule, arn(world), **more)


def rule(name: str, **more: Any) -> Act:
    pattern = more.pop("pattern", PATTERNS.get(name))
    return lambda world: world.put_rule(name, pattern, **more)


async def delete_queue(world: World, name: str) -> None:
    await world.clients["sqs"].delete_queue(QueueUrl=await world.url(name))


async def assert_told(worlds: Worlds, case: Broken) -> None:
    async with worlds(*case.parts) as world:
        await case.act(world)
        assert_exactly(await world.check(), case.expected, world.name)
