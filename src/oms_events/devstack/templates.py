"""Takes out of a CloudFormation template what the emulator's CloudFormation refuses, and says so. Pure.

What it refuses is replaced by a stand-in, a resource that does nothing: so the stack's plan shows it when it is
added, changed and removed, and everything that depends on it still does. `make_left_out` makes it after each
deployment.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from oms_events.devstack.dropped import DROPPED
from oms_events.devstack.processes import DevstackError
from oms_events.devstack.refused import RefusedType, refused_type

METADATA_KEY: Final = "LeftOut"
"""The part of a resource's `Metadata` that tells `make_left_out` what to make: CloudFormation resolves it."""

STAND_IN: Final = "AWS::CloudFormation::WaitConditionHandle"

_PROBE_TIMEOUT: Final = 2.0
_HEALTH: Final = "/_ministack/health"
_IN_TEXT: Final = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.([A-Za-z0-9.]+))?\}")

Json = Any


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What the emulator's CloudFormation does not make of a resource: all of it, or the `properties` named.

    `supplied` says that `make_left_out` makes it through the service's own API; otherwise it is not there.
    """

    logical_id: str
    type: str
    properties: tuple[str, ...] = ()
    supplied: bool = False

    def __str__(self) -> str:
        what = f", {', '.join(self.properties)}" if self.properties else ""
        how = "made through the service's own API" if self.supplied else "not there: the emulator cannot do it"
        return f"{self.logical_id} ({self.type}{what}): {how}"


@dataclass(frozen=True, slots=True)
class Adapted:
    """A template that the emulator takes, and what it does not make of it; `str` of each tells people."""

    document: Mapping[str, Json]
    left_out: tuple[LeftOut, ...]


def adapt(document: Mapping[str, Json]) -> Adapted:
    """The template as the emulator takes it; references to what is left out become literal names and ARNs.

    Every logical id stays. Properties that the emulator would drop without a word stay too, and are listed.
    """
    resources: Mapping[str, Json] = document.get("Resources", {})
    literals: dict[str, _Literals] = {}
    for name, entry in resources.items():
        refused = refused_type(entry["Type"], entry.get("Properties", {}))
        if refused is not None:
            literals[name] = _Literals(name, refused, entry.get("Properties", {}))
    left_out: list[LeftOut] = []
    adapted: dict[str, Json] = {}
    for name, entry in resources.items():
        if name in literals:
            adapted[name] = _stand_in(literals[name], _rewritten(entry, literals))
            left_out.append(LeftOut(name, entry["Type"], supplied=literals[name].refused.supply is not None))
        else:
            dropped = list(_dropped(name, entry))
            adapted[name] = _marked(_rewritten(entry, literals), dropped)
            left_out.extend(dropped)
    rest = {part: _rewritten(value, literals) for part, value in document.items() if part != "Resources"}
    whole = {part: adapted if part == "Resources" else rest[part] for part in document}
    return Adapted(whole, tuple(left_out))


async def is_emulator(endpoint_url: str) -> bool:
    """Whether the emulator answers there, within two seconds; false on any doubt.

    Raises `DevstackError` when an address of this machine says nothing: that is most likely the emulator, busy,
    and it would drop parts of a template that is not adapted.
    """
    try:
        parts = urlsplit(endpoint_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.scheme != "http" or not host:
        return False
    try:
        async with asyncio.timeout(2 * _PROBE_TIMEOUT):
            return await asyncio.to_thread(_is_healthy, host, port or http.client.HTTP_PORT)
    except TimeoutError:
        if not _is_loopback(host):
            return False
        raise DevstackError(
            f"{endpoint_url} does not say whether it is the AWS emulator, and nothing was done: "
            "try again when it answers"
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_healthy(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=_PROBE_TIMEOUT)
    try:
        connection.request("GET", _HEALTH)
        answer = connection.getresponse()
        said = json.loads(answer.read()) if answer.status == http.HTTPStatus.OK else None
        return isinstance(said, dict) and isinstance(said.get("services"), dict) and "edition" in said
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class _Literals:
    """What stands for the references to a resource that is left out."""

    logical_id: str
    refused: RefusedType
    properties: Mapping[str, Json]

    @property
    def name(self) -> Json:
        given = self.properties.get(self.refused.name)
        return given if given is not None else {"Fn::Sub": f"${{AWS::StackName}}-{self.logical_id}"}

    def attribute(self, attribute: str) -> Json:
        if attribute == "Arn" and self.refused.arn:
            return {"Fn::Join": ["", [{"Fn::Sub": self.refused.arn}, self.name]]}
        return f"{self.logical_id}-{attribute}-left-out"


def _stand_in(literals: _Literals, entry: Mapping[str, Json]) -> dict[str, Json]:
    properties = dict(entry.get("Properties", {}))
    if literals.refused.name:
        properties[literals.refused.name] = literals.name
    metadata = {**entry.get("Metadata", {}), METADATA_KEY: {"Type": entry["Type"], "Properties": properties}}
    return {
        "Type": STAND_IN,
        **{part: value for part, value in entry.items() if part not in ("Type", "Properties", "Metadata")},
        "Metadata": metadata,
    }


def _dropped(name: str, entry: Mapping[str, Json]) -> Iterator[LeftOut]:
    suppliers = DROPPED.get(entry["Type"], {})
    found = [prop for prop in entry.get("Properties", {}) if prop in suppliers]
    for supplied in (True, False):
        properties = tuple(prop for prop in found if (suppliers[prop] is not None) is supplied)
        if properties:
            yield LeftOut(name, entry["Type"], properties, supplied)


def _marked(entry: dict[str, Json], dropped: list[LeftOut]) -> dict[str, Json]:
    names = [name for item in dropped if item.supplied for name in item.properties]
    if not names:
        return entry
    part = {"Type": entry["Type"], "Properties": {name: entry["Properties"][name] for name in names}}
    return {**entry, "Metadata": {**entry.get("Metadata", {}), METADATA_KEY: part}}


def _rewritten(value: Json, literals: Mapping[str, _Literals]) -> Json:
    if isinstance(value, list):
        return [_rewritten(item, literals) for item in value]
    if not isinstance(value, Mapping):
        return value
    if len(value) == 1:
        ((function, argument),) = value.items()
        if function == "Ref" and argument in literals:
            return literals[argument].name
        if function == "Fn::GetAtt":
            name, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
            return literals[name].attribute(attribute) if name in literals else value
        if function == "Fn::Sub":
            return {function: _substitution(argument, literals)}
    return {name: _rewritten(item, literals) for name, item in value.items()}


def _substitution(argument: Json, literals: Mapping[str, _Literals]) -> Json:
    text, given = (argument, {}) if isinstance(argument, str) else argument
    variables = dict(_rewritten(given, literals))

    def replaced(found: re.Match[str]) -> str:
        name, attribute = found.groups()
        if name in variables or name not in literals:
            return found[0]
        variable = f"{name}{(attribute or '').replace('.', '')}LeftOut"
        variables[variable] = literals[name].attribute(attribute) if attribute else literals[name].name
        return f"${{{variable}}}"

    text = _IN_TEXT.sub(replaced, text)
    return [text, variables] if variables else text
