"""The stream: verified, made or changed through the JetStream API, with errors that name fields."""

from __future__ import annotations

import logging
from typing import Any, Final

from oms_events._nats.api import ApiForbiddenError, ApiRefusedError, JetStreamApi
from oms_events._nats.refusals import error_of
from oms_events._nats.subjects import covers
from oms_events.errors import AddressDeniedError, PlatformDeniedError, PublishError, TransientError
from oms_events.publishers.jetstream.config import JetStreamOptions, StreamPolicy, StreamSpec

_log = logging.getLogger("oms_events")

_NANOSECONDS: Final = 1_000_000_000
_NAME_IN_USE: Final = 10058
_SUBJECTS_OVERLAP: Final = 10065
_NOT_NOW: Final = (429, 503)

StreamConfig = dict[str, Any]
"""A stream's configuration as the server writes it."""


async def prepare_stream(api: JetStreamApi, options: JetStreamOptions) -> StreamConfig | None:
    """Does what the policy says; gives the stream's configuration when it is known.

    Raises `PlatformDeniedError` for a stream that is missing or conflicts, naming field, values and remedy.
    """
    if options.policy is StreamPolicy.NONE:
        return None
    try:
        if options.policy is StreamPolicy.VERIFY:
            return await _verify(api, options)
        spec = options.stream
        if not isinstance(spec, StreamSpec):
            raise PlatformDeniedError("the stream policy needs a StreamSpec")
        return await _make(api, spec, update=options.policy is StreamPolicy.UPDATE)
    except ApiForbiddenError as forbidden:
        if options.policy is StreamPolicy.VERIFY:
            _log.warning("no permission for %s: the stream is verified by acknowledgements only", forbidden)
            return None
        raise PlatformDeniedError(
            f"no permission for {forbidden}; grant it, or set policy = verify and let others make the stream"
        ) from forbidden


async def why_nobody_listens(api: JetStreamApi, subject: str, stream: str | None) -> PublishError | None:
    """Tells a subject that no stream covers from a stream without a leader, and from no stream at all.

    Raises `ApiForbiddenError` when the permissions do not allow to ask; None when it cannot be told.
    """
    try:
        for info in await api.streams(subject):
            return TransientError(
                f"stream {info['config']['name']!r} takes {subject!r} and has no leader now", code="no_leader"
            )
        if stream is not None:
            exists = await api.stream(stream) is not None
        else:
            exists = bool((await api.request("STREAM.NAMES")).get("streams"))
    except (ApiRefusedError, TransientError):
        return None
    except PublishError as error:
        return error
    if not exists:
        missing = "no stream exists" if stream is None else f"stream {stream!r} does not exist"
        return PlatformDeniedError(f"{missing}; create it, or set policy = create", code="no_stream")
    return AddressDeniedError(
        f"no stream takes subject {subject!r}; add it to a stream's subjects", code="no_stream"
    )


def check_usable(config: StreamConfig) -> None:
    """Raises `PlatformDeniedError` for a stream that would never acknowledge."""
    name = config["name"]
    for field, text in (("no_ack", "acknowledges nothing"), ("sealed", "takes nothing any more")):
        if config.get(field):
            raise PlatformDeniedError(f"stream {name!r} has {field} = true, it {text}; change it or take another")


async def _verify(api: JetStreamApi, options: JetStreamOptions) -> StreamConfig | None:
    spec = options.stream if isinstance(options.stream, StreamSpec) else None
    subjects = (*options.verify_subjects, *(spec.subjects if spec else ()))
    name = options.stream_name
    if name is None:
        config: StreamConfig | None = None
        for subject in subjects:
            found = [info["config"] for info in await api.streams(subject)]
            config = next((one for one in found if not _uncovered(one, (subject,))), None)
            if config is None:
                raise PlatformDeniedError(
                    f"no stream covers subject {subject!r}; create one, or set policy = create and "
                    "stream = StreamSpec(...)"
                )
            check_usable(config)
        return config
    info = await api.stream(name)
    if info is None:
        raise PlatformDeniedError(
            f"stream {name!r} does not exist; create it, or set policy = create and stream = StreamSpec(...)"
        )
    config = info["config"]
    check_usable(config)
    if missing := _uncovered(config, subjects):
        raise PlatformDeniedError(
            f"stream {name!r}: subjects are {config.get('subjects', [])}, which do not cover {missing}; "
            "add them to the stream, or set policy = update"
        )
    return config


async def _make(api: JetStreamApi, spec: StreamSpec, *, update: bool) -> StreamConfig:
    wanted = _server_form(spec)
    info = await api.stream(spec.name)
    if info is None:
        try:
            created: StreamConfig = (await api.request(f"STREAM.CREATE.{spec.name}", wanted))["config"]
            return created
        except ApiRefusedError as refused:
            # Somebody made it between our two questions.
            if refused.number == _NAME_IN_USE:
                info = await api.stream(spec.name)
            if info is None:
                raise await _conflict(api, spec, refused, "cannot be created") from refused
    config: StreamConfig = info["config"]
    check_usable(config)
    differences = _differences(config, wanted, spec)
    if not differences:
        return config
    told = ", ".join(f"{field} is {have!r} and {want!r} is wanted" for field, have, want in differences)
    if not update:
        raise PlatformDeniedError(
            f"stream {spec.name!r} exists and differs: {told}; change the specification, or set policy = update"
        )
    subjects = list(config.get("subjects", []))
    subjects += _uncovered(config, spec.subjects)
    # What `wanted` lacks is a switch that is off.
    changes = {key: wanted.get(key, False) for key in (_FIELDS[field][0] for field, _, _ in differences)}
    merged = {**config, **changes, "subjects": subjects}
    if merged.get("max_age") and "duplicate_window" not in spec.model_fields_set:
        # The server refuses a window that is longer than messages live.
        merged["duplicate_window"] = min(merged.get("duplicate_window", 0), merged["max_age"])
    try:
        updated: StreamConfig = (await api.request(f"STREAM.UPDATE.{spec.name}", merged))["config"]
        return updated
    except ApiRefusedError as refused:
        raise await _conflict(api, spec, refused, f"cannot be changed ({told})") from refused


async def _conflict(api: JetStreamApi, spec: StreamSpec, refused: ApiRefusedError, what: str) -> PublishError:
    if refused.number == _SUBJECTS_OVERLAP:
        owners = {
            info["config"]["name"]: info["config"].get("subjects", [])
            for subject in spec.subjects
            for info in await api.streams(subject)
            if info["config"]["name"] != spec.name
        }
        return PlatformDeniedError(
            f"stream {spec.name!r} {what}: subjects {list(spec.subjects)} overlap those of {owners}; "
            "narrow the subjects, or use that stream",
            code=str(refused.number),
        )
    classified = error_of(refused.error, f"stream {spec.name!r} {what}")
    # For the stream itself 500 is no passing trouble: it says "not clustered", "cannot change storage".
    if isinstance(classified, TransientError) and refused.error.get("code") in _NOT_NOW:
        return classified
    return PlatformDeniedError(
        f"{classified}; change the specification, or delete the stream and let it be made anew",
        code=classified.code,
    )


_FIELDS: Final[dict[str, tuple[str, Any]]] = {
    # field of the specification: the server's name, and what None is there
    "description": ("description", ""),
    "replicas": ("num_replicas", 1),
    "max_age": ("max_age", 0),
    "max_bytes": ("max_bytes", -1),
    "max_msgs": ("max_msgs", -1),
    "max_msgs_per_subject": ("max_msgs_per_subject", -1),
    "max_msg_size": ("max_msg_size", -1),
    "retention": ("retention", "limits"),
    "storage": ("storage", "file"),
    "discard": ("discard", "old"),
    "duplicate_window": ("duplicate_window", 0),
    "allow_direct": ("allow_direct", False),
    "allow_msg_ttl": ("allow_msg_ttl", False),
    "allow_atomic": ("allow_atomic", False),
    "deny_delete": ("deny_delete", False),
    "deny_purge": ("deny_purge", False),
    "subjects": ("subjects", []),
}
_DURATIONS: Final = ("max_age", "duplicate_window")


def _server_form(spec: StreamSpec) -> StreamConfig:
    config: StreamConfig = {"name": spec.name, "subjects": list(spec.subjects)}
    for field, (key, nothing) in _FIELDS.items():
        value = getattr(spec, field)
        if value is None:
            value = nothing
        elif field in _DURATIONS:
            value = round(value * _NANOSECONDS)
        # An older server need not know a switch that is off.
        if field != "subjects" and value is not False:
            config[key] = value
    if spec.max_age is not None:
        config["duplicate_window"] = min(config["duplicate_window"], config["max_age"])
    return config


def _differences(config: StreamConfig, wanted: StreamConfig, spec: StreamSpec) -> list[tuple[str, Any, Any]]:
    differences = []
    for field, (key, nothing) in _FIELDS.items():
        if field not in spec.model_fields_set:
            continue
        have, want = config.get(key, nothing), wanted.get(key, nothing)
        if field == "subjects":
            if _uncovered(config, spec.subjects):
                differences.append((field, have, want))
        elif have != want:
            differences.append((field, _readable(field, have), _readable(field, want)))
    return differences


def _readable(field: str, value: Any) -> Any:
    return value / _NANOSECONDS if field in _DURATIONS else str(value) if isinstance(value, str) else value


def _uncovered(config: StreamConfig, subjects: tuple[str, ...]) -> list[str]:
    patterns = config.get("subjects") or []
    return [subject for subject in subjects if not any(covers(pattern, subject) for pattern in patterns)]
