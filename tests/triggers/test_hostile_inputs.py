"""Whatever comes in: it is answered with a documented status, as JSON, and nothing is left behind."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oms_events.triggers.problems import Code
from oms_events.triggers.responses import Status, TriggerResponse
from tests.strategies import json_values
from tests.triggers.pipelines import Scene
from tests.triggers.strategies import ALL_PAYLOADS, mutated, odd_values, payloads

DOCUMENTED = {
    200: {Status.SUCCESS, Status.DUPLICATE, Status.DRY_RUN, Status.IGNORED},
    202: {Status.DELAYED},
    207: set(Status),
    400: {Status.REJECTED},
    409: {Status.REJECTED, Status.BUSY},
    422: {Status.REFUSED},
    429: {Status.LIMITED},
    # Only a batch of a queue of which a record cannot be read: it stays in its queue, see `check`.
    500: {Status.FAILED},
}


def check(response: TriggerResponse) -> None:
    assert response.status in DOCUMENTED[response.status_code]
    if response.status is Status.FAILED and not response.results:
        failed = [problem for problem in response.problems if problem.code == Code.FAILED]
        assert failed
        assert all((problem.field or "").startswith("Records") for problem in failed)
    assert {problem.code for problem in response.problems} <= set(Code)
    assert all(problem.remedy for problem in response.problems)
    document = response.document()
    body = json.loads(str(document["body"]).encode(), parse_constant=pytest.fail)
    assert body["status"] == response.status.value
    if response.correlation_id is not None:
        assert response.correlation_id.isprintable()
    for one in response.results:
        check(one)


async def answer(raw: object) -> TriggerResponse:
    scene = Scene()
    response: TriggerResponse = await scene.handle(raw)
    check(response)
    assert len(response.document()["body"]) < 200_000
    return response


@settings(max_examples=40)
@given(mutated() | payloads)
async def test_broken_payloads_are_answered(raw: Any) -> None:
    await answer(raw)
    with suppress(ValueError):  # A number that is too long for its text.
        await answer(json.dumps(raw, default=repr, skipkeys=True))


@settings(max_examples=40)
@given(json_values | st.binary(max_size=50) | st.text(max_size=50) | odd_values)
async def test_anything_is_answered(raw: Any) -> None:
    await answer(raw)


@pytest.mark.nightly
@settings(max_examples=5000, suppress_health_check=[HealthCheck.too_slow])
@given(mutated() | payloads | json_values | st.binary(max_size=200) | odd_values)
async def test_anything_at_all_is_answered(raw: Any) -> None:
    await answer(raw)


class Breaking:
    """What breaks in every way when it is looked at."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["symbols"] = [value]
    return value


BATCH = json.dumps({"Records": [{"eventSource": "aws:sqs"}]})
HOSTILE: dict[str, object] = {
    "nothing": None,
    "an exception": RuntimeError("x"),
    "something breaking": Breaking(),
    "something breaking inside": {"symbols": Breaking(), "domain": [Breaking()]},
    "a value that holds itself": itself(),
    "a huge number": {"symbols": [10**5000], "period": 10**5000},
    "no number": {"urgent": float("nan"), "override_config": {"chunk_size": float("inf")}},
    "half characters": {"domain": "\ud800", "correlation_id": "\udfff", "\ud800": 1, "symbols": ["\ud800"]},
    "names that are no text": {1: 2, None: 3, "symbols": ["AAPL"], (1, 2): 3},
    "deep text": "[" * 100_000,
    "deep values": {"symbols": deep(5_000)},
    "long text": {"symbols": ["A" * 3_000_000], "correlation_id": "x" * 3_000_000},
    "too long": json.dumps({"symbols": ["A"], "note": "x" * 7_000_000}),
    "many symbols": {"symbols": [f"S {at}" for at in range(30_000)]},
    "many options": {"symbols": ["A"], "override_config": {f"option{at}": at for at in range(30_000)}},
    "many keys": {"symbols": ["A"], **{f"key {at}\n": at for at in range(30_000)}},
    "lines for the log": {"symbols": ["A"], "correlation_id": "a\nERROR b", "domain": "x\ny", "x\ry": 1},
    "a script": {"symbols": ["<script>", "'; drop table starts"], "table_name": "../../etc/passwd"},
    "bytes that are no text": b"\xff\xfe{}",
    "two names": '{"symbols": ["A"], "symbols": 5}',
    "many objects": {
        "Records": [
            {**ALL_PAYLOADS["s3_notification"]["Records"][0], "eventName": "ObjectCreated:Put"} for _ in range(300)
        ]
    },
    "a queue in a queue": {
        "Records": [
            {
                "messageId": "1",
                "eventSource": "aws:sqs",
                "body": json.dumps({"Records": [{"eventSource": "aws:sqs"}]}),
            }
        ]
    },
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_inputs_are_answered(name: str, caplog: pytest.LogCaptureFixture) -> None:
    await answer(HOSTILE[name])
    for record in caplog.records:
        assert record.getMessage().isprintable()
        assert len(record.getMessage()) < 20_000


async def test_an_answer_has_a_hundred_problems_at_most() -> None:
    record = {**ALL_PAYLOADS["s3_notification"]["Records"][0], "s3": None}
    response = await answer({"Records": [record] * 300})
    assert len(response.problems) == 101
    assert "more problems are not shown" in response.problems[-1].remedy
