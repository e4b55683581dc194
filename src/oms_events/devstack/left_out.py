"""Makes through the services' own APIs what the emulator's CloudFormation left out of a stack, and removes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.devstack.dropped import DROPPED
from oms_events.devstack.refused import REFUSED, refused_type
from oms_events.devstack.supplies import Request, Supply
from oms_events.devstack.templates import METADATA_KEY, Adapted
from oms_events.errors import ProvisioningError

_RECORDS: Final = "/oms-events/left-out"
_WHOLE: Final = "resource"
_EXISTS: Final = frozenset(("ResourceAlreadyExistsException",))
GONE: Final = frozenset(
    ("AWS.SimpleQueueService.NonExistentQueue", "NoSuchBucket", "NoSuchEntity", "NotFound", "QueueDoesNotExist",
     "ResourceNotFound", "ResourceNotFoundException")
)  # fmt: skip
"""Codes with which the services tell that there is no such thing."""


async def make_left_out(adapted: Adapted, stack_name: str, config: AwsConfig, *, session: Any = None) -> None:
    """Makes or changes what the deployed stack lacks, and removes what an earlier deployment had; may be repeated.

    Call it after every deployment of the adapted template, also when that had nothing to change. Raises
    `ProvisioningError`; then, and cancelled, a part may be done: call it again.
    """
    async with AsyncExitStack() as stack:
        services = Services(stack, config, session)
        wanted = await _wanted(services, stack_name, adapted)
        records = await _records(services, stack_name)
        for record in records:
            # Before anything is made: the name may belong to another logical id now.
            if record.key not in wanted or wanted[record.key].undo != record.undo:
                await _undo(services, record)
        known = {record.key: record.undo for record in records}
        for order, (key, supply) in enumerate(wanted.items()):
            # Remembered first: what nobody remembers stays for ever.
            if known.get(key) != supply.undo:
                await _remember(services, _Record(f"{_folder(stack_name)}{key}", order, supply.undo))
            await _make(services, supply)


async def remove_left_out(stack_name: str, config: AwsConfig, *, session: Any = None) -> None:
    """Removes what `make_left_out` made for the stack; what went with the stack's own resources is gone already.

    Call it when the stack is deleted, or, where composite alarms watch alarms of the stack, before: the emulator
    does not delete an alarm that is watched. May be repeated. Raises `ProvisioningError`.
    """
    async with AsyncExitStack() as stack:
        services = Services(stack, config, session)
        for record in await _records(services, stack_name):
            if record.key.endswith(f"/{_WHOLE}"):
                await _undo(services, record)
            else:
                await _forget(services, record)


@dataclass(frozen=True, slots=True)
class _Record:
    """What undoes something that was made: kept in a parameter of the emulator, as no template tells it later."""

    name: str
    order: int
    undo: Request

    @property
    def key(self) -> str:
        return "/".join(self.name.split("/")[-2:])


class Services:
    """Clients of the services that are needed, opened at their first call."""

    def __init__(self, stack: AsyncExitStack, config: AwsConfig, session: Any) -> None:
        self._stack = stack
        self._config = config
        self._session = session
        self._clients: dict[str, ControlClient] = {}

    async def client(self, service: str) -> ControlClient:
        if service not in self._clients:
            opening = open_control(self._config, service, session=self._session)
            self._clients[service] = await self._stack.enter_async_context(opening)
        return self._clients[service]

    async def call(self, request: Request) -> Mapping[str, Any]:
        client = await self.client(request.service)
        return await client.call(request.operation, **request.parameters)


async def _wanted(services: Services, stack_name: str, adapted: Adapted) -> dict[str, Supply]:
    found: list[tuple[int, str, Supply]] = []
    ranks = {kind: rank for rank, kind in enumerate(REFUSED)}
    for logical_id in dict.fromkeys(item.logical_id for item in adapted.left_out if item.supplied):
        asked = Request(
            "cloudformation",
            "DescribeStackResource",
            {"StackName": stack_name, "LogicalResourceId": logical_id},
        )
        detail = (await services.call(asked))["StackResourceDetail"]
        said = json.loads(detail["Metadata"])[METADATA_KEY]
        for what, supply in _supplies(said, detail["PhysicalResourceId"]):
            # A metric math alarm is there before the composite alarms that watch it.
            found.append((ranks.get(said["Type"], -1), f"{logical_id}/{what}", supply))
    found.sort(key=lambda item: item[0])
    return {key: supply for _, key, supply in found}


def _supplies(said: Mapping[str, Any], physical_id: str) -> Iterator[tuple[str, Supply]]:
    kind, properties = said["Type"], said["Properties"]
    refused = refused_type(kind, properties)
    if refused is not None:
        if refused.supply is not None:
            yield _WHOLE, refused.supply(properties)
        return
    for name, value in properties.items():
        supply = DROPPED[kind][name]
        if supply is not None:
            yield name, supply(physical_id, value)


async def _make(services: Services, supply: Supply) -> None:
    try:
        await services.call(supply.make)
    except ProvisioningError as error:
        if supply.change is None or error.code not in _EXISTS:
            raise
        await services.call(supply.change)


async def _undo(services: Services, record: _Record) -> None:
    try:
        await services.call(record.undo)
    except ProvisioningError as error:
        if error.code not in GONE:
            raise
    await _forget(services, record)


def _folder(stack_name: str) -> str:
    return f"{_RECORDS}/{stack_name}/"


async def _records(services: Services, stack_name: str) -> list[_Record]:
    """What was made for the stack, last first."""
    client = await services.client("ssm")
    found: list[_Record] = []
    asked = {"Path": _folder(stack_name), "Recursive": True}
    async for page in client.pages("GetParametersByPath", **asked):
        for parameter in page["Parameters"]:
            said = json.loads(parameter["Value"])
            found.append(_Record(parameter["Name"], said["order"], Request(**said["undo"])))
    return sorted(found, key=lambda record: record.order, reverse=True)


async def _remember(services: Services, record: _Record) -> None:
    value = json.dumps({"order": record.order, "undo": asdict(record.undo)})
    asked = {"Name": record.name, "Value": value, "Type": "String", "Overwrite": True}
    await services.call(Request("ssm", "PutParameter", asked))


async def _forget(services: Services, record: _Record) -> None:
    await services.call(Request("ssm", "DeleteParameter", {"Name": record.name}))
