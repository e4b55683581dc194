"""JSON documents that CloudFormation takes as text: policies of log groups, and dashboards."""

from __future__ import annotations

import json
from collections.abc import Mapping

from oms_events.provisioning.specs.base import Json


def json_text(document: Json) -> Json:
    """The document as JSON text, in `Fn::Sub` where it has `Ref`, `Fn::GetAtt` or `Fn::Sub` in it.

    Any other `${` stands for itself. What is put in must need no escaping in JSON, as names, ARNs and URLs do not.
    """
    if not _has_function(document):
        return _dumped(document)
    return {"Fn::Sub": _dumped(_as_variables(document))}


def _dumped(document: Json) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _has_function(value: Json) -> bool:
    if isinstance(value, Mapping):
        return _variable(value) is not None or any(_has_function(item) for item in value.values())
    return isinstance(value, list | tuple) and any(_has_function(item) for item in value)


def _as_variables(value: Json) -> Json:
    if isinstance(value, str):
        return value.replace("${", "${!")
    if isinstance(value, Mapping):
        variable = _variable(value)
        return (
            {_as_variables(key): _as_variables(item) for key, item in value.items()}
            if variable is None
            else variable
        )
    return [_as_variables(item) for item in value] if isinstance(value, list | tuple) else value


def _variable(value: Mapping[str, Json]) -> str | None:
    if len(value) != 1:
        return None
    [(function, argument)] = value.items()
    if function == "Ref":
        return f"${{{argument}}}"
    if function == "Fn::GetAtt":
        return f"${{{'.'.join(argument)}}}"
    # A text whose other `${` are escaped already.
    return str(argument) if function == "Fn::Sub" else None
