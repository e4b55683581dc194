"""Every error of the package on one screen. Errors carry data; their messages say what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum


class OmsEventsError(Exception):
    """The root of all errors that this package raises."""


class InvalidEventError(OmsEventsError, ValueError):
    """A thing that is no valid CloudEvent: `field` names the attribute at fault, or `data`, or `event`."""

    def __init__(self, message: str, *, field: str = "event") -> None:
        super().__init__(message)
        self.field = field


class ConfigurationError(OmsEventsError, ValueError):
    """A setting that cannot work. `problems` lists all of them, each naming field, value and remedy."""

    def __init__(self, subject: str, problems: Iterable[str]) -> None:
        self.subject = subject
        self.problems: Sequence[str] = tuple(problems)
        super().__init__(subject, self.problems)

    def __str__(self) -> str:
        return f"{self.subject}: " + "; ".join(self.problems)


class RuleError(ConfigurationError):
    """A routing rule that cannot work: `subject` is the rule's name."""


class SpecError(ConfigurationError):
    """A spec that AWS would refuse, or that names what its stack does not have."""


class MissingExtraError(OmsEventsError, ImportError):
    """An optional dependency is not installed; `extra` is what to install."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(extra, needed_for)
        self.extra = extra
        self.needed_for = needed_for

    def __str__(self) -> str:
        return f"{self.needed_for} needs an extra: pip install 'oms-events[{self.extra}]'"


class UnroutableEventError(OmsEventsError):
    """No rule takes the event, and the router refuses such events instead of giving them to its primary."""


class SkippedError(OmsEventsError):
    """Owed to a platform, but not attempted: breaker open, disabled, not configured, router closing."""


class RouterClosedError(OmsEventsError):
    """The router is not open: publish inside `async with router:`."""


class FailureClass(StrEnum):
    """What a failed delivery means for retry, breaker, failover and outbox (docs/explanation/failures.md)."""

    TRANSIENT = "transient"
    UNKNOWN = "unknown"
    PLATFORM_DENIED = "platform_denied"
    ADDRESS_DENIED = "address_denied"
    EVENT_REJECTED = "event_rejected"


class PublishError(OmsEventsError):
    """One event was not delivered to one platform. Publishers give one of the five subclasses, never this.

    `retry_after` is in seconds, where the platform said so; `throttled` tells a platform that asks for less
    speed from one that is ill; the driver's own error is the `__cause__`.
    """

    failure: FailureClass = FailureClass.TRANSIENT

    def __init__(
        self, message: str, *, code: str = "", retry_after: float | None = None, throttled: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        self.throttled = throttled


class TransientError(PublishError):
    """Certainly not stored, and may work later: refused, lost before sending, throttled."""

    failure = FailureClass.TRANSIENT


class UnknownOutcomeError(PublishError):
    """Sent, but no answer came: it may or may not be stored."""

    failure = FailureClass.UNKNOWN


class PlatformDeniedError(PublishError):
    """The platform takes nothing from us: credentials, TLS, no such bus, no stream at all."""

    failure = FailureClass.PLATFORM_DENIED


class AddressDeniedError(PublishError):
    """This subject, source or detail type is not allowed or not covered; others may be."""

    failure = FailureClass.ADDRESS_DENIED


class EventRejectedError(PublishError):
    """This platform can never accept this event: too large, malformed for it."""

    failure = FailureClass.EVENT_REJECTED


class StorageError(OmsEventsError):
    """DynamoDB did not do what was asked; nothing is half-written. `code` is AWS's own, where there is one.

    `retry_after` is in seconds, where AWS said so; the driver's own error is the `__cause__`.
    """

    def __init__(self, message: str, *, code: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class StorageUnavailableError(StorageError):
    """Certainly not done, and may work later: throttled, or no connection."""


class StorageDeniedError(StorageError):
    """No such table, or no permission: the message names what is missing."""


class StorageRejectedError(StorageError, ValueError):
    """DynamoDB can never do this: an expression, a key or a size is wrong."""


class StorageOutcomeUnknownError(StorageError):
    """Sent, but no answer came: it may or may not have been done."""


class CommitOutcomeUnknownError(StorageOutcomeUnknownError):
    """The transaction was sent again with its token for as long as that is safe, and no answer came.

    It may or may not have been committed: read the business item before doing it again.
    """


class TransactionCanceledError(StorageError):
    """The transaction was refused as a whole. `reasons` has a code per action, in order; "None" is fine."""

    def __init__(self, message: str, *, reasons: Sequence[str] = (), code: str = "") -> None:
        super().__init__(message, code=code or "TransactionCanceledException")
        self.reasons: Sequence[str] = tuple(reasons)


class ConditionFailedError(TransactionCanceledError):
    """A condition did not hold: `reasons` shows whose. Nothing was written, and no event is in the outbox."""


class TransactionConflictError(TransactionCanceledError):
    """Other writers were at the same items at the same time, at every attempt. Nothing was written."""


class OutboxLimitError(OmsEventsError, ValueError):
    """More than a DynamoDB transaction or item takes; `limit` and `actual` are the numbers."""

    def __init__(self, message: str, *, limit: int, actual: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class OutboxClosedError(OmsEventsError):
    """The outbox is closed, or the transaction is over: open another one."""


class PreparedActionsError(OmsEventsError):
    """Prepared actions were used twice, or too late: prepare the events again."""


class EpochClosedError(OmsEventsError):
    """The bucket count was changed: this layout epoch takes no more reservations. Writers meet it inside only."""


class IdempotencyError(OmsEventsError):
    """The root of what idempotent runs refuse; `key` is the record's key, with its prefix."""

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class IdempotencyArgumentError(IdempotencyError, ValueError):
    """The key, or the payload to check, cannot be had from the arguments. Nothing has run."""


class PayloadMismatchError(IdempotencyError):
    """The key was used before, with another payload. Nothing has run; a new payload needs a new key."""


class RunInProgressError(IdempotencyError):
    """Another run of the key is at work. Nothing has run here; try again later.

    `expires_in` is in seconds: then at the latest the other has ended, or may be taken over.
    """

    def __init__(self, message: str, *, key: str, expires_in: float) -> None:
        super().__init__(message, key=key)
        self.expires_in = expires_in


class ResultNotStoredError(IdempotencyError):
    """The function has run, now or before, but its result is too large, or no JSON: it cannot be replayed.

    The run counts as done and is not repeated.
    """


class ProvisioningError(OmsEventsError):
    """CloudFormation, or a service that was asked about its state, did not do what was asked.

    `code` is AWS's own, where there is one; the driver's own error is the `__cause__`.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class AccessError(ProvisioningError):
    """Credentials that are missing, wrong or expired, or a permission that they lack; `operation` is the call.

    A deployment that was under way goes on in CloudFormation: follow it with new credentials.
    """

    def __init__(self, message: str, *, operation: str, code: str = "") -> None:
        super().__init__(message, code=code)
        self.operation = operation


class StackNotFoundError(ProvisioningError):
    """There is no stack of this name in this account and region."""


class StackBusyError(ProvisioningError):
    """Another deployment of the stack is under way. Nothing was changed here; try again when it has ended."""


class StackStateError(ProvisioningError):
    """The stack is in a state that CloudFormation cannot deploy from: the message says what to do first."""


class PlanOutdatedError(ProvisioningError):
    """The stack has changed since the plan was made. Nothing was changed here: plan again."""


class DataLossRefusedError(ProvisioningError):
    """It would delete or replace what holds data, and nobody allowed it. `reasons` has one line for each."""

    def __init__(self, message: str, *, reasons: Sequence[str]) -> None:
        super().__init__(message)
        self.reasons: Sequence[str] = tuple(reasons)


class DeploymentError(ProvisioningError):
    """A deployment failed. `failures` are the resources and why; `status` is the stack's, after the roll-back.

    `rolled_back` says that the stack is again as it was before.
    """

    def __init__(
        self, message: str, *, status: str, failures: Sequence[str] = (), rolled_back: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.failures: Sequence[str] = tuple(failures)
        self.rolled_back = rolled_back


class EventStoreError(OmsEventsError):
    """The root of what event stores, aggregates, projections and replays refuse."""


class ConcurrencyError(EventStoreError):
    """Others appended to the aggregate first; nothing was written. Load its state again, and decide anew.

    `actual` is the sequence of its last event now; None when it could not be read.
    """

    def __init__(self, aggregate_id: str, *, expected: int, actual: int | None) -> None:
        super().__init__(aggregate_id, expected, actual)
        self.aggregate_id = aggregate_id
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        found = "its last sequence could not be read" if self.actual is None else f"it is at {self.actual}"
        return (
            f"aggregate {self.aggregate_id!r} was expected at sequence {self.expected}, but {found}; nothing was "
            "written: load it again and decide anew"
        )


class DuplicateCommandError(EventStoreError):
    """The command was carried out before; nothing was written now. Its events are `first_sequence` and the next.

    `events` is how many they are; `fingerprint` what the command was like then.
    """

    def __init__(
        self, aggregate_id: str, command_id: str, *, first_sequence: int, events: int, fingerprint: str
    ) -> None:
        super().__init__(aggregate_id, command_id, first_sequence, events, fingerprint)
        self.aggregate_id = aggregate_id
        self.command_id = command_id
        self.first_sequence = first_sequence
        self.events = events
        self.fingerprint = fingerprint

    def __str__(self) -> str:
        return (
            f"command {self.command_id!r} was carried out on aggregate {self.aggregate_id!r} before; nothing was "
            "written: a new command needs a new id"
        )


class AppendLimitError(EventStoreError, ValueError):
    """More events or bytes than one append takes; `limit` and `actual` are the numbers."""

    def __init__(self, message: str, *, limit: int, actual: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class EventUnreadableError(EventStoreError):
    """A recorded event that this code cannot read: its type or version is not registered, or its data is broken.

    `event_type`, `version` and `position` (the aggregate and the sequence, where they are known) say which.
    """

    def __init__(self, message: str, *, event_type: str, version: int, position: str = "") -> None:
        super().__init__(f"{position}: {message}" if position else message)
        self.event_type = event_type
        self.version = version
        self.position = position


class PersonalDataError(EventStoreError):
    """Personal data that cannot be encrypted or read back: the message says which field, or whose key.

    `subject` is whose data it is, where that is known; `index` the document at fault, of those to be revealed.
    """

    def __init__(self, message: str, *, subject: str | None = None, index: int | None = None) -> None:
        super().__init__(message)
        self.subject = subject
        self.index = index


class PersonForgottenError(PersonalDataError):
    """New personal data of somebody who was forgotten, `subject`; nothing was written."""


class ProjectionError(EventStoreError):
    """What cannot be done to a projection as it is: the message says what to do first."""


class ReplayError(EventStoreError):
    """A replay that cannot begin or go on: the message says what to do."""


class RequestError(OmsEventsError, ValueError):
    """A command or query that is not carried out; nothing was written. `code` is stable, in capitals.

    `field` is what is wrong with it, where it is one field.
    """

    code = "INVALID_REQUEST"

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        if code is not None:
            self.code = code


class NotFoundError(RequestError):
    """What the query asks for does not exist."""

    code = "NOT_FOUND"


class CommandRejectedError(RequestError):
    """The aggregate's own rules say no. Raise it in `decide`, with a `code` of yours."""

    code = "COMMAND_REJECTED"


class TriggerError(OmsEventsError):
    """The root of what triggers raise. Inputs are answered, not raised: see `TriggerResponse`."""


class TriggerFailedError(TriggerError):
    """A Lambda invocation whose start failed, or has to wait: raised so that AWS delivers it again.

    `response` is the answer that it would have had.
    """

    def __init__(self, message: str, *, response: object = None) -> None:
        super().__init__(message)
        self.response = response


class StartRefusedError(TriggerError, ValueError):
    """Raise it in a handler for a start that can never go well: it is answered with 422, and is a dead letter.

    `code` is stable, in capitals; `field` and `value` are what is wrong, `remedy` what to do.
    """

    def __init__(self, code: str, remedy: str, *, field: str | None = None, value: object = None) -> None:
        super().__init__(f"{code}: {remedy}")
        self.code = code
        self.remedy = remedy
        self.field = field
        self.value = value


class LeaseLostError(TriggerError):
    """A run could not renew its lease in time, and was stopped: another may be at work under a higher fence."""


class ScheduleError(TriggerError):
    """What cannot be done to a deployed schedule: the message says why. Nothing was changed."""


class LeaseHeldError(TriggerError):
    """Another run holds the lease of `key`; it may be free after `retry_after` seconds, or before."""

    def __init__(self, message: str, *, key: str, retry_after: float) -> None:
        super().__init__(message)
        self.key = key
        self.retry_after = retry_after


class QueueError(OmsEventsError):
    """SQS did not do what was asked. `retryable`: it may work later; `code` is AWS's own, where there is one.

    After an unknown outcome (`unknown`) messages may be in the queue all the same; `failed` has what certainly is
    not, by its place in the batch.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        retryable: bool = False,
        unknown: bool = False,
        failed: Sequence[int] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.unknown = unknown
        self.failed: Sequence[int] = tuple(failed)
