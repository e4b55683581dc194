"""JetStream: does a stream take the subjects that the events get? Needs the extra `nats` when it is run."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from oms_events._nats.config import NatsConfig
from oms_events._nats.subjects import covers
from oms_events.errors import PlatformDeniedError
from oms_events.provisioning.checks.report import Finding, ok, problem, some, unchecked, warning
from oms_events.publishers.jetstream.config import JetStreamOptions, StreamPolicy, StreamSpec

if TYPE_CHECKING:
    from oms_events._nats.api import JetStreamApi

AREA: Final = "stream"


async def check_stream(
    config: NatsConfig, options: JetStreamOptions, subjects: Mapping[str, str]
) -> AsyncIterator[Finding]:
    """Asks JetStream which streams take the subjects (each with the name of an event); makes and changes none."""
    from oms_events._nats.api import ApiForbiddenError, ApiRefusedError, JetStreamApi
    from oms_events._nats.connection import OwnConnection

    connection = OwnConnection(config, on_state=_ignore, on_error=_ignore, jitter=random.SystemRandom().random)
    try:
        client = await connection.open()
        api = JetStreamApi(client, prefix=options.api_prefix, timeout=options.request_timeout)
        async for finding in _streams(api, options, subjects):
            yield finding
    except ApiForbiddenError as forbidden:
        yield unchecked(
            AREA,
            options.stream_name or "JetStream",
            f"no permission for {forbidden}",
            "let this user ask for it, or look with another",
        )
    except ApiRefusedError as refused:
        yield unchecked(
            AREA,
            options.stream_name or "JetStream",
            f"JetStream refused to answer: {refused}",
            "look at the server and the account",
        )
    finally:
        await connection.close()


async def _streams(
    api: JetStreamApi, options: JetStreamOptions, subjects: Mapping[str, str]
) -> AsyncIterator[Finding]:
    name = options.stream_name
    if name is None:
        found: dict[str, Any] = {}
        for subject in subjects:
            found |= {info["config"]["name"]: info["config"] for info in await api.streams(subject)}
        for config in found.values():
            yield _usable(config)
        for finding in _covered("JetStream", subjects, found):
            yield finding
        return
    info = await api.stream(name)
    makes = options.stream if options.policy in (StreamPolicy.CREATE, StreamPolicy.UPDATE) else None
    spec = makes if isinstance(makes, StreamSpec) else None
    if info is None and spec is None:
        yield problem(
            AREA,
            name,
            "does not exist",
            "make it, or set policy = create and stream = StreamSpec(...)",
        )
        return
    config = {"name": name, "subjects": []} if info is None else info["config"]
    if info is None:
        yield warning(
            AREA,
            name,
            "does not exist yet; the publisher makes it when it opens",
            "start the service, or make it yourself",
        )
    else:
        yield _usable(config)
    if spec is not None and (info is None or options.policy is StreamPolicy.UPDATE):
        config = {**config, "subjects": [*(config.get("subjects") or ()), *spec.subjects]}
    for finding in _covered(name, subjects, {name: config}):
        yield finding


def _usable(config: Mapping[str, Any]) -> Finding:
    from oms_events.publishers.jetstream.streams import check_usable

    try:
        check_usable(dict(config))
    except PlatformDeniedError as error:
        return problem(AREA, config["name"], str(error), "change the stream, or take another")
    return ok(AREA, config["name"], "exists and acknowledges")


def _covered(name: str, subjects: Mapping[str, str], streams: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    filters = [filter_ for config in streams.values() for filter_ in config.get("subjects") or ()]
    missing = [subject for subject in subjects if not any(covers(filter_, subject) for filter_ in filters)]
    if not missing:
        return [ok(AREA, name, f"covers the subjects that the events get: {some(subjects)}")]
    return [
        problem(
            AREA,
            subject,
            f"no stream covers it, and {subjects[subject]} gets it"
            if name not in streams
            else f"stream {name} does not cover it, and {subjects[subject]} gets it",
            "add the subject to a stream's subjects",
        )
        for subject in missing
    ]


def _ignore(*_: object) -> None:
    """The connection lives for a few requests, whose own errors tell everything."""
