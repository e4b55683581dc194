"""New objects: S3's own notifications and its events on EventBridge, in one normal form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from urllib.parse import unquote_plus

from pydantic import BeforeValidator, Field, StrictInt, StrictStr
from pydantic_core import PydanticCustomError

from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.documents import Origin, read_document
from oms_events.triggers.reading.envelopes import EventBridgeEvent
from oms_events.triggers.reading.identity import object_id
from oms_events.triggers.reading.models import InputModel, read_model
from oms_events.triggers.reading.partitions import day_of, fields_of, read_partitions
from oms_events.triggers.reading.results import MAX_RECORDS, Reading, nothing, together, too_many

EVENT_SOURCE: Final = "aws:s3"
EVENTBRIDGE_SOURCE: Final = "aws.s3"
OBJECT_CREATED: Final = "Object Created"

_LONGEST_KEY: Final = 1024
"""Bytes of a key ("Naming Amazon S3 objects", S3 user guide); encoded, each may be three characters."""
_CREATED: Final = "ObjectCreated:"
_TEST: Final = "s3:TestEvent"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Object:
    """A new object. `key` is as it is in the bucket, decoded; `partitions` are the parts `name=value` of it.

    `event_time` is RFC 3339. `sequencer` tells the versions of a key apart: the later has the higher one.
    """

    bucket: str
    key: str
    size: int | None = None
    etag: str | None = None
    version_id: str | None = None
    sequencer: str | None = None
    event_time: str | None = None
    partitions: Mapping[str, str] = field(default_factory=dict)


def _bucket_name(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = value.get("name")
    if not isinstance(value, str):
        raise PydanticCustomError("bucket_type", 'write the bucket\'s name, or an object with it: {"name": "..."}')
    return value


BucketName = Annotated[StrictStr, BeforeValidator(_bucket_name), Field(min_length=1, max_length=255)]
"""A bucket as its name, or as an object with its name."""


class NotifiedObject(InputModel):
    """`s3.object` of a notification; its key is URL-encoded ("Event message structure", S3 user guide)."""

    key: StrictStr = Field(min_length=1, max_length=3 * _LONGEST_KEY)
    size: StrictInt | None = None
    etag: StrictStr | None = Field(default=None, alias="eTag")
    version_id: StrictStr | None = Field(default=None, alias="versionId")
    sequencer: StrictStr | None = None


class NotifiedEntity(InputModel):
    """`s3` of a notification."""

    bucket: BucketName
    object: NotifiedObject


class S3Record(InputModel):
    """One of the `Records` of a notification."""

    event_name: StrictStr = Field(alias="eventName")
    event_time: StrictStr | None = Field(default=None, alias="eventTime")
    s3: NotifiedEntity


class CreatedObject(InputModel):
    """`detail.object` of an event on EventBridge; its key is not encoded."""

    key: StrictStr = Field(min_length=1, max_length=_LONGEST_KEY)
    size: StrictInt | None = None
    etag: StrictStr | None = None
    version_id: StrictStr | None = Field(default=None, alias="version-id")
    sequencer: StrictStr | None = None


class ObjectCreated(InputModel):
    """The detail of `Object Created` ("EventBridge event message structure", S3 user guide)."""

    bucket: BucketName
    object: CreatedObject


class NamedObject(InputModel):
    """An object that a request document names."""

    bucket: BucketName
    key: StrictStr | None = Field(default=None, min_length=1, max_length=_LONGEST_KEY)
    sequencer: StrictStr | None = None


def is_test_event(document: Mapping[str, Any]) -> bool:
    """Whether S3 only tries whether it may send notifications here."""
    return document.get("Event") == _TEST


def read_test_event() -> Reading:
    """That starts nothing."""
    return nothing("s3", "s3", "a test event of S3")


def read_notification(records: list[Mapping[str, Any]], config: TriggerConfig) -> Reading:
    """One start per record of a new object that the filters take."""
    if len(records) > MAX_RECORDS:
        return too_many("s3", "s3", "Records", len(records))
    readings = [_read_record(record, at, config) for at, record in enumerate(records)]
    return together(readings, "s3", "s3")


def read_object_event(event: EventBridgeEvent, raw: Mapping[str, Any], config: TriggerConfig) -> Reading:
    """The start of a new object; other events of S3 start nothing."""
    if event.detail_type != OBJECT_CREATED:
        return nothing("s3", "s3", "an event of S3 that is no new object")
    detail = read_model(ObjectCreated, event.detail, place="detail")
    if isinstance(detail, list):
        return _broken(detail, _known_id(event.detail, event.time))
    found = named_object(
        detail.bucket,
        detail.object.key,
        size=detail.object.size,
        etag=detail.object.etag,
        version_id=detail.object.version_id,
        sequencer=detail.object.sequencer,
        event_time=event.time,
    )
    return _read_object(found, raw, config, cause_id=event.id)


def named_object(bucket: str, key: str, **more: Any) -> S3Object:
    """The normal form of an object, with its partitions."""
    return S3Object(bucket=bucket, key=key, partitions=read_partitions(key.rpartition("/")[0]), **more)


def _read_record(record: Mapping[str, Any], at: int, config: TriggerConfig) -> Reading:
    name = record.get("eventName")
    if isinstance(name, str) and not name.startswith(_CREATED):
        return nothing("s3", "s3", "an event of S3 that is no new object")
    place = f"Records.{at}"
    model = read_model(S3Record, record, place=place)
    if isinstance(model, list):
        return _broken(model, _known_id(record.get("s3"), record.get("eventTime"), decoded=True))
    entity = model.s3.object
    try:
        key = unquote_plus(entity.key, errors="strict")
    except UnicodeDecodeError:
        problem = Problem(Code.WRONG_TYPE, "no URL-encoded UTF-8", f"{place}.s3.object.key", entity.key)
        return _broken([problem], object_id(model.s3.bucket, entity.key, entity.sequencer, model.event_time))
    found = named_object(
        model.s3.bucket,
        key,
        size=entity.size,
        etag=entity.etag,
        version_id=entity.version_id,
        sequencer=entity.sequencer,
        event_time=model.event_time,
    )
    return _read_object(found, {"Records": [record]}, config, cause_id=None)


def _read_object(
    found: S3Object, raw: Mapping[str, Any], config: TriggerConfig, *, cause_id: str | None
) -> Reading:
    if not (found.key.startswith(config.object_prefix) and found.key.endswith(config.object_suffix)):
        left_out = nothing("s3", "s3", "an object that object_prefix or object_suffix leaves out")
        return left_out._replace(correlation_id=id_of(found))
    if found.key.endswith("/") and not found.size:
        return nothing("s3", "s3", "a folder, and no object")._replace(correlation_id=id_of(found))
    origin = Origin(
        "s3",
        raw,
        time=found.event_time,
        derived_id=id_of(found),
        cause_id=cause_id,
        ds=day_of(found.partitions),
        detail=found,
    )
    draft, problems = read_document(fields_of(found.partitions), origin)
    return Reading([draft], problems, "s3", "s3")


def id_of(found: S3Object) -> str | None:
    """The correlation id of a new object."""
    return object_id(found.bucket, found.key, found.sequencer, found.event_time, found.version_id, found.etag)


def _known_id(entity: object, time: object, *, decoded: bool = False) -> str | None:
    """The id of an object of which something is wrong, where enough of it is right."""
    if not isinstance(entity, Mapping) or not isinstance(found := entity.get("object"), Mapping):
        return None
    bucket, key = entity.get("bucket"), found.get("key")
    if isinstance(bucket, Mapping):
        bucket = bucket.get("name")
    if decoded and isinstance(key, str):
        key = unquote_plus(key)
    return object_id(bucket, key, found.get("sequencer"), time)


def _broken(problems: list[Problem], correlation_id: str | None) -> Reading:
    return Reading(problems=problems, kind="s3", trigger_type="s3", correlation_id=correlation_id)
