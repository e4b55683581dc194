"""A hook that writes CloudWatch metrics as log lines, in the embedded metric format: no call, no client."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TextIO

from oms_events.errors import ConfigurationError
from oms_events.instrumentation.correlation import ATTRIBUTE, current_correlation_id
from oms_events.instrumentation.hooks import (
    ApiRequested,
    ChunksSent,
    Detail,
    QuotaUsedUp,
    TriggerBreakerChanged,
    Triggered,
)
from oms_events.instrumentation.labels import ADMITTED, UNKNOWN, BoundedLabels

NAMESPACE: Final = "Extract/Triggers"
EXECUTIONS: Final = "TriggerExecution"
EXECUTION_DIMENSIONS: Final = ("TriggerType", "Domain", "Status")
API_REQUESTS: Final = "ApiRequests"

# CloudWatch API reference, MetricDatum and Dimension.
_MAX_DIMENSION: Final = 1024
_MAX_PROPERTY: Final = 1024
_GREATEST: Final = 2.0**360
_NAMESPACE: Final = re.compile(r"(?!AWS/|:)[0-9A-Za-z.\-_/#: ]*[0-9A-Za-z.\-_/#:][0-9A-Za-z.\-_/#: ]*")
_MAX_NAMESPACE: Final = 255
_UNPRINTABLE: Final = re.compile(r"[^ -~]")

_SERIES: Final = 100

Metric = tuple[str, str, float]
"""Name, unit, value."""


class CloudWatchHook:
    """Writes the details of triggers to `stream` as lines in the embedded metric format; others it leaves alone.

    CloudWatch makes metrics in `namespace` of them, wherever the lines get into CloudWatch Logs: from a Lambda
    function by standard output, which is `stream` unless another is given. One line per detail, and one more for
    each code of its problems, written in one piece. The write blocks as a `print` does.

    Domains, tables, codes and names have dimensions of their own up to 100 of each in a process; the later ones
    share the value `other`, as each is a custom metric that is paid for. So do domains of which no start was
    admitted yet. The correlation id is a property: it can
    be searched for in the log, and is no dimension. Raises `ConfigurationError` for a namespace that CloudWatch
    does not take.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        namespace: str = NAMESPACE,
        now: Callable[[], float] = time.time,
    ) -> None:
        if _NAMESPACE.fullmatch(namespace) is None or len(namespace) > _MAX_NAMESPACE:
            raise ConfigurationError(
                "CloudWatchHook",
                [f"namespace = {namespace!r}: give 1 to 255 letters, digits, .-_/#: and not first : or AWS/"],
            )
        self._stream = stream
        self._namespace = namespace
        self._now = now
        self._bounds: dict[tuple[str, ...], BoundedLabels] = {}
        self._domains = BoundedLabels(_SERIES, always=UNKNOWN)

    def __call__(self, detail: Detail) -> None:
        # Whole lines in one write: what others print meanwhile comes before or after, never within.
        if text := "".join(self._lines(detail)):
            stream = self._stream or sys.stdout
            stream.write(text)
            stream.flush()

    def _lines(self, detail: Detail) -> Iterator[str]:
        match detail:
            case Triggered():
                yield from self._triggered(detail)
            case QuotaUsedUp(name=name, retry_after=retry_after):
                metrics = (("QuotaUsedUp", "Count", 1.0), ("RetryAfter", "Seconds", retry_after))
                yield self._line(self._bounded(Quota=name), metrics)
            case TriggerBreakerChanged(new=new, reason=reason):
                place = self._bounded(Domain=detail.domain, TableName=detail.table_name)
                changed = [("BreakerChange", "Count", 1.0)]
                yield self._line({**place, "State": new}, changed, old=detail.old, reason=reason)
            case ApiRequested(api=api, requests=requests, waited=waited):
                used = ((API_REQUESTS, "Count", requests), ("ApiWaited", "Seconds", waited))
                yield self._line(self._bounded(Api=api), used)
            case ChunksSent(chunks=chunks, failed=failed):
                sent = (("ChunksSent", "Count", chunks), ("ChunksFailed", "Count", failed))
                yield self._line({}, sent)

    def _triggered(self, detail: Triggered) -> Iterator[str]:
        correlation_id = detail.correlation_id
        (domain,) = self._domains(detail.domain, is_trusted=detail.status in ADMITTED)
        place = (detail.trigger_type, domain, detail.status)
        dimensions = dict(zip(EXECUTION_DIMENSIONS, place, strict=True))
        metrics = ((EXECUTIONS, "Count", 1.0), ("TriggerDuration", "Milliseconds", detail.seconds * 1000))
        yield self._line(dimensions, metrics, correlation_id=correlation_id)
        # A line names one value of a dimension: each code has its own.
        for code, count in Counter(detail.codes).items():
            rejected = [("TriggerRejection", "Count", count)]
            yield self._line(self._bounded(Code=code), rejected, correlation_id=correlation_id)

    def _bounded(self, **dimensions: str) -> Mapping[str, str]:
        bound = self._bounds.setdefault(tuple(dimensions), BoundedLabels(_SERIES))
        return dict(zip(dimensions, bound(*dimensions.values()), strict=True))

    def _line(
        self,
        dimensions: Mapping[str, str],
        metrics: Sequence[Metric],
        *,
        correlation_id: str | None = None,
        **properties: str,
    ) -> str:
        """As in the CloudWatch guide, "Specification: Embedded metric format"."""
        # What is no number would cost the line all its metrics.
        known = [metric for metric in metrics if math.isfinite(metric[2]) and abs(metric[2]) <= _GREATEST]
        document: dict[str, Any] = {
            "_aws": {
                "Timestamp": int(self._now() * 1000),
                "CloudWatchMetrics": [
                    {
                        "Namespace": self._namespace,
                        "Dimensions": [list(dimensions)],
                        "Metrics": [{"Name": name, "Unit": unit} for name, unit, _ in known],
                    }
                ],
            },
            **{name: _dimension(value) for name, value in dimensions.items()},
            **{name: value for name, _, value in known},
            **{name: _property(value) for name, value in properties.items()},
        }
        if known_id := correlation_id or current_correlation_id():
            document[ATTRIBUTE] = _property(known_id)
        return json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"


def _property(value: str) -> str:
    """Text that every JSON parser takes: half a surrogate pair is none."""
    return value[:_MAX_PROPERTY].encode(errors="replace").decode()


def _dimension(value: str) -> str:
    """A value that CloudWatch takes: 1 to 1024 printable ASCII characters, and not only blanks."""
    text = _UNPRINTABLE.sub("?", value)[:_MAX_DIMENSION]
    return text if text.strip() else "unknown"
