"""What a DynamoDB table looks like: said once, for the code that uses it and for all that makes it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

AttributeType = Literal["S", "N", "B"]
Projection = Literal["all", "keys_only", "include"]
StreamView = Literal["keys_only", "new_image", "old_image", "new_and_old_images"]

KeyColumn = tuple[str, str, str]
"""A key attribute: its name, its type, and `HASH` or `RANGE`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexShape:
    """A secondary index, global unless `is_local`; `attributes` are what it has besides keys with `include`."""

    name: str
    hash_key: str
    range_key: str | None = None
    projection: Projection = "all"
    attributes: Sequence[str] = ()
    is_local: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableShape:
    """A table's keys, indexes, TTL attribute and stream; key attributes are strings unless `types` says else."""

    hash_key: str
    range_key: str | None = None
    types: Mapping[str, AttributeType] = field(default_factory=dict)
    indexes: Sequence[IndexShape] = ()
    ttl_attribute: str | None = None
    stream: StreamView | None = None

    @property
    def keys(self) -> tuple[KeyColumn, ...]:
        """The key attributes of the table itself."""
        return tuple((name, self.type_of(name), role) for name, role in _roles(self))

    def type_of(self, name: str) -> AttributeType:
        """The type of a key attribute."""
        return self.types.get(name, "S")


def key_attributes(shape: TableShape) -> tuple[str, ...]:
    """The attributes that are keys of the table or of an index, each once: those whose types DynamoDB is told."""
    parts: tuple[TableShape | IndexShape, ...] = (shape, *shape.indexes)
    return tuple(dict.fromkeys(name for part in parts for name, _ in _roles(part)))


def schema(shape: TableShape) -> dict[str, Any]:
    """The part of a CreateTable request that says keys and indexes; a CloudFormation template has the same."""
    said: dict[str, Any] = {
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": shape.type_of(name)} for name in key_attributes(shape)
        ],
        "KeySchema": _key_schema(shape),
    }
    for member, is_local in (("GlobalSecondaryIndexes", False), ("LocalSecondaryIndexes", True)):
        if indexes := [_index(index) for index in shape.indexes if index.is_local is is_local]:
            said[member] = indexes
    return said


def create_request(name: str, shape: TableShape) -> dict[str, Any]:
    """The CreateTable request of a table billed on demand; DynamoDB switches TTL on with another call."""
    request = {"TableName": name, "BillingMode": "PAY_PER_REQUEST", **schema(shape)}
    if shape.stream is not None:
        request["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": shape.stream.upper()}
    return request


def described_keys(described: Mapping[str, Any]) -> tuple[KeyColumn, ...]:
    """The key attributes of a table as DescribeTable tells them, to be compared with `TableShape.keys`."""
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in described["AttributeDefinitions"]}
    keys = {entry["KeyType"]: entry["AttributeName"] for entry in described["KeySchema"]}
    return tuple((keys[role], types[keys[role]], role) for role in ("HASH", "RANGE") if role in keys)


def _index(index: IndexShape) -> dict[str, Any]:
    projection: dict[str, Any] = {"ProjectionType": index.projection.upper()}
    if index.attributes:
        projection["NonKeyAttributes"] = list(index.attributes)
    return {"IndexName": index.name, "KeySchema": _key_schema(index), "Projection": projection}


def _key_schema(part: TableShape | IndexShape) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": role} for name, role in _roles(part)]


def _roles(part: TableShape | IndexShape) -> Iterator[tuple[str, str]]:
    yield part.hash_key, "HASH"
    if part.range_key is not None:
        yield part.range_key, "RANGE"
