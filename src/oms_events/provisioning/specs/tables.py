"""DynamoDB tables: their keys and indexes, capacity, TTL and streams, and how their data is protected."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field

from oms_events._aws.tables import (
    AttributeType,
    IndexShape,
    Projection,
    StreamView,
    TableShape,
    key_attributes,
    schema,
)
from oms_events.provisioning.specs.base import (
    Json,
    KeyArn,
    Resource,
    ResourceSpec,
    Scope,
    Spec,
    logical_id,
)
from oms_events.provisioning.specs.capacity import (
    AutoscalingSpec,
    Billing,
    OnDemandSpec,
    ProvisionedSpec,
    scaling,
    throughput,
)

__all__ = ["AutoscalingSpec", "IndexSpec", "OnDemandSpec", "ProvisionedSpec", "TableSpec"]

MAX_GLOBAL_INDEXES: Final = 20
MAX_LOCAL_INDEXES: Final = 5
MAX_INDEX_ATTRIBUTES: Final = 20
"""Named in one projection (API reference, Projection)."""
MAX_PROJECTED_ATTRIBUTES: Final = 100
"""Named in the projections of all indexes together.

The others are of the DynamoDB developer guide, "Quotas"; AWS raises the first on request.
"""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_STREAM_ARN: Final = "stream_arn"


def _check_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError("give 3 to 255 letters, digits, '.', '-' and '_'")
    return name


AttributeName = Annotated[str, Field(min_length=1, max_length=255)]
TableName = Annotated[str, AfterValidator(_check_name)]
"""The name of a table or an index."""


class IndexSpec(Spec):
    """A secondary index: a global one, or, with `local`, one with the table's hash key and another range key.

    `attributes` are what it has besides its keys and the table's, with `projection` include. Its keys are strings
    unless the table's `attribute_types` say else; items without them are not in it.
    """

    name: TableName
    hash_key: AttributeName
    range_key: AttributeName | None = None
    projection: Projection = "all"
    attributes: tuple[AttributeName, ...] = Field(default=(), max_length=MAX_INDEX_ATTRIBUTES)
    local: bool = False
    billing: Billing | None = None
    """The capacity of a global index; the table's own numbers when absent."""

    @property
    def shape(self) -> IndexShape:
        return IndexShape(
            name=self.name,
            hash_key=self.hash_key,
            range_key=self.range_key,
            projection=self.projection,
            attributes=self.attributes,
            is_local=self.local,
        )

    @classmethod
    def from_shape(cls, shape: IndexShape) -> Self:
        return cls(
            name=shape.name,
            hash_key=shape.hash_key,
            range_key=shape.range_key,
            projection=shape.projection,
            attributes=tuple(shape.attributes),
            local=shape.is_local,
        )

    def _problems_together(self) -> Iterator[str]:
        if self.hash_key == self.range_key:
            yield f"range_key = {self.range_key!r} is its hash key too; give another attribute, or none"
        if (self.projection == "include") != bool(self.attributes):
            yield "attributes belong to projection = 'include', which needs one at least"
        if self.local and self.billing is not None:
            yield "billing: a local index uses the table's capacity; leave it out"


class TableSpec(ResourceSpec):
    """A DynamoDB table, with recovery to any second of the last 35 days and encrypted with a key in KMS.

    Key attributes are strings unless `attribute_types` says `N` or `B`. A deployment that changes keys or local
    indexes replaces the table, which needs a new name, and leaves the old one with its data where it is; one
    deployment can add or remove one global index. Limits: DynamoDB API reference and developer guide, "Quotas".
    """

    kind: ClassVar[str] = "table"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Arn", "name": "Ref", _STREAM_ARN: "StreamArn"}

    name: TableName
    hash_key: AttributeName
    range_key: AttributeName | None = None
    attribute_types: Mapping[str, AttributeType] = {}
    indexes: tuple[IndexSpec, ...] = ()
    ttl_attribute: AttributeName | None = None
    """The attribute with the second (epoch, UTC) after which DynamoDB may delete an item."""
    stream: StreamView | None = None
    billing: Billing = OnDemandSpec()
    point_in_time_recovery: bool = True
    encryption: bool = True
    """With a key in KMS that shows in CloudTrail, by default AWS's own `aws/dynamodb`. DynamoDB encrypts with its
    service's key otherwise."""
    kms_key: KeyArn | None = None
    """A key of your own; its policy must let those use it who use the table."""
    deletion_protection: bool = False
    table_class: Literal["standard", "standard_infrequent_access"] = "standard"

    @classmethod
    def from_shape(cls, name: str, shape: TableShape, **options: Any) -> Self:
        """The table that a module's code works with. `options` are further fields; they go before the shape's."""
        fields: dict[str, Any] = {
            "name": name,
            "hash_key": shape.hash_key,
            "range_key": shape.range_key,
            "attribute_types": dict(shape.types),
            "indexes": tuple(IndexSpec.from_shape(index) for index in shape.indexes),
            "ttl_attribute": shape.ttl_attribute,
            "stream": shape.stream,
        }
        return cls(**{**fields, **options})

    @property
    def shape(self) -> TableShape:
        """Its keys, indexes, TTL attribute and stream, as the modules' `schema` say them."""
        return TableShape(
            hash_key=self.hash_key,
            range_key=self.range_key,
            types=self.attribute_types,
            indexes=tuple(index.shape for index in self.indexes),
            ttl_attribute=self.ttl_attribute,
            stream=self.stream,
        )

    def why_without(self, attribute: str) -> str | None:
        if attribute == _STREAM_ARN and self.stream is None:
            return f"table {self.key!r} has no stream: set its `stream`, for example to 'new_image'"
        return None

    def resources(self, scope: Scope) -> dict[str, Resource]:
        made = {self.logical_id: self._table(scope)}
        made |= scaling(self.logical_id, self.billing, self.logical_id)
        for index in self._global_indexes():
            prefix = logical_id(self.kind, self.key, "index", index.name)
            made |= scaling(prefix, index.billing or self.billing, self.logical_id, index.name)
        return made

    def _table(self, scope: Scope) -> Resource:
        is_provisioned = isinstance(self.billing, ProvisionedSpec)
        said = schema(self.shape)
        for index, entry in zip(self._global_indexes(), said.get("GlobalSecondaryIndexes", ()), strict=True):
            entry |= throughput(index.billing or self.billing)
        properties: dict[str, Json] = {
            "TableName": self.name,
            **said,
            "BillingMode": "PROVISIONED" if is_provisioned else "PAY_PER_REQUEST",
            **throughput(self.billing),
            "TableClass": self.table_class.upper(),
            "TimeToLiveSpecification": self._ttl(),
            "StreamSpecification": None if self.stream is None else {"StreamViewType": self.stream.upper()},
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": self.point_in_time_recovery},
            "SSESpecification": self._encryption(scope),
            "DeletionProtectionEnabled": self.deletion_protection,
        }
        return Resource(
            type="AWS::DynamoDB::Table", properties=properties, deletion_policy="Delete", replace_policy="Retain"
        )

    def _ttl(self) -> Json:
        return None if self.ttl_attribute is None else {"AttributeName": self.ttl_attribute, "Enabled": True}

    def _encryption(self, scope: Scope) -> Json:
        if self.kms_key is None:
            return {"SSEEnabled": self.encryption}
        return {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": scope.resolve(self.kms_key)}

    def _global_indexes(self) -> tuple[IndexSpec, ...]:
        return tuple(index for index in self.indexes if not index.local)

    def _problems_together(self) -> Iterator[str]:
        yield from self._key_problems()
        yield from self._index_problems()

    def _key_problems(self) -> Iterator[str]:
        if self.hash_key == self.range_key:
            yield f"range_key = {self.range_key!r} is the hash key too; give another attribute, or none"
        keys = key_attributes(self.shape)
        if unknown := sorted(set(self.attribute_types) - set(keys)):
            yield (
                f"attribute_types = {', '.join(unknown)}: DynamoDB takes types of key attributes only "
                f"({', '.join(keys)}); leave others out, or make an index of them"
            )
        if self.ttl_attribute in keys and self.shape.type_of(self.ttl_attribute) != "N":
            yield f"ttl_attribute = {self.ttl_attribute!r} is a key that is no number; give another attribute"
        if self.kms_key is not None and not self.encryption:
            yield "kms_key needs encryption = true"

    def _index_problems(self) -> Iterator[str]:
        of_global = self._global_indexes()
        local = [index for index in self.indexes if index.local]
        for name, count in Counter(index.name for index in self.indexes).items():
            if count > 1:
                yield f"indexes: {name!r} stands {count} times; give each index a name of its own"
        if len(of_global) > MAX_GLOBAL_INDEXES:
            yield f"indexes: {len(of_global)} are global, and a table takes {MAX_GLOBAL_INDEXES}; remove some"
        if len(local) > MAX_LOCAL_INDEXES:
            yield f"indexes: {len(local)} are local, and a table takes {MAX_LOCAL_INDEXES}; remove some"
        if (projected := sum(len(index.attributes) for index in self.indexes)) > MAX_PROJECTED_ATTRIBUTES:
            yield (
                f"indexes: they name {projected} attributes, and a table takes {MAX_PROJECTED_ATTRIBUTES} in all; "
                "use projection = 'all'"
            )
        for index in local:
            if self.range_key is None or index.range_key is None or index.hash_key != self.hash_key:
                yield (
                    f"indexes: the local index {index.name!r} needs hash_key = {self.hash_key!r}, a range_key, "
                    "and a range_key of the table; or make it global"
                )
        for index in of_global:
            if index.billing is not None and type(index.billing) is not type(self.billing):
                yield f"indexes: {index.name!r} is not billed as the table is; make both on-demand, or provisioned"
