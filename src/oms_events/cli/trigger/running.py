"""`oms-events trigger run`."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from oms_events.cli.common import POSITIVE_NUMBER, ExitCode, ends_cleanly, run
from oms_events.cli.output import one_line, print_fields, print_json, tell
from oms_events.cli.trigger.functions import Answer, invoke
from oms_events.cli.trigger.options import takes_settings, to_payload, to_pipeline
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.recognition import read_starts
from oms_events.triggers.responses import Status
from oms_events.triggers.settings import TriggerSettings
from oms_events.triggers.start import Start
from oms_events.triggers.validation import complete

if TYPE_CHECKING:
    from oms_events.triggers.pipeline import TriggerPipeline

_LONGEST_RUN: Final = 900.0
"""Seconds that a function may take (AWS Lambda guide, "Lambda quotas")."""


@click.command("run")
@click.option(
    "--payload", type=to_payload, metavar="FILE|-|JSON", help="What comes in: a file, stdin or JSON itself."
)
@click.option("--function", metavar="NAME", help="Start it on this deployed function, by name or ARN.")
@click.option("--async", "is_async", is_flag=True, help="With --function: do not wait for the answer.")
@click.option(
    "--timeout", type=POSITIVE_NUMBER, default=_LONGEST_RUN, show_default=True, metavar="SECONDS",
    help="With --function: wait so long for the answer.",
)  # fmt: skip
@click.option(
    "--pipeline", type=to_pipeline, metavar="MODULE:NAME",
    help="Start it in this process on your own TriggerPipeline, instead of that of the settings.",
)  # fmt: skip
@click.option(
    "--symbols", multiple=True, metavar="A,B",
    help="The symbols of a manual call; may be given several times.",
)  # fmt: skip
@click.option("--correlation-id", metavar="ID", help="The correlation id of a manual call; made when missing.")
@click.option("--dry-run", is_flag=True, help="Make a manual call do everything but the sending.")
@takes_settings
@ends_cleanly
def run_(
    *,
    payload: Any,
    function: str | None,
    is_async: bool,
    timeout: float,
    pipeline: TriggerPipeline | None,
    symbols: Sequence[str],
    correlation_id: str | None,
    dry_run: bool,
    settings: TriggerSettings,
    as_json: bool,
) -> None:
    """Start a pipeline with whatever could come in, and show its answer.

    It runs in this process, with the queues and tables of the settings; without a queue it shows what would be
    sent, and sends nothing. The correlation id is shown first: the same call with it runs once. Ends with 3 when
    the payload is broken or invalid, and with 1 when it did not go on for another reason.
    """
    if function is not None and pipeline is not None:
        raise click.UsageError("--function excludes --pipeline; give one of them")
    if is_async and function is None:
        raise click.UsageError("--async is for --function")
    if payload is None and not symbols:
        raise click.UsageError("nothing to start; give --payload or --symbols")
    changes: dict[str, Any] = {}
    if symbols:
        changes["symbols"] = [name.strip() for text in symbols for name in text.split(",") if name.strip()]
    if correlation_id is not None:
        changes["correlation_id"] = correlation_id
    if dry_run:
        changes["dry_run"] = True
    payload, problems = _prepared({} if payload is None else payload, changes, settings)
    if function is None:
        answer = run(_start_here(pipeline, payload, settings))
    elif refused := [problem for problem in problems if problem.code != Code.UNKNOWN_EVENT]:
        answer = _refused(refused)
    else:
        for problem in problems:
            tell(f"{problem}; sent all the same: the function may know it")
        answer = run(invoke(settings, function, payload, is_async=is_async, timeout=timeout))
    _show(answer, as_json=as_json)
    sys.exit(_exit_code(answer))


def _prepared(
    payload: Any, changes: Mapping[str, Any], settings: TriggerSettings
) -> tuple[Any, Sequence[Problem]]:
    """The payload with what the command line says, and what is wrong with it; tells its correlation id."""
    reading = read_starts(payload, config=settings.config)
    is_manual = reading.kind == "manual" and isinstance(payload, dict)
    if changes and not is_manual and reading.kind != "unreadable":
        names = ", ".join(f"--{name.replace('_', '-')}" for name in changes)
        raise click.UsageError(f"{names}: for a manual call only, but the payload is {reading.kind}")
    if is_manual:
        given = changes.get("correlation_id", payload.get("correlation_id"))
        payload = {**payload, **changes, "correlation_id": uuid.uuid4().hex if given is None else given}
        reading = read_starts(payload, config=settings.config)
    found = list(reading.problems)
    for draft in reading.drafts:
        done = complete(draft, settings.config, now=datetime.now(UTC), make_id=lambda: "")
        found.extend(done.problems)
        if draft.correlation_id:
            tell(f"correlation id {draft.correlation_id}")
    return payload, found


async def _start_here(pipeline: TriggerPipeline | None, payload: Any, settings: TriggerSettings) -> Answer:
    if pipeline is None and settings.queue_url is None:
        tell("no queue is configured (OMS_TRIGGERS_QUEUE_URL): this shows what would be sent, and sends nothing")
        return _planned(await _start(_make_planner(settings), payload))
    return await _start(pipeline or settings.create_pipeline(), payload)


async def _start(pipeline: TriggerPipeline, payload: Any) -> Answer:
    # What its hooks and handler print is no result of ours.
    with redirect_stdout(sys.stderr):
        async with pipeline:
            response = await pipeline.handle(payload)
    return Answer({"statusCode": response.status_code, **response.body})


def _make_planner(settings: TriggerSettings) -> TriggerPipeline:
    """A pipeline that sends nothing; without guards, as a start that is recorded as done would never run."""
    from oms_events.triggers.pipeline import TriggerPipeline
    from oms_events.triggers.sending.chunk_sender import ChunkSender
    from oms_events.triggers.sending.memory_queue import MemoryQueue

    planner = ChunkSender(MemoryQueue("(no queue)"))

    async def plan(start: Start) -> Mapping[str, Any]:
        return {"plan": planner.plan(start)}

    return TriggerPipeline(plan, config=settings.config, symbols=settings.create_symbols())


def _planned(answer: Answer) -> Answer:
    """The answer, where nothing was sent."""
    document = dict(answer.document)
    if document.get("status") == Status.SUCCESS:
        document["status"] = Status.DRY_RUN.value
    if "results" in document:
        document["results"] = [_planned(Answer(one)).document for one in document["results"]]
    return Answer(document)


def _refused(problems: Sequence[Problem]) -> Answer:
    tell("not sent: the payload is invalid")
    return Answer(
        {
            "statusCode": 400,
            "status": Status.REJECTED.value,
            "problems": [problem.document() for problem in problems],
        }
    )


def _show(answer: Answer, *, as_json: bool) -> None:
    document = dict(answer.document)
    if as_json:
        print_json(document)
        return
    problems: Sequence[Mapping[str, Any]] = document.pop("problems", ())
    many: Sequence[Mapping[str, Any]] = document.pop("results", ())
    result = document.pop("result", None)
    print_fields({name.replace("_", " "): _text(value) for name, value in document.items()} or {"answer": None})
    for problem in problems:
        place = "" if problem.get("field") is None else f"{problem['field']} = {problem.get('value')!r}: "
        click.echo(one_line(f"  {problem.get('code')}: {place}{problem.get('remedy')}"))
    if result is not None:
        for line in json.dumps(result, indent=2, ensure_ascii=False, default=str).split("\n"):
            click.echo(one_line(f"  {line}"))
    for one in many:
        click.echo()
        _show(Answer(one), as_json=False)


def _text(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, default=str)


def _exit_code(answer: Answer) -> ExitCode:
    document = answer.document
    if answer.failed:
        return ExitCode.FAILED
    if document.get("status") == Status.REJECTED:
        return ExitCode.BAD_INPUT
    return ExitCode.OK if int(document.get("statusCode", 200)) < 300 else ExitCode.FAILED
