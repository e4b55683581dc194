"""What the EventBridge publisher needs to be told; importable without aioboto3."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from oms_events._aws.config import AwsConfig

# Patterns and bounds of the service model (API version 2015-10-07).
_BUS: Final = re.compile(r"(arn:aws[\w-]*:events:([a-z]+-[a-z]+-[\w-]+):[0-9]{12}:event-bus/)?[.\-_A-Za-z0-9]+")
_BUS_ARN_LENGTH: Final = 1600
_BUS_NAME_LENGTH: Final = 256
_RESOURCE_LENGTH: Final = 2048
DETAIL_TYPE_LENGTH: Final = 128


class EventBridgeConfig(AwsConfig):
    """One event bus, how events are mapped onto its entries, and how they are packed into calls.

    Classic event buses in one Region; global endpoints (which need the CRT signer) are not supported.
    """

    event_bus_name: str = "default"
    """Name or ARN of the bus."""
    verify_bus: bool = True
    """Whether DescribeEventBus must find the bus before anything is published and at every check.

    PutEvents to a bus that does not exist answers success and drops the events. False is for roles without
    that permission: then "access denied" to DescribeEventBus proves endpoint and credentials, and nobody
    knows whether the bus exists.
    """

    mapping: Literal["wrapped", "plain"] = "wrapped"
    source_prefix: str | None = None
    """Goes before every `Source` that does not begin with it (`wrapped`): `com.acme` makes `com.acme.oms.main`."""
    detail_types: dict[str, str] = Field(default_factory=dict)
    """`DetailType` by event type (`plain`); other types give their last segment."""
    resources: tuple[str, ...] = ()
    """`Resources` of every entry: ARNs that rules may match on. Counts into the size of each entry."""

    max_batch: int = Field(default=10, ge=1, le=10)
    """Entries in one call; 10 is the limit of AWS."""
    max_request_bytes: int = Field(default=1_000_000, ge=1)
    """The entries of one call together stay below this, by AWS's formula; AWS says "less than 1MB"."""
    linger: float = Field(default=0.002, ge=0)
    """Seconds that a single publish waits for others to share its call."""
    max_concurrent_calls: int = Field(default=8, ge=1)
    """Calls at the same time, of all concurrent publishes together."""
    direct_calls: bool = True
    """Whether PutEvents is signed and sent without botocore's serializer and parser, at a third of the CPU.

    Set it to False where tools that hook into botocore must see every call. Borrowed sessions and clients
    are always called the ordinary way.
    """

    @field_validator("event_bus_name")
    @classmethod
    def _check_bus(cls, value: str) -> str:
        match = _BUS.fullmatch(value)
        limit = _BUS_ARN_LENGTH if match and match[1] else _BUS_NAME_LENGTH
        if not match or len(value) > limit:
            raise ValueError(
                f"must be the name (letters, digits, '.', '-', '_') or ARN of a bus, at most {limit} characters"
            )
        return value

    @field_validator("source_prefix")
    @classmethod
    def _check_prefix(cls, value: str | None) -> str | None:
        if value is None:
            return None
        prefix = value.strip(".")
        if not prefix:
            raise ValueError("must have text besides dots; leave it out for none")
        if prefix == "aws" or prefix.startswith("aws."):
            raise ValueError("must not begin with 'aws': AWS keeps that for its own events")
        return prefix

    @field_validator("resources")
    @classmethod
    def _check_resources(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(0 < len(resource) <= _RESOURCE_LENGTH for resource in value):
            raise ValueError(f"each must have 1 to {_RESOURCE_LENGTH} characters")
        return value

    @field_validator("detail_types")
    @classmethod
    def _check_detail_types(cls, value: dict[str, str]) -> dict[str, str]:
        wrong = [name for name, text in value.items() if not 0 < len(text) <= DETAIL_TYPE_LENGTH]
        if wrong:
            raise ValueError(f"texts must have 1 to {DETAIL_TYPE_LENGTH} characters; see {', '.join(wrong)}")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if problems := list(self._contradictions()):
            raise ValueError("; ".join(problems))
        return self

    def _contradictions(self) -> Iterator[str]:
        if self.mapping == "plain" and self.source_prefix is not None:
            yield "source_prefix works with mapping 'wrapped' only: 'plain' leaves the source unchanged"
        if self.mapping == "wrapped" and self.detail_types:
            yield "detail_types works with mapping 'plain' only"
        match = _BUS.fullmatch(self.event_bus_name)
        region = match[2] if match else None
        if region is not None and self.aws_region is not None and region != self.aws_region:
            yield f"event_bus_name is in {region}, but aws_region is {self.aws_region}; they must be the same"
