"""A business transaction with its events: collected in the body, committed as one call at its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from oms_events._aws.marshal import checked_item, checked_text, to_item
from oms_events.errors import OutboxClosedError, StorageRejectedError
from oms_events.outbox.commit import Committer, Entry
from oms_events.outbox.limits import check_item, check_transaction
from oms_events.outbox.schema import item_size
from oms_events.outbox.store import Action

_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "Put": frozenset(("TableName", "Item")),
    "Update": frozenset(("TableName", "Key", "UpdateExpression")),
    "Delete": frozenset(("TableName", "Key")),
    "ConditionCheck": frozenset(("TableName", "Key", "ConditionExpression")),
}
"""The kinds of actions, and the fields that each must have."""
_TEXTS: Final = frozenset(
    ("TableName", "UpdateExpression", "ConditionExpression", "ReturnValuesOnConditionCheckFailure")
)
_ITEMS: Final = frozenset(("Item", "Key", "ExpressionAttributeValues"))
_NAMES: Final = "ExpressionAttributeNames"


class Transaction:
    """Made by `Outbox.transaction()`, used once, as `async with`: nothing is sent before its end.

    Items, keys and values are Python values (text, int, float, Decimal, bytes, bool, None, list, dict, set);
    expressions are DynamoDB's, with `#name` and `:value` placeholders from `names` and `values`. At most 100
    actions, each event one of them, and 4 MB: what is too much raises `OutboxLimitError` where it is added. When
    the body raises, nothing is sent.

    Leaving it commits, and raises with nothing written: `ConditionFailedError`, which names the action at fault,
    `TransactionConflictError`, `StorageUnavailableError`, `StorageDeniedError`, `StorageRejectedError`,
    `ConfigurationError`, `OutboxClosedError`. With `CommitOutcomeUnknownError`, or when the task is cancelled
    while it commits, all of it or nothing was written.
    """

    __slots__ = ("_bytes", "_committer", "_entries", "_open", "_state")

    def __init__(self, committer: Committer, open: Callable[[], Awaitable[None]]) -> None:  # noqa: A002
        self._committer = committer
        self._open = open
        self._entries: list[Entry] = []
        self._bytes = 0
        self._state = "new"

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise OutboxClosedError("a transaction is used once: make another with outbox.transaction()")
        self._state = "open"
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "over"
        if kind is None and self._entries:
            await self._committer.commit(self._entries)

    def put(
        self,
        table: str,
        item: Mapping[str, Any],
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Puts an item in place of what has its key. Raises `OutboxLimitError` over 400 KB."""
        typed = to_item(item)
        size = item_size(typed)
        check_item(table, size)
        self._add("Put", {"TableName": table, "Item": typed}, condition, names, values, size)

    def update(
        self,
        table: str,
        key: Mapping[str, Any],
        update: str,
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Changes an item by an update expression; without a condition, one that is not there is made."""
        typed = to_item(key, path="key")
        body = {"TableName": table, "Key": typed, "UpdateExpression": checked_text(update, path="update")}
        self._add("Update", body, condition, names, values, item_size(typed))

    def delete(
        self,
        table: str,
        key: Mapping[str, Any],
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Deletes an item, if it is there."""
        typed = to_item(key, path="key")
        self._add("Delete", {"TableName": table, "Key": typed}, condition, names, values, item_size(typed))

    def check(
        self,
        table: str,
        key: Mapping[str, Any],
        condition: str,
        *,
        names: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Makes the transaction depend on an item that it does not write."""
        typed = to_item(key, path="key")
        self._add("ConditionCheck", {"TableName": table, "Key": typed}, condition, names, values, item_size(typed))

    def add(self, event: object) -> None:
        """Adds an event, which the outbox delivers if this transaction commits.

        Events of one key are delivered in the order in which they were added. Raises `InvalidEventError`, and
        `OutboxLimitError` when it is too large for an item and no claim check is configured.
        """
        admitted = self._committer.admit(event)
        self._append(admitted, admitted.size)

    def add_action(self, action: Action) -> None:
        """Adds a ready action, as TransactWriteItems takes it: `{"Put": {"TableName": ..., "Item": {...}}}`.

        Raises `StorageRejectedError`, which names the action's place and the field at fault, and
        `OutboxLimitError`.
        """
        kind, body = checked_action(action, f"action {len(self._entries)}")
        size = item_size(body["Item"] if kind == "Put" else body["Key"])
        check_item(body["TableName"], size)
        self._append({kind: body}, size + item_size(body.get("ExpressionAttributeValues", {})))

    def _add(
        self,
        kind: str,
        body: dict[str, Any],
        condition: str | None,
        names: Mapping[str, str] | None,
        values: Mapping[str, Any] | None,
        size: int,
    ) -> None:
        checked_text(body["TableName"], path="table")
        if condition is not None:
            body["ConditionExpression"] = checked_text(condition, path="condition")
        if names:
            body[_NAMES] = _checked_names(names, "names")
        if values:
            typed = to_item(values, path="values")
            body["ExpressionAttributeValues"] = typed
            size += item_size(typed)
        self._append({kind: body}, size)

    def _append(self, entry: Entry, size: int) -> None:
        if self._state != "open":
            raise OutboxClosedError("nothing can be added to this transaction now: use it inside its `async with`")
        check_transaction(len(self._entries) + 1, self._bytes + size)
        self._entries.append(entry)
        self._bytes += size


def checked_action(action: object, path: str) -> tuple[str, dict[str, Any]]:
    """An action's kind, and a copy of its body. Raises `StorageRejectedError`, which names the field at fault."""
    if not isinstance(action, Mapping) or len(action) != 1 or next(iter(action)) not in _KINDS:
        found = list(action) if isinstance(action, Mapping) else type(action).__name__
        kinds = ", ".join(_KINDS)
        raise StorageRejectedError(f"{path}: an action has one key, of {kinds}; this one has {found!r}")
    ((kind, body),) = action.items()
    path = f"{path}: {kind}"
    if not isinstance(body, Mapping):
        raise StorageRejectedError(f"{path} is {type(body).__name__}; give a mapping of its fields")
    checked = {field: _checked_field(field, value, f"{path}.{field}") for field, value in body.items()}
    if missing := sorted(_KINDS[kind] - checked.keys()):
        raise StorageRejectedError(f"{path} has no {', '.join(missing)}; give it")
    return kind, checked


def _checked_field(field: object, value: object, path: str) -> Any:
    if field in _TEXTS:
        return checked_text(value, path=path)
    if field in _ITEMS:
        return checked_item(value, path=path)
    if field == _NAMES:
        return _checked_names(value, path)
    known = ", ".join(sorted((*_TEXTS, *_ITEMS, _NAMES)))
    raise StorageRejectedError(f"{path} is none of an action's fields; they are {known}")


def _checked_names(names: object, path: str) -> dict[str, str]:
    if not isinstance(names, Mapping):
        raise StorageRejectedError(f"{path} is {type(names).__name__}; give a mapping of placeholders to names")
    return {
        checked_text(placeholder, path=path): checked_text(name, path=f"{path}[{placeholder!r}]")
        for placeholder, name in names.items()
    }
