"""`oms-events trigger dlq list`, `show`, `redrive` and `delete`."""

from __future__ import annotations

import functools
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from oms_events._aws.config import AwsConfig
from oms_events._text import one_line
from oms_events.cli.common import ExitCode, ends_cleanly, run
from oms_events.cli.output import print_fields, print_json, print_table, tell
from oms_events.cli.progress import OnDone, counted, progress_bar
from oms_events.cli.trigger.options import Command, not_configured, takes_settings, tell_of_pipeline, to_pipeline
from oms_events.errors import TriggerError
from oms_events.triggers.problems import Code
from oms_events.triggers.sending.letters import LetterKind, StoredLetter
from oms_events.triggers.sending.redrive import (
    GROUP_SEEN,
    DeadLetterAdmin,
    FunctionTarget,
    HandledLetter,
    LetterOutcome,
    PipelineTarget,
    QueueTarget,
    RedriveTarget,
)
from oms_events.triggers.sending.sqs import QueueConfig, SqsQueue
from oms_events.triggers.settings import TriggerSettings

if TYPE_CHECKING:
    from oms_events.triggers.pipeline import TriggerPipeline

_TOLD: Final = 20
_MANY: Final = 100_000
"""Letters that are looked at before all of them are changed."""
_DONE: Final = frozenset((LetterOutcome.TAKEN, LetterOutcome.DELETED))
_OUR_REASONS: Final = frozenset(Code) - {Code.BUSINESS_RULE}
_LEFT: Final = (
    "refused by a rule or handler of yours, which the pipeline of the settings does not have; "
    "give --pipeline or --function"
)
_NOT_THERE: Final = "there is no such dead letter, or others have it for a while"
_WORDS: Final = {"redrive": "redriven", "delete": "deleted"}
_COLUMNS: Final = ("id", "kind", "reason", "type", "correlation id", "given up", "receives")

_QUEUE: Final = click.option(
    "--queue-url", metavar="URL", help="The queue of dead letters.  [default: that of the settings]"
)
_WAIT: Final = click.option(
    "--wait", type=click.IntRange(0, 20), default=1, show_default=True, metavar="SECONDS",
    help="Wait so long for letters that have not shown yet.",
)  # fmt: skip
_CHANGES: Final = (
    click.option("--id", "ids", multiple=True, metavar="ID", help="This letter; may be given several times."),
    click.option("--all", "everything", is_flag=True, help="All there are."),
    click.option("--dry-run", is_flag=True, help="Say what would be changed, and change nothing."),
    click.option("--yes", is_flag=True, help="Do not ask first; only on a terminal it is asked at all."),
)


@dataclass(frozen=True, slots=True)
class Letters:
    """A queue of dead letters, and how long its last call waits; each use opens it."""

    config: QueueConfig
    wait: int

    @asynccontextmanager
    async def open(self) -> AsyncIterator[DeadLetterAdmin]:
        async with DeadLetterAdmin(self.config, wait=self.wait) as admin:
            yield admin

    async def all(self, limit: int = _MANY) -> Sequence[StoredLetter]:
        async with self.open() as admin:
            return await admin.letters(limit=limit)

    async def find(self, message_id: str) -> StoredLetter | None:
        async with self.open() as admin:
            return await admin.show(message_id)


@dataclass(frozen=True, slots=True)
class Selected:
    """Which letters, all of them without ids, and how far to go."""

    ids: Sequence[str]
    dry_run: bool
    yes: bool


@click.group()
def dlq() -> None:
    """The dead letters: starts that nobody tries again by themselves, with their raw input and the reason."""


def _takes_queue(command: Command) -> Command:
    """Gives a command the queue, as `queue` that is not open, and the settings."""

    @_QUEUE
    @_WAIT
    @ends_cleanly
    @takes_settings
    @functools.wraps(command)
    def with_queue(*, queue_url: str | None, wait: int, settings: TriggerSettings, **options: Any) -> None:
        url = queue_url or settings.dead_letter_queue_url
        if url is None:
            raise not_configured("dead_letter_queue_url")
        command(queue=Letters(settings.queue(url), wait), settings=settings, **options)

    return with_queue


def _takes_letters(command: Command) -> Command:
    """Gives a command --id, --all, --dry-run and --yes, as one `Selected`."""

    @functools.wraps(command)
    def with_letters(*, ids: Sequence[str], everything: bool, dry_run: bool, yes: bool, **options: Any) -> None:
        if everything and ids:
            raise click.UsageError("--all excludes --id; give one of them")
        if not everything and not ids:
            raise click.UsageError("nothing is selected; give --id or --all")
        command(selected=Selected(tuple(dict.fromkeys(ids)), dry_run, yes), **options)

    decorated: Command = with_letters
    for option in reversed(_CHANGES):
        decorated = option(decorated)
    return decorated


@dlq.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show so many at most.")
@_takes_queue
def list_(*, limit: int, queue: Letters, settings: TriggerSettings, as_json: bool) -> None:
    """List dead letters: our own, and those of EventBridge's rules, of Lambda and of the preset's queues.

    Looking receives them and gives them back: for a moment others do not see them, and their receives rise.
    """
    letters = run(queue.all(limit))
    if as_json:
        for letter in letters:
            print_json(letter.document())
        return
    print_table(_COLUMNS, [_row(letter) for letter in letters])
    if not letters:
        tell("there are no dead letters, or others have them for a while")
    if len(letters) == limit:
        tell(f"there may be more than these {limit}: --limit shows more")


@dlq.command()
@click.argument("id")
@_takes_queue
def show(*, id: str, queue: Letters, settings: TriggerSettings, as_json: bool) -> None:  # noqa: A002
    """Show a dead letter whole: why it was given up, and the raw input. Ends with 1 when there is none."""
    letter = run(queue.find(id))
    if letter is None:
        tell(f"{id}: {_NOT_THERE}")
        sys.exit(ExitCode.FAILED)
    document = letter.document()
    if as_json:
        print_json(document)
        return
    problems, details = document.pop("problems"), document.pop("details")
    raw = document.pop("raw", document.pop("head", None))
    said = {name.replace("_", " "): value for name, value in document.items()}
    # What the sender says stands under names that none of ours has.
    print_fields({**said, **{f"detail {name}": value for name, value in details.items()}})
    for problem in problems:
        place = "" if problem.get("field") is None else f"{problem['field']} = {problem.get('value')!r}: "
        click.echo(one_line(f"  {problem.get('code')}: {place}{problem.get('remedy')}"))
    for line in json.dumps(raw, indent=2, ensure_ascii=False).split("\n"):
        click.echo(one_line(line))


@dlq.command()
@click.option("--function", metavar="NAME", help="Start them on this deployed function, by name or ARN.")
@click.option(
    "--pipeline", type=to_pipeline, metavar="MODULE:NAME",
    help="Start them in this process on your own TriggerPipeline.",
)  # fmt: skip
@click.option("--to-queue", metavar="URL", help="Put chunks and delayed starts back into this queue.")
@_takes_letters
@_takes_queue
def redrive(
    *,
    function: str | None,
    pipeline: TriggerPipeline | None,
    to_queue: str | None,
    selected: Selected,
    queue: Letters,
    settings: TriggerSettings,
    as_json: bool,
) -> None:
    """Start dead letters again, and delete those that went on.

    They start on the deployed function, which answers nobody, or in this process, on the pipeline of the settings:
    that has no rules and handler of yours, and leaves the letters that those refused.
    A letter that does not go on is kept, or moved, when it became another one with the new reason; --all is those
    that are there when it begins. Ends with 1 when one was not sent on.
    """
    given = sum(target is not None for target in (function, pipeline, to_queue))
    if given > 1:
        raise click.UsageError("--function, --pipeline and --to-queue exclude each other; give one of them")
    if not given and settings.queue_url is None:
        raise click.UsageError("nowhere to start them; give --function or --pipeline, or configure a queue")

    if not given:
        tell_of_pipeline(settings)

    async def change(ids: Sequence[str], on_done: OnDone) -> Sequence[HandledLetter]:
        async with queue.open() as admin, _open_target(settings, function, pipeline, to_queue) as target:
            return await admin.redrive(_Counted(target, on_done), ids, listed=not selected.ids)

    leaves = _no_letter if given else is_of_users_rules
    _carry_out("redrive", change, queue, selected, leaves=leaves, as_json=as_json)


@dlq.command()
@_takes_letters
@_takes_queue
def delete(*, selected: Selected, queue: Letters, settings: TriggerSettings, as_json: bool) -> None:
    """Delete dead letters for good: nobody will start them again."""

    async def change(ids: Sequence[str], on_done: OnDone) -> Sequence[HandledLetter]:
        async with queue.open() as admin:
            handled = await admin.delete(ids, listed=not selected.ids)
        on_done(len(handled))
        return handled

    _carry_out("delete", change, queue, selected, leaves=_no_letter, as_json=as_json)


def _carry_out(
    name: str,
    change: Callable[[Sequence[str], OnDone], Coroutine[Any, Any, Sequence[HandledLetter]]],
    queue: Letters,
    selected: Selected,
    *,
    leaves: Callable[[StoredLetter], bool],
    as_json: bool,
) -> None:
    shows_bar = not (as_json and sys.stdout.isatty())
    found: dict[str, Any] = {"dry_run": selected.dry_run}
    ids, count = selected.ids, len(selected.ids)
    may_be_more, left = False, 0
    if selected.dry_run or not selected.ids:
        with progress_bar("looking for dead letters", wanted=shows_bar):
            letters = run(queue.all())
        chosen = [letter for letter in letters if not selected.ids or letter.message_id in selected.ids]
        groups = Counter((letter.kind.value, letter.reason) for letter in chosen)
        # What is asked about is what is changed, and nothing that comes later.
        ids = [letter.message_id for letter in chosen]
        found["selected"], left = len(chosen), sum(map(leaves, chosen))
        count = len(chosen) - left
        seen = Counter(letter.group for letter in letters if queue.config.is_fifo)
        may_be_more = not selected.ids and (len(letters) == _MANY or max(seen.values(), default=0) >= GROUP_SEEN)
        found["groups"] = [
            {"kind": kind, "reason": reason, "count": one} for (kind, reason), one in groups.items()
        ]
        for missing in sorted({*selected.ids} - {letter.message_id for letter in chosen}):
            tell(f"{missing}: {_NOT_THERE}")
        if not as_json and groups:
            print_table(("kind", "reason", "dead letters"), [(*group, one) for group, one in groups.items()])
    handled: Sequence[HandledLetter] = ()
    if ids and not selected.dry_run:
        if count and not selected.yes and sys.stdin.isatty():
            click.confirm(f"{name} {counted(count, 'dead letter')}?", abort=True, err=True)
        with progress_bar(name, total=len(ids), wanted=shows_bar) as on_done:
            handled = run(change(ids, on_done))
        left = sum(one.problem == _LEFT for one in handled)
    if left:
        tell(f"{counted(left, 'dead letter')} left: {_LEFT}")
    if as_json:
        print_json(found if selected.dry_run else {**found, "letters": [asdict(one) for one in handled]})
    elif selected.dry_run:
        click.echo(f"{counted(count, 'dead letter')} would be {_WORDS[name]}")
    else:
        _report(handled)
    if may_be_more:
        tell("there may be more, which show when these are gone: call it again")
    is_missing = selected.dry_run and (left > 0 or count < len(selected.ids))
    sys.exit(ExitCode.FAILED if is_missing or any(one.outcome not in _DONE for one in handled) else ExitCode.OK)


def _report(handled: Sequence[HandledLetter]) -> None:
    problems = [one for one in handled if one.outcome not in _DONE and one.problem != _LEFT]
    for number, one in enumerate(problems):
        if number == _TOLD:
            tell(f"... {len(problems) - number} more; --json tells of each")
            break
        tell(f"{one.message_id}: {one.outcome.value.replace('_', ' ')}: {one.problem or _NOT_THERE}")
    words = {LetterOutcome.TAKEN: "redriven", LetterOutcome.TAKEN_AND_KEPT: "redriven, but there again"}
    counts = Counter(words.get(one.outcome, one.outcome.value) for one in handled)
    click.echo("; ".join(f"{count} {word}" for word, count in counts.items()) or "nothing to do")


def is_of_users_rules(letter: StoredLetter) -> bool:
    """Whether a pipeline gave it up for a reason that none without the user's rules and handler has."""
    return letter.kind is LetterKind.START and letter.reason not in _OUR_REASONS


def _no_letter(_: StoredLetter) -> bool:
    return False


class _WithoutRules:
    """The pipeline of the settings, which would start what the user's own refused."""

    def __init__(self, target: RedriveTarget) -> None:
        self._target = target
        self.takes = target.takes

    async def take(self, letter: StoredLetter) -> None:
        if is_of_users_rules(letter):
            raise TriggerError(_LEFT)
        await self._target.take(letter)


class _Counted:
    """A target that tells how many letters it was given."""

    def __init__(self, target: RedriveTarget, on_done: OnDone) -> None:
        self._target = target
        self._on_done = on_done
        self.takes = target.takes

    async def take(self, letter: StoredLetter) -> None:
        try:
            await self._target.take(letter)
        finally:
            self._on_done(1)


@asynccontextmanager
async def _open_target(
    settings: TriggerSettings, function: str | None, pipeline: TriggerPipeline | None, to_queue: str | None
) -> AsyncIterator[RedriveTarget]:
    if function is not None:
        async with FunctionTarget(function, AwsConfig(**settings.aws("lambda"))) as target:
            yield target
    elif to_queue is not None:
        async with SqsQueue(settings.queue(to_queue)) as queue:
            yield QueueTarget(queue)
    else:
        # What its hooks and handler print is no result of ours.
        with redirect_stdout(sys.stderr):
            async with pipeline or settings.create_pipeline() as opened:
                started = PipelineTarget(opened.handle)
                yield started if pipeline is not None else _WithoutRules(started)


def _row(letter: StoredLetter) -> tuple[object, ...]:
    return (
        letter.message_id,
        letter.kind.value,
        letter.reason,
        letter.trigger_type,
        letter.correlation_id,
        letter.time,
        letter.receive_count,
    )
