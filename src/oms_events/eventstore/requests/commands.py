"""Commands as JSON, dispatched without HTTP to the repositories that carry them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, Field

from oms_events._config import suggestion
from oms_events.errors import ConcurrencyError, ConfigurationError, PersonalDataError, RequestError
from oms_events.eventstore.append import MAX_COMMAND_BYTES
from oms_events.eventstore.author import MAX_SEQUENCE
from oms_events.eventstore.personal.sealed import refuse_marks
from oms_events.eventstore.requests.answers import error_answer
from oms_events.eventstore.requests.requests import (
    PLAIN,
    AggregateId,
    Problem,
    RequestModel,
    ShortText,
    json_object,
    key_text,
    model_problems,
    read_request,
    refusal,
    shown,
)

if TYPE_CHECKING:
    from oms_events.eventstore.aggregates.repository import Repository

UNKNOWN_COMMAND: Final = "UNKNOWN_COMMAND"

_TYPE: Final = "commandType"
_ID: Final = "commandId"
_DATA: Final = "commandData"


class _Envelope(RequestModel):
    """A command's request, but for its type and its data."""

    aggregate_id: Annotated[AggregateId, PLAIN]
    # Events carry it on, where no other is given.
    command_id: Annotated[str, PLAIN, key_text(most=MAX_COMMAND_BYTES)] | None = None
    correlation_id: ShortText | None = None
    causation_id: ShortText | None = None
    expected_sequence: Annotated[int, Field(ge=0, lt=MAX_SEQUENCE)] | None = None


class _Command(NamedTuple):
    model: type[BaseModel]
    repository: Repository[Any, Any, Any]


class CommandDispatcher:
    """Carries out commands: JSON objects `{"commandType", "aggregateId", "commandId", "commandData"}`.

    They may also have a `correlationId` and a `causationId`, which the events carry on (each is the command's id
    unless given), and an `expectedSequence`, at which the aggregate must be. The `commandId` is why a command that
    is sent again, because its answer was lost, is carried out once: those without it are refused, unless
    `command_id_required` is false. Safe to use concurrently.
    """

    def __init__(self, *, command_id_required: bool = True) -> None:
        self._command_id_required = command_id_required
        self._commands: dict[str, _Command] = {}

    @property
    def command_types(self) -> tuple[str, ...]:
        """The commands that are known, sorted."""
        return tuple(sorted(self._commands))

    def register(
        self,
        model: type[BaseModel],
        repository: Repository[Any, Any, Any],
        *,
        type: str | None = None,  # noqa: A002 - as the request has it
    ) -> None:
        """Lets `repository` carry out the commands that `model` reads; `type` is the class's name unless given.

        Fields that the model does not have are refused, unless it allows extra ones. Raises `ConfigurationError`.
        """
        name = type or str(getattr(model, "__name__", model))
        problems = model_problems(model)
        if name in self._commands:
            problems.append(f"{name!r} is {self._commands[name].model.__qualname__} already; give another type")
        if problems:
            raise ConfigurationError(f"command {name!r}", problems)
        self._commands[name] = _Command(model, repository)

    async def dispatch(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Carries out a command, and gives what it led to; `replayed` when that was done before.

        `sequence` is the aggregate's last one. Raises `RequestError` with all that is wrong (the aggregate's own
        no is a `CommandRejectedError`), `PayloadMismatchError` for an id that another command had,
        `PersonForgottenError`, `AppendLimitError` and `OutboxLimitError`: nothing was written. Raises
        `ConcurrencyError`, `EventUnreadableError`, another `PersonalDataError` and a `StorageError` as
        `Repository.execute` does: send the same command again.
        """
        values = json_object(request, "command")
        name, command = self._find(values.pop(_TYPE, None))
        envelope, parsed = self._read(name, command, values)
        done = await command.repository.execute(
            envelope.aggregate_id,
            parsed,
            command_id=envelope.command_id,
            correlation_id=envelope.correlation_id,
            causation_id=envelope.causation_id,
            expected_sequence=envelope.expected_sequence,
        )
        return {
            _TYPE: name,
            "aggregateId": envelope.aggregate_id,
            _ID: envelope.command_id,
            "sequence": done.sequence,
            "events": [{"type": event.type, "sequence": event.sequence, "id": event.id} for event in done.events],
            "replayed": done.replayed,
        }

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """As `dispatch`, with `"ok": true`; a command that is refused has `{"ok": false, "error": {...}}`.

        The error has a `code`, a `message` and the `field` at fault, if it is one. What may go well with the same
        request later is raised as it is, so that its caller sends it again: a `StorageError`, and a
        `ConcurrencyError` when the request had no `expectedSequence`.
        """
        try:
            return {"ok": True, **await self.dispatch(request)}
        except Exception as error:
            is_busy = isinstance(error, ConcurrencyError) and request.get("expectedSequence") is None
            if is_busy or (answer := error_answer(error)) is None:
                raise
            return answer

    def _find(self, name: object) -> tuple[str, _Command]:
        if name is None:
            known = ", ".join(self.command_types) or "none is registered"
            raise RequestError(f"command: field {_TYPE!r} is missing; give one of {known}", field=_TYPE)
        if not isinstance(name, str):
            raise RequestError(f"command: {_TYPE} = {shown(name)}: give a name, in quotes", field=_TYPE)
        command = self._commands.get(name)
        if command is None:
            hint = suggestion(name, self._commands) or f"known: {', '.join(self.command_types) or 'none'}"
            text = f"command: {_TYPE} = {shown(name)} is not known; {hint}"
            raise RequestError(text, field=_TYPE, code=UNKNOWN_COMMAND)
        return name, command

    def _read(self, name: str, command: _Command, values: dict[str, Any]) -> tuple[_Envelope, BaseModel]:
        problems: list[Problem] = []
        data = values.pop(_DATA, None)
        envelope = read_request(_Envelope, values, known=[_TYPE, _DATA], shows_values=True)
        if isinstance(envelope, list):
            problems += envelope
        if values.get("commandId") is None and self._command_id_required:
            text = (
                f"field {_ID!r} is missing; give each command an id of its own, and the same one when you send it "
                "again: only so it is carried out once"
            )
            problems.append(Problem(_ID, text))
        parsed: BaseModel | list[Problem] = []
        if data is None:
            problems.append(Problem(_DATA, f"field {_DATA!r} is missing; give an object, {{}} for none"))
        elif not isinstance(data, dict):
            problems.append(Problem(_DATA, f"{_DATA}: give an object, not {data.__class__.__name__}"))
        else:
            try:
                refuse_marks(data)
            except PersonalDataError as error:
                problems.append(Problem(_DATA, f"{_DATA}: {error}"))
            # It may be about a person, or secret: no message repeats it.
            parsed = read_request(command.model, data, place=_DATA)
            if isinstance(parsed, list):
                problems += parsed
        if isinstance(envelope, list) or isinstance(parsed, list) or problems:
            raise refusal(name, problems)
        return envelope, parsed
