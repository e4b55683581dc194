"""What a Lambda function reads by itself: DynamoDB and Kinesis streams, and SQS queues."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from oms_events.provisioning.specs.base import (
    PSEUDO,
    Arn,
    Json,
    JsonObject,
    Reference,
    Resource,
    Scope,
    Spec,
    arn_of,
    arn_service,
    logical_id,
)
from oms_events.routing.conditions import compile_document_pattern

MAX_FILTERS: Final = 10
MAX_FILTER_LENGTH: Final = 4096
"""Filters of a mapping, 5 until the quota is raised, and characters of each (Lambda guide, event filtering)."""

_INFINITE: Final = -1
_MIN_AGE: Final = 60
_MAX_PLAIN_BATCH: Final = 10
_OF_STREAMS: Final = (
    *("starting_position", "maximum_retry_attempts", "maximum_record_age_in_seconds"),
    *("bisect_on_error", "parallelization_factor", "on_failure"),
)


class StreamSourceSpec(Spec):
    """A table's stream, or a queue, that Lambda reads for a function, in batches.

    The function must answer with `batchItemFailures`, unless `report_batch_item_failures` is off. Queues have
    their own retries and dead-letter queue; a stream's record is retried until it is too old, unless limited here.
    Limits: Lambda API reference, CreateEventSourceMapping.
    """

    source: Arn
    """`table.reference("stream_arn")` of a TableSpec, `queue.arn` of a QueueSpec, or an ARN."""
    batch_size: int | None = Field(default=None, ge=1, le=10_000)
    """Records; 100 of a stream, 10 of a queue unless given. More than 10 of a queue need a batching window."""
    batching_window_seconds: int | None = Field(default=None, ge=0, le=300)
    filters: tuple[JsonObject, ...] = Field(default=(), max_length=MAX_FILTERS)
    """Patterns over the record, one of which must match; a queue's messages that match none are deleted."""
    report_batch_item_failures: bool = True
    enabled: bool = True

    maximum_concurrency: int | None = Field(default=None, ge=2, le=1000)
    """Queues only: how many of the function run for it at a time."""

    starting_position: Literal["TRIM_HORIZON", "LATEST"] | None = None
    """Streams only: from the oldest record on (the default), or from the next."""
    maximum_retry_attempts: int | None = Field(default=None, ge=_INFINITE, le=10_000)
    maximum_record_age_in_seconds: int | None = Field(default=None, ge=_INFINITE, le=604_800)
    bisect_on_error: bool | None = None
    """Streams only: whether a batch that failed is tried again in halves."""
    parallelization_factor: int | None = Field(default=None, ge=1, le=10)
    on_failure: Annotated[str | Reference, arn_of(queue="sqs:", topic="sns:", bucket="s3:")] | None = None
    """Streams only: the standard queue, topic or bucket that is told which records were given up."""

    @property
    def is_queue(self) -> bool:
        if isinstance(self.source, Reference):
            return self.source.kind == "queue"
        return arn_service(self.source) == "sqs"

    @property
    def logical_id(self) -> str:
        """What stands for the source in the mapping's logical id."""
        if isinstance(self.source, Reference):
            return logical_id(self.source.kind, self.source.key)
        return logical_id(*PSEUDO.sub("x", self.source).split(":")[5:])

    def resource(self, function: Json, scope: Scope) -> Resource:
        """The event source mapping to the function of that name."""
        responses = ["ReportBatchItemFailures"] if self.report_batch_item_failures else None
        concurrency = (
            None if self.maximum_concurrency is None else {"MaximumConcurrency": self.maximum_concurrency}
        )
        filters = [{"Pattern": _text(pattern)} for pattern in self.filters]
        properties: dict[str, Json] = {
            "FunctionName": function,
            "EventSourceArn": scope.resolve(self.source),
            "Enabled": self.enabled,
            "BatchSize": self.batch_size,
            "MaximumBatchingWindowInSeconds": self.batching_window_seconds,
            "FilterCriteria": {"Filters": filters} if filters else None,
            "FunctionResponseTypes": responses,
            "ScalingConfig": concurrency,
        }
        if not self.is_queue:
            properties |= self._of_stream(scope)
        return Resource(type="AWS::Lambda::EventSourceMapping", properties=properties)

    def _of_stream(self, scope: Scope) -> dict[str, Json]:
        destination = None
        if self.on_failure is not None:
            destination = {"OnFailure": {"Destination": scope.resolve(self.on_failure)}}
        return {
            "StartingPosition": self.starting_position or "TRIM_HORIZON",
            "MaximumRetryAttempts": self.maximum_retry_attempts,
            "MaximumRecordAgeInSeconds": self.maximum_record_age_in_seconds,
            "BisectBatchOnFunctionError": self.bisect_on_error,
            "ParallelizationFactor": self.parallelization_factor,
            "DestinationConfig": destination,
        }

    @field_validator("source")
    @classmethod
    def _check_source(cls, source: str | Reference) -> str | Reference:
        if isinstance(source, Reference):
            if (source.kind, source.attribute) not in (("table", "stream_arn"), ("queue", "arn")):
                raise ValueError(f"{source!r}: a function reads a table's `stream_arn` or a queue's `arn`")
        elif arn_service(source) not in ("dynamodb", "kinesis", "sqs"):
            raise ValueError("a function reads DynamoDB and Kinesis streams, and SQS queues; others invoke it")
        elif arn_service(source) == "dynamodb" and "/stream/" not in source:
            raise ValueError("is a table; give its stream's ARN, ...:table/<name>/stream/<label>")
        return source

    @field_validator("filters")
    @classmethod
    def _check_filters(cls, filters: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
        normal = tuple(compile_document_pattern(pattern).to_pattern() for pattern in filters)
        for pattern in normal:
            if len(_text(pattern)) > MAX_FILTER_LENGTH:
                raise ValueError(f"a filter has at most {MAX_FILTER_LENGTH} characters; shorten it")
        return normal

    @field_validator("maximum_record_age_in_seconds")
    @classmethod
    def _check_age(cls, seconds: int | None) -> int | None:
        if seconds is not None and seconds != _INFINITE and seconds < _MIN_AGE:
            raise ValueError("is at least 60, or -1 for no limit")
        return seconds

    def _problems_together(self) -> Iterator[str]:
        yield from self._queue_problems() if self.is_queue else self._stream_problems()

    def _queue_problems(self) -> Iterator[str]:
        if given := [name for name in _OF_STREAMS if getattr(self, name) is not None]:
            yield f"{', '.join(given)}: not for a queue; its own settings and dead-letter queue do that"
        if not isinstance(self.source, Reference) and self.source.endswith(".fifo"):
            yield from self.fifo_problems()
        elif (self.batch_size or 1) > _MAX_PLAIN_BATCH and not self.batching_window_seconds:
            yield (
                f"batch_size = {self.batch_size}: more than {_MAX_PLAIN_BATCH} messages need "
                "batching_window_seconds of at least 1"
            )

    def fifo_problems(self) -> Iterator[str]:
        """What does not go with a FIFO queue as the source."""
        if (self.batch_size or 1) > _MAX_PLAIN_BATCH or self.batching_window_seconds:
            yield f"a FIFO queue has batches of at most {_MAX_PLAIN_BATCH} and no batching window; lower them"

    def _stream_problems(self) -> Iterator[str]:
        if self.maximum_concurrency is not None:
            yield "maximum_concurrency is for queues; a stream has parallelization_factor"


def _text(pattern: Mapping[str, Any]) -> str:
    return json.dumps(pattern, separators=(",", ":"), ensure_ascii=False)
