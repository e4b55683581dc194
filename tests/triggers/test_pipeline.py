"""The way of a start through the pipeline: read, checked, completed, handled and answered."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from oms_events.errors import ConfigurationError, StartRefusedError
from oms_events.instrumentation.correlation import current_correlation_id
from oms_events.testing.clock import ManualClock
from oms_events.triggers.config import RunOptions, TriggerConfig
from oms_events.triggers.endings import ENDINGS
from oms_events.triggers.pipeline import TriggerPipeline
from oms_events.triggers.problems import Code
from oms_events.triggers.reading.custom_events import DEFAULT_EVENTS, MarketClose
from oms_events.triggers.reading.event_table import EventReaders
from oms_events.triggers.request import TriggerRequest
from oms_events.triggers.responses import Status, TriggerResponse
from oms_events.triggers.rules import RuleViolation
from oms_events.triggers.start import Start
from tests.triggers.pipelines import Scene, event, manual, new_objects, schedule
from tests.triggers.strategies import ALL_PAYLOADS


def codes(response: TriggerResponse) -> list[str]:
    return [problem.code for problem in response.problems]


async def test_a_manual_call_runs_and_is_answered() -> None:
    scene = Scene()
    response = await scene.handle({"symbols": ["AAPL"], "period": "1d", "urgent": True, "note": "x"})
    assert response == TriggerResponse(
        status_code=200, status=Status.SUCCESS, correlation_id="made-0", result={"chunks": 1}
    )
    (start,) = scene.handler.starts
    assert start.request.symbols == ("AAPL",)
    assert start.key == "market:prices:2026-01-01:made-0"
    assert (start.ds, start.correlation_id, start.options) == ("2026-01-01", "made-0", RunOptions())
    assert start.unknown == {"note": "x"}
    document = response.document()
    assert json.loads(document["body"]) == {
        "status": "success",
        "correlation_id": "made-0",
        "result": {"chunks": 1},
    }
    (triggered,) = scene.triggered
    assert (triggered.trigger_type, triggered.domain, triggered.status) == ("manual", "market", "success")


@pytest.mark.parametrize("name", sorted(ALL_PAYLOADS))
async def test_every_known_payload_starts_something_and_a_second_delivery_is_a_duplicate(name: str) -> None:
    scene = Scene(make_id=lambda: "the-same")
    first = await scene.handle(ALL_PAYLOADS[name])
    count = len(scene.handler.starts)
    assert first.ok
    assert count == len(first.results or [first])
    second = await scene.handle(json.dumps(ALL_PAYLOADS[name]))
    assert second.ok
    assert {one.status for one in second.results or [second]} == {Status.DUPLICATE}
    assert [one.result for one in second.results or [second]] == [one.result for one in first.results or [first]]
    assert len(scene.handler.starts) == count


async def test_a_broken_input_is_an_error_and_an_invalid_one_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    broken = await scene.handle("{")
    assert (broken.status_code, broken.status, codes(broken)) == (400, Status.REJECTED, [Code.NOT_JSON])
    invalid = await scene.handle(manual(domain="a b", table_name="9"))
    assert codes(invalid) == [Code.INVALID_DOMAIN, Code.INVALID_TABLE_NAME]
    assert invalid.correlation_id == "call-1"
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.ERROR, logging.WARNING]
    assert caplog.records[1].correlation_id == "call-1"  # type: ignore[attr-defined]
    assert not scene.handler.starts
    assert not scene.dead_letters.letters
    assert not broken.retryable
    assert not invalid.retryable
    assert [one.domain for one in scene.triggered] == ["unknown", "unknown"]


async def test_defaults_and_unknown_keys_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scene = Scene()
    await scene.handle(manual(period="1d", requested_by="me\nERROR forged"))
    await scene.handle(manual(correlation_id="call-2", **{"x\nERROR forged": 1}))
    (warning, _) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "interval = 1d" in warning.getMessage()
    assert "period" not in warning.getMessage()
    assert any("requested_by" in record.getMessage() for record in caplog.records)
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert all(record.correlation_id in record.getMessage() for record in caplog.records)  # type: ignore[attr-defined]


async def test_lines_written_by_the_handler_belong_to_the_start() -> None:
    seen = []

    async def handler(start: Start) -> None:
        seen.append(current_correlation_id())
        await asyncio.to_thread(lambda: seen.append(current_correlation_id()))

    await Scene(handler=handler).handle(manual())
    assert seen == ["call-1", "call-1"]
    assert current_correlation_id() is None


async def test_absent_and_empty_symbols_are_loaded_and_given_ones_are_not() -> None:
    asked: list[TriggerRequest] = []

    async def load(request: TriggerRequest) -> Sequence[str]:
        asked.append(request)
        return ["TSLA", " NVDA "]

    scene = Scene(symbols=load)
    await scene.handle({"period": "1d"})
    await scene.handle({"symbols": []})
    await scene.handle({"symbols": ["AAPL"]})
    await scene.handle({"symbols": ["AAPL"], "force_symbols": True})
    assert [start.request.symbols for start in scene.handler.starts] == [("TSLA", "NVDA")] * 2 + [("AAPL",)] * 2
    assert len(asked) == 2


async def test_without_a_source_symbols_are_the_environments(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    await scene.handle({"period": "1d"})
    assert scene.handler.starts[0].request.symbols == ("AAPL", "MSFT", "GOOGL")
    assert "symbols come from the defaults of dev" in caplog.text
    of_prod = Scene(TriggerConfig.of("prod"))
    response = await of_prod.handle({"period": "1d"})
    assert (response.status_code, codes(response)) == (400, [Code.INVALID_SYMBOLS])
    assert "symbols come from the defaults of prod" not in caplog.text


@pytest.mark.parametrize(
    "loaded", [[], [f"S{at}" for at in range(101)], ["AAPL", "no symbol"], [5930], "AAPL", None, {"AAPL": 1}]
)
async def test_what_a_source_gives_is_checked(loaded: Any) -> None:
    async def load(request: TriggerRequest) -> Any:
        return loaded

    scene = Scene(symbols=load)
    response = await scene.handle({"period": "1d"})
    assert (response.status_code, set(codes(response))) == (400, {Code.INVALID_SYMBOLS})
    assert not scene.handler.starts
    assert await scene.is_free()


async def test_values_that_a_source_gives_are_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def load(request: TriggerRequest) -> list[str]:
        return ["AAPL", "hunter2 is my p@ss!"]

    response = await Scene(symbols=load).handle({"period": "1d"})
    assert response.problems[0].field == "symbols.1"
    assert "hunter2" not in str(response.body) + caplog.text


async def test_a_source_that_fails_is_tried_again() -> None:
    async def load(request: TriggerRequest) -> Sequence[str]:
        raise OSError("no network, password=1234")

    scene = Scene(symbols=load)
    response = await scene.handle({"period": "1d"})
    assert (response.status_code, codes(response)) == (503, [Code.SYMBOLS_UNAVAILABLE])
    assert response.retryable
    assert "1234" not in str(response.body)


async def test_a_rule_with_a_fallback_goes_on_and_one_without_refuses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def no_long_periods(request: TriggerRequest) -> RuleViolation | None:
        if request.period != "max":
            return None
        return RuleViolation(
            "PERIOD_TOO_LONG", "ask for less", "period", request.period, fallback={"period": "1y"}
        )

    async def no_weekly(request: TriggerRequest) -> RuleViolation | None:
        await asyncio.sleep(0)
        return RuleViolation("NO_WEEKLY", "give 1d", "interval") if request.interval == "1wk" else None

    scene = Scene(rules=[no_long_periods, no_weekly])
    assert (await scene.handle(manual(period="max"))).ok
    assert scene.handler.starts[0].request.period == "1y"
    (told,) = [record for record in caplog.records if "PERIOD_TOO_LONG" in record.getMessage()]
    assert told.levelno == logging.INFO
    caplog.clear()
    response = await scene.handle(manual(correlation_id="call-2", interval="1wk"))
    assert (response.status_code, response.status, codes(response)) == (422, Status.REFUSED, ["NO_WEEKLY"])
    assert not response.retryable
    assert [record.levelno for record in caplog.records][-1] == logging.ERROR
    (letter,) = scene.dead_letters.letters
    assert (letter.reason, letter.correlation_id) == ("NO_WEEKLY", "call-2")
    assert letter.raw == manual(correlation_id="call-2", interval="1wk")


async def test_rules_are_answered_together_and_those_that_break_are_tried_again() -> None:
    def refuse(request: TriggerRequest) -> RuleViolation:
        return RuleViolation("FAILED", "not like this")

    scene = Scene(rules=[refuse, refuse, lambda request: RuleViolation("OTHER", "nor like that")])
    response = await scene.handle(manual())
    assert (response.status_code, codes(response)) == (422, ["FAILED", "OTHER"])

    for rule in (
        lambda request: 1 / 0,
        lambda request: RuleViolation("X", "x", fallback={"domain": "other"}),
        lambda request: RuleViolation("X", "x", fallback={"symbols": ["no symbol"]}),
    ):
        response = await Scene(rules=[rule]).handle(manual())
        assert (response.status_code, codes(response), response.retryable) == (500, [Code.FAILED], True)


async def test_a_handler_that_refuses_makes_a_dead_letter() -> None:
    scene = Scene()
    scene.handler.error = StartRefusedError("DELISTED", "take it out", field="symbols", value="AAPL")
    response = await scene.handle(event())
    assert (response.status_code, response.retryable) == (422, False)
    assert response.problems[0].document() == {
        "code": "DELISTED",
        "field": "symbols",
        "value": "AAPL",
        "remedy": "take it out",
    }
    assert scene.dead_letters.letters[0].raw == event()
    assert await scene.is_free()


@pytest.mark.parametrize("result", [{1, 2}, float("nan"), object(), {"x" * 10: "y" * 500_000}, 2**70, {1: 2}])
async def test_a_result_that_is_no_json_is_left_out_and_the_start_has_run(
    result: object, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene()
    scene.handler.result = result
    response = await scene.handle(manual())
    assert (response.status, response.result) == (Status.SUCCESS, None)
    assert "left out of the answer" in caplog.text
    assert (await scene.handle(manual())).status is Status.DUPLICATE
    assert len(scene.handler.starts) == 1


async def test_a_dry_run_does_everything_but_the_sending(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    class Sender:
        async def __call__(self, start: Start) -> None:
            raise AssertionError("it was sent")

        def plan(self, start: Start) -> dict[str, Any]:
            return {"chunks": [list(start.request.symbols)]}

    scene = Scene(handler=Sender())
    response = await scene.handle(manual(dry_run=True, override_config={"chunk_size": 1}))
    assert (response.status_code, response.status) == (200, Status.DRY_RUN)
    assert response.result["plan"] == {"chunks": [["AAPL"]]}
    assert response.result["options"]["chunk_size"] == 1
    assert "would send" in caplog.text
    assert not len(scene.records)
    assert (await scene.handle(manual(dry_run=True))).status is Status.DRY_RUN
    refused = await Scene(rules=[lambda request: RuleViolation("NO", "no")]).handle(manual(dry_run=True))
    assert refused.status_code == 422


async def test_a_dry_run_that_is_refused_leaves_no_dead_letter_and_a_broken_plan_is_answered() -> None:
    scene = Scene(rules=[lambda request: RuleViolation("NO", "no")])
    assert (await scene.handle(manual(dry_run=True))).status_code == 422
    assert not scene.dead_letters.letters

    class Broken:
        async def __call__(self, start: Start) -> None: ...

        def plan(self, start: Start) -> object:
            raise ValueError("no plan")

    response = await Scene(handler=Broken()).handle(manual(dry_run=True))
    assert (response.status_code, codes(response)) == (500, [Code.FAILED])


async def test_several_objects_are_several_starts() -> None:
    objects = new_objects("market/prices/symbol=AAPL/a.json", "market/prices/symbol=MSFT/b.json")
    scene = Scene()
    response = await scene.handle(objects)
    assert (response.status_code, response.status, response.ok) == (200, Status.SUCCESS, True)
    assert [start.request.symbols for start in scene.handler.starts] == [("AAPL",), ("MSFT",)]
    assert len({one.correlation_id for one in response.results}) == 2

    async def fail_at_microsoft(start: Start) -> None:
        if "MSFT" in start.request.symbols:
            raise RuntimeError

    mixed = await Scene(handler=fail_at_microsoft).handle(objects)
    assert [one.status_code for one in mixed.results] == [200, 500]
    assert (mixed.status_code, mixed.status, mixed.ok, mixed.retryable) == (207, Status.FAILED, False, True)


async def test_a_broken_object_is_answered_beside_the_good_ones(caplog: pytest.LogCaptureFixture) -> None:
    objects = new_objects("a.json", "b.json", "c.json")
    objects["Records"][1]["s3"]["object"]["size"] = "2"
    scene = Scene()
    response = await scene.handle(objects)
    assert [(one.status_code, str(one.correlation_id)[:21]) for one in response.results] == [
        (200, "market-data-raw/a.jso"), (400, "market-data-raw/b.jso"), (200, "market-data-raw/c.jso"),
    ]  # fmt: skip
    assert (response.status_code, response.ok, response.retryable) == (207, False, False)
    assert len(scene.handler.starts) == 2
    (logged,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert logged.correlation_id == response.results[1].correlation_id  # type: ignore[attr-defined]


async def test_what_fails_in_a_users_reader_may_come_again(caplog: pytest.LogCaptureFixture) -> None:
    def to_fields(detail: MarketClose) -> dict[str, Any]:
        raise RuntimeError("password=1234")

    events = EventReaders(DEFAULT_EVENTS)
    events.register("market.events", "Market Close", MarketClose, to_fields)
    scene = Scene(events=events)
    response = await scene.handle(ALL_PAYLOADS["market_close"])
    assert (response.status_code, response.status, response.retryable) == (500, Status.FAILED, True)
    assert response.correlation_id == ALL_PAYLOADS["market_close"]["id"]
    assert "password" not in str(response.body)
    (logged,) = caplog.records
    assert logged.exc_info is not None
    assert "password" in str(logged.exc_info[1])


async def test_an_input_that_starts_nothing_is_told_with_its_id(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scene = Scene(TriggerConfig(object_prefix="other/"))
    response = await scene.handle(new_objects("market/prices/a.json"))
    assert (response.status_code, response.status, response.ok) == (200, Status.IGNORED, True)
    assert response.result["ignored"] == 1
    update = {**ALL_PAYLOADS["universe_updated"], "detail": {"immediate_ingestion": False}}
    ids = [response.correlation_id, (await scene.handle(update)).correlation_id]
    assert ids[0]
    assert ids[1] == update["id"]
    assert [(one.trigger_type, one.domain, one.status) for one in scene.triggered] == [
        ("s3", "unknown", "ignored"),
        ("event", "unknown", "ignored"),
    ]
    assert [one.correlation_id for one in scene.triggered] == ids
    assert [record.correlation_id for record in caplog.records] == ids  # type: ignore[attr-defined]


async def test_what_is_rejected_has_the_id_that_it_would_have_and_garbage_no_type() -> None:
    scene = Scene()
    wrong = {**ALL_PAYLOADS["universe_updated"], "detail": {"added_symbols": "NVDA"}}
    assert (await scene.handle(wrong)).correlation_id == wrong["id"]
    await scene.handle("no json")
    assert [(one.trigger_type, one.correlation_id) for one in scene.triggered] == [
        ("event", wrong["id"]),
        ("unknown", None),
    ]


async def test_a_schedule_and_a_handler_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.handler.error = RuntimeError("password=1234")
    response = await scene.handle(schedule())
    assert (response.status_code, codes(response), response.retryable) == (500, [Code.FAILED], True)
    assert "1234" not in str(response.body)
    assert "RuntimeError: password=1234" in caplog.text
    assert await scene.is_free()
    scene.handler.error = None
    assert (await scene.handle(schedule())).status is Status.SUCCESS


async def test_parts_are_opened_at_the_first_start_and_closed_in_turn() -> None:
    calls = []

    class Part:
        def __init__(self, name: str) -> None:
            self.name = name

        async def open(self) -> None:
            calls.append(f"open {self.name}")

        async def close(self) -> None:
            calls.append(f"close {self.name}")

        async def __call__(self, request: object) -> list[str]:
            return ["AAPL"]

    scene = Scene(handler=Part("handler"), symbols=Part("symbols"))
    assert (await scene.handle("{")).status_code == 400
    assert not calls
    await asyncio.gather(*(scene.handle({"period": f"{at}d"}) for at in range(3)))
    await scene.pipeline.close()
    await scene.pipeline.close()
    assert calls == ["open symbols", "open handler", "close handler", "close symbols"]


async def test_a_part_that_does_not_open_is_tried_again_at_the_next_start() -> None:
    class Part:
        tries = 0

        async def open(self) -> None:
            self.tries += 1
            if self.tries == 1:
                raise OSError("no network")

        async def close(self) -> None: ...

        async def __call__(self, start: Start) -> str:
            return "ran"

    scene = Scene(handler=Part())
    assert codes(await scene.handle(manual())) == [Code.FAILED]
    assert (await scene.handle(manual())).result == "ran"


def test_parts_that_cannot_be_called_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"handler = 5 .*rules\.0 = 'x'"):
        TriggerPipeline(5, rules=["x"])  # type: ignore[arg-type,list-item]


async def test_a_handler_that_is_cancelled_from_inside_has_failed() -> None:
    async def handler(start: Start) -> None:
        task = asyncio.ensure_future(asyncio.sleep(10))
        task.cancel()
        await task

    response = await Scene(handler=handler).handle(manual())
    assert codes(response) == [Code.FAILED]


async def test_ids_that_cannot_be_made_up_are_answered_too() -> None:
    response = await Scene(make_id=lambda: str(1 / 0)).handle({"symbols": ["AAPL"]})
    assert (response.status_code, response.retryable) == (500, True)


async def test_ids_are_made_up_for_manual_calls_only() -> None:
    pipeline = TriggerPipeline(lambda start: asyncio.sleep(0), clock=ManualClock())
    first, second = [await pipeline.handle({"symbols": ["A"]}) for _ in range(2)]
    assert first.correlation_id != second.correlation_id
    first, second = [await pipeline.handle(event()) for _ in range(2)]
    assert first.correlation_id == second.correlation_id == "event-1"


def test_the_table_of_codes_is_what_the_code_does() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/triggers.md").read_text()
    table = page.partition("### Codes")[2].partition("- `INVALID")[0]
    told = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            codes, *ending = (cell.strip() for cell in line.strip("|").split("|"))
            told.update(dict.fromkeys(re.findall(r"`([A-Z_]+)`", codes), ending))
    assert told == {
        code.value: [
            f"{ending.status_code} `{ending.status}`",
            logging.getLevelName(ending.level),
            "yes" if ending.retryable else "no",
            "yes" if ending.dead_letter else "no",
        ]
        for code, ending in ENDINGS.items()
    }
