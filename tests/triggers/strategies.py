"""Hypothesis strategies for what comes in: each shape that is known, mutations of them, and anything at all."""

from __future__ import annotations

import copy
import json
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from hypothesis import strategies as st

from tests.strategies import json_values, names, texts, times

PAYLOADS = Path(__file__).parent / "payloads"


def payload(name: str) -> dict[str, Any]:
    """A payload as it really comes in, by the name of its file."""
    document: dict[str, Any] = json.loads((PAYLOADS / f"{name}.json").read_text())
    return document


ALL_PAYLOADS = {path.stem: payload(path.stem) for path in sorted(PAYLOADS.glob("*.json"))}

words = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)
table_names = st.from_regex(r"[A-Za-z_]{1,50}", fullmatch=True)
symbols = st.from_regex(r"[A-Z0-9.^=-]{1,8}", fullmatch=True)
symbol_lists = st.lists(symbols, min_size=1, max_size=5, unique=True)
moments = times.map(lambda time: time.isoformat().replace("+00:00", "Z"))
dates = st.dates().map(str)
ids = st.uuids().map(str)
# What S3 takes in a key: any characters, and here sometimes partitions.
key_parts = st.one_of(
    texts.filter(bool), symbols.map(lambda symbol: f"symbol={symbol}"), dates.map(lambda day: f"ds={day}")
)
# What ends in a slash is a folder.
keys = st.lists(key_parts, min_size=1, max_size=5).map("/".join).filter(lambda key: not key.endswith("/"))
sequencers = st.from_regex(r"[0-9A-F]{18}", fullmatch=True)

request_fields = st.fixed_dictionaries(
    {},
    optional={
        "data_source": words,
        "data_type": words,
        "domain": words,
        "table_name": table_names,
        "symbols": symbol_lists,
        "period": words,
        "interval": words,
        "file_format": words,
        "trigger_time": moments,
        "urgent": st.booleans(),
    },
)


def _event(
    from_source: str, detail_type: str, details: st.SearchStrategy[Any], **more: Any
) -> st.SearchStrategy[Any]:
    envelope = {
        "version": st.just("0"),
        "id": ids,
        "detail-type": st.just(detail_type),
        "source": st.just(from_source),
        "account": st.just("123456789012"),
        "time": moments,
        "region": st.just("eu-central-1"),
        "resources": st.just([]),
        "detail": details,
        **more,
    }
    return st.fixed_dictionaries(envelope)


def _detail(needed: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[Any]:
    own = st.fixed_dictionaries(needed, optional=optional)
    return st.tuples(request_fields, own).map(lambda both: {**both[0], **both[1]})


scheduled_default = _event(
    "aws.events",
    "Scheduled Event",
    st.just({}),
    resources=words.map(lambda rule: [f"arn:aws:events:eu-central-1:123456789012:rule/{rule}"]),
)
scheduled_scheduler = _event(
    "aws.scheduler",
    "Scheduled Event",
    st.just("{}"),
    resources=words.map(lambda name: [f"arn:aws:scheduler:eu-central-1:123456789012:schedule/default/{name}"]),
)
scheduled_transformed = st.tuples(request_fields, words, moments).map(
    lambda parts: {
        **parts[0],
        "trigger_type": "schedule",
        "trigger_time": parts[2],
        "correlation_id": f"{parts[1]}:{parts[2]}",
    }
)
processing_complete = _event(
    "transform.pipeline",
    "Processing Complete",
    _detail(
        {"trigger_reingestion": st.booleans()},
        {
            "partition": dates
            | dates.map(lambda day: f"ds={day}")
            | st.dates(min_value=date(1000, 1, 1)).map(
                lambda day: {"year": day.year, "month": day.month, "day": day.day}
            ),
            "reason": texts,
        },
    ),
    source=st.sampled_from(["transform.pipeline", "extract.pipeline"]),
)
universe_updated = _event(
    "symbol.universe",
    "Universe Updated",
    _detail(
        {"added_symbols": symbol_lists},
        {"removed_symbols": symbol_lists, "effective_date": dates, "immediate_ingestion": st.booleans()},
    ),
)
market_close = _event(
    "market.events", "Market Close", _detail({}, {"market": words, "date": dates, "close_time": moments})
)
adhoc_ingestion = _event(
    "ops.manual",
    "Adhoc Ingestion",
    _detail({}, {"dry_run": st.booleans(), "requested_by": texts, "force_symbols": st.booleans() | symbol_lists}),
)


@st.composite
def s3_records(draw: st.DrawFn) -> dict[str, Any]:
    """One record of a notification of S3."""
    found: dict[str, Any] = {"key": quote_plus(draw(keys)), "size": draw(st.integers(0, 2**40))}
    if draw(st.booleans()):
        found["sequencer"] = draw(sequencers)
    bucket = draw(st.sampled_from(["raw", {"name": "raw", "arn": "arn:aws:s3:::raw"}]))
    return {
        "eventSource": "aws:s3",
        "eventName": draw(st.sampled_from(["ObjectCreated:Put", "ObjectCreated:Copy", "ObjectRemoved:Delete"])),
        "eventTime": draw(moments),
        "s3": {"bucket": bucket, "object": found},
    }


s3_notification = st.lists(s3_records(), min_size=1, max_size=3).map(lambda records: {"Records": records})
s3_object_created = _event(
    "aws.s3",
    "Object Created",
    st.fixed_dictionaries(
        {
            "bucket": st.sampled_from(["raw", {"name": "raw"}]),
            "object": st.fixed_dictionaries({"key": keys, "sequencer": sequencers}),
        }
    ),
)
manual = st.tuples(
    request_fields,
    st.fixed_dictionaries(
        {},
        optional={
            "correlation_id": ids,
            "dry_run": st.booleans(),
            "force_symbols": st.booleans() | symbol_lists,
            "override_config": st.fixed_dictionaries({}, optional={"chunk_size": st.integers(1, 100)}),
            "urgent": st.booleans(),
        },
    ),
).map(lambda both: {**both[0], **both[1]})
cloudevents = st.fixed_dictionaries(
    {
        "specversion": st.just("1.0"),
        "id": names,
        "source": names,
        "type": st.sampled_from(["symbol.universe.updated", "SymbolUniverseUpdated", "symbol_universe/updated"]),
        "time": moments,
        "data": _detail({"added_symbols": symbol_lists}, {"immediate_ingestion": st.booleans()}),
    },
    optional={"correlationid": names, "subject": names},
)
eventbridge_wrapped = _event(
    "symbol.universe",
    "Universe Updated",
    cloudevents.map(lambda event: {"cloudEvents": event, "eventBridgeMetadata": {"mapping": "wrapped"}}),
)
eventbridge_plain = _event(
    "symbol.universe",
    "updated",
    cloudevents.map(
        lambda event: {
            **event["data"],
            "cloudEvents": {name: value for name, value in event.items() if name != "data"},
        }
    ),
)
sns_records = st.lists(
    st.fixed_dictionaries(
        {
            "EventSource": st.just("aws:sns"),
            "Sns": st.fixed_dictionaries(
                {
                    "Type": st.just("Notification"),
                    "MessageId": ids,
                    "Timestamp": moments,
                    "Message": st.one_of(universe_updated, s3_notification, cloudevents).map(json.dumps),
                }
            ),
        }
    ),
    min_size=1,
    max_size=2,
).map(lambda records: {"Records": records})
sqs_delayed = st.lists(
    st.fixed_dictionaries(
        {
            "messageId": ids,
            "receiptHandle": words,
            "body": st.one_of(manual, universe_updated, s3_notification).map(json.dumps),
            "attributes": st.just({"ApproximateReceiveCount": "2", "SentTimestamp": "1788971402000"}),
            "eventSource": st.just("aws:sqs"),
        }
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda message: str(message["messageId"]),
).map(lambda records: {"Records": records})

SHAPES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "adhoc_ingestion": adhoc_ingestion,
    "cloudevent": cloudevents,
    "eventbridge_plain": eventbridge_plain,
    "eventbridge_wrapped": eventbridge_wrapped,
    "extraction_complete": processing_complete,
    "manual_full": manual,
    "manual_short": manual,
    "market_close": market_close,
    "processing_complete": processing_complete,
    "s3_bucket_as_text": s3_object_created,
    "s3_notification": s3_notification,
    "s3_object_created": s3_object_created,
    "scheduled_default": scheduled_default,
    "scheduled_scheduler": scheduled_scheduler,
    "scheduled_transformed": scheduled_transformed,
    "sns_records": sns_records,
    "sqs_delayed": sqs_delayed,
    "sqs_plain": sqs_delayed,
    "universe_updated": universe_updated,
}
"""By the name of the payload that is an example of it: inputs with nothing wrong in them."""

payloads = st.one_of(*SHAPES.values())

# What JSON cannot hold, or this library does not take.
unfit: st.SearchStrategy[Any] = st.sampled_from(
    [float("nan"), float("inf"), 2**70, "\ud800", b"bytes", object(), ("\udfff",)]
)
empty: st.SearchStrategy[Any] = st.sampled_from(["[]", "{}", "[[]]", "[{}]", '{"a": {}}']).map(json.loads)
odd_values = json_values | unfit | empty | st.sampled_from(["", " ", "x" * 600, "a\nb", "\u2028", -1])


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A payload with one to three places in it removed, replaced, or moved under another name."""
    document = copy.deepcopy(draw(st.sampled_from(list(ALL_PAYLOADS.values())) | payloads))
    for _ in range(draw(st.integers(1, 3))):
        _mutate(draw, document)
    return document


def _mutate(draw: st.DrawFn, document: Any) -> None:
    places = list(_places(document))
    if not places:
        return
    holder, name = draw(st.sampled_from(places))
    how = draw(st.sampled_from(["remove", "replace", "replace", "rename", "add"]))
    if how == "remove":
        del holder[name]
    elif how == "replace":
        holder[name] = draw(odd_values)
    elif isinstance(holder, dict):
        other = draw(texts | st.sampled_from(["Records", "delayed_start", "specversion", "detail-type", "Type"]))
        holder[other] = holder.pop(name) if how == "rename" else draw(odd_values)


def _places(value: Any) -> Any:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield value, name
        yield from _places(item)
