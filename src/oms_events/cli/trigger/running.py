"""`oms-events trigger run`."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from oms_events._text import one_line
from oms_events.cli.common import POSITIVE_NUMBER, ExitCode, ends_cleanly, run
from oms_events.cli.output import print_fields, print_json, tell
from oms_events.cli.trigger.functions import Answer, invoke
from oms_events.cli.trigger.options import takes_settings, tell_of_pipeline, to_payload, to_pipeline
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.delayed import enveloped
from oms_events.triggers.reading.recognition import read_starts
from oms_events.triggers.reading.results import Kind
from oms_events.triggers.responses import Status
from oms_events.triggers.settings import TriggerSettings
from oms_events.triggers.start import Start
from oms_events.triggers.validation import complete

if TYPE_CHECKING:
    from oms_events.triggers.pipeline import TriggerPipeline

_LONGEST_RUN: Final = 900.0
"""Seconds that a function may take (AWS Lambda guide, "Lambda quotas")."""
_KINDS: Final[Mapping[Kind, str]] = {
    "manual": "no object",
    "scheduled": "a schedule's",
    "event": "an event",
    "cloudevent": "a CloudEvent",
    "s3": "of new objects in S3",
    "delayed": "an envelope of the delay queue",
    "queue": "a batch of messages",
    "notification": "a message of SNS",
    "unreadable": "nothing that is known",
}
_ASYNC: Final = "ASYNCHRONOUS"
"""The reason of an envelope that waited for nothing."""


@click.command("run")
@click.option(
    "--payload", type=to_payload, metavar="FILE|-|JSON", help="What comes in: a file, stdin or JSON itself."
)
@click.option("--function", metavar="NAME", help="Start it on this deployed function, by name or ARN.")
@click.option(
    "--async", "is_async", is_flag=True, help="With --function: do not wait for the answer, which nobody sees."
)
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
    help="The symbols of a manual call, in place of the payload's; may be given several times.",
)  # fmt: skip
@click.option("--correlation-id", metavar="ID", help="The correlation id of a manual call; made when missing.")
@click.option("--dry-run", is_flag=True, help="Make a manual call do everything but the sending.")
@ends_cleanly
@takes_settings
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
        changes["symbols"] = [name for text in symbols for name in _symbols_in(text)]
    if correlation_id is not None:
        changes["correlation_id"] = correlation_id
    if dry_run:
        changes["dry_run"] = True
    payload, problems, envelope = _prepared({} if payload is None else payload, changes, settings)
    if function is None:
        if pipeline is None:
            tell_of_pipeline(settings)
        answer = run(_start_here(pipeline, payload, settings))
        _tell_of_log(answer)
    elif refused := [problem for problem in problems if problem.code != Code.UNKNOWN_EVENT]:
        answer = _refused(refused)
    else:
        for problem in problems:
            tell(f"{problem}; sent all the same: the function may know it")
        # A manual call that nobody waits for goes as the delay queue has it: so the function raises, and Lambda
        # delivers it again, where its caller would be answered to try again.
        sent = envelope if is_async and envelope is not None else payload
        answer = run(invoke(settings, function, sent, is_async=is_async, timeout=timeout))
    show_answer(answer, as_json=as_json)
    sys.exit(exit_code_of(answer))


def _symbols_in(text: str) -> Sequence[str]:
    """The symbols that an option names. Raises `UsageError` for none, which would start those of the defaults."""
    if found := [name.strip() for name in text.split(",") if name.strip()]:
        return found
    raise click.UsageError(
        f"--symbols {text!r} names none; give some, such as AAPL,MSFT, or --payload '{{}}' for the defaults"
    )


def _tell_of_log(answer: Answer) -> None:
    """Says where more of a failure in this process is, unless it was shown."""
    is_shown = click.get_current_context().params.get("debug")
    starts = (answer.document, *answer.document.get("results", ()))
    if not is_shown and any(start.get("status") == Status.FAILED for start in starts):
        tell("run with --debug to see the log")


class Prepared(NamedTuple):
    """What comes in, what is wrong with it, and, of a manual call, its envelope of the delay queue."""

    payload: Any
    problems: Sequence[Problem]
    envelope: Any


def _prepared(payload: Any, changes: Mapping[str, Any], settings: TriggerSettings) -> Prepared:
    """The payload with what the command line says; tells its correlation id."""
    reading = read_starts(payload, config=settings.config)
    if reading.kind == "manual" and isinstance(payload, str | bytes):
        # JSON text in a JSON string.
        with suppress(ValueError, RecursionError):
            payload = json.loads(payload)
    is_manual = reading.kind == "manual" and isinstance(payload, dict)
    if changes and not is_manual and reading.kind != "unreadable":
        names = ", ".join(f"--{name.replace('_', '-')}" for name in changes)
        verb, it = ("is", "it") if len(changes) == 1 else ("are", "them")
        raise click.UsageError(
            f"{names} {verb} for a manual call only, and the payload is {_KINDS[reading.kind]}: leave {it} out, "
            "or give a manual call"
        )
    if is_manual:
        given = changes.get("correlation_id", payload.get("correlation_id"))
        payload = {**payload, **changes, "correlation_id": str(uuid.uuid4()) if given is None else given}
        reading = read_starts(payload, config=settings.config)
    found = list(reading.problems)
    envelope: Any = None
    now = datetime.now(UTC)
    for draft in reading.drafts:
        done = complete(draft, settings.config, now=now, make_id=lambda: "")
        found.extend(done.problems)
        if draft.correlation_id:
            tell(f"correlation id {draft.correlation_id}")
        if is_manual and done.request is not None:
            # Without a key: the function's defaults may be others than those of the settings here.
            envelope = enveloped(
                draft.raw,
                trigger_type=draft.trigger_type,
                correlation_id=draft.correlation_id,
                trigger_time=done.request.trigger_time,
                delayed_at=now.isoformat(timespec="milliseconds"),
                reason=_ASYNC,
            )
    return Prepared(payload, found, envelope)


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


def show_answer(answer: Answer, *, as_json: bool) -> None:
    """Prints an answer, of a pipeline of ours or of anything else."""
    document = dict(answer.document)
    if as_json:
        print_json(document)
        return
    problems = _taken(document, "problems")
    many = _taken(document, "results")
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
        show_answer(Answer(one), as_json=False)


def _taken(document: dict[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    """The objects in that list, taken out; what is no such list, as the function is not ours, stays what it is."""
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        return ()
    del document[name]
    return found


def _text(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, default=str)


def exit_code_of(answer: Answer) -> ExitCode:
    """How the command ends with that answer."""
    document = answer.document
    if answer.failed:
        return ExitCode.FAILED
    if document.get("status") == Status.REJECTED:
        return ExitCode.BAD_INPUT
    code = document.get("statusCode", 200)
    return ExitCode.OK if isinstance(code, int) and 200 <= code < 300 else ExitCode.FAILED
