"""An event of the command line: from flags, or from a file or standard input."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click
import orjson

from oms_events.cli.parsing import InputFormat
from oms_events.errors import InvalidEventError
from oms_events.events import EncodedEvent, encode, event_from_attributes, is_json_type, load_json

DEFAULT_SOURCE: Final = "/oms/cli"

_OPTIONS: Final = (
    click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True)),
    click.option("--type", "event_type", metavar="TYPE", help="Make an event of this type, instead of FILE."),
    click.option("--source", metavar="URI", help=f"Its source.  [default: {DEFAULT_SOURCE}]"),
    click.option("--subject", metavar="TEXT", help="Its subject."),
    click.option("--id", "event_id", metavar="TEXT", help="Its id.  [default: a new UUID]"),
    click.option("--data", metavar="JSON", help="Its data; text where --content-type says so."),
    click.option("--content-type", metavar="TYPE", help="The content type of its data.  [default: JSON]"),
    click.option(
        "--attr",
        "attributes",
        metavar="NAME=VALUE",
        multiple=True,
        help="Any other attribute, such as branch=main; may be given several times.",
    ),
    click.option(
        "--format",
        "form",
        type=click.Choice([form.value for form in InputFormat]),
        default=InputFormat.AUTO.value,
        show_default=True,
        help="How the events lie in FILE: one per line, or as JSON documents and arrays.",
    ),
)


@dataclass(frozen=True, slots=True)
class EventInput:
    """What the command line says: one event, or the file (`-`: standard input) that holds events."""

    event: EncodedEvent | None
    file: str
    form: InputFormat


def takes_events(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the argument FILE and the flags of an event, as one `EventInput` named `given`."""

    @functools.wraps(command)
    def with_event(**options: Any) -> None:
        names = ("event_type", "source", "subject", "event_id", "data", "content_type", "attributes")
        flags = {name: options.pop(name) for name in names}
        file, form = options.pop("file"), InputFormat(options.pop("form"))
        if file is not None and any(flags.values()):
            raise click.UsageError("FILE and the flags of an event exclude each other; give one of them")
        if file is None and flags["event_type"] is None:
            raise click.UsageError("no event; give --type, or a FILE (- for standard input)")
        event = _build(**flags) if file is None else None
        command(given=EventInput(event, file or "", form), **options)

    decorated: Callable[..., None] = with_event
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _build(
    *,
    event_type: str,
    source: str | None,
    subject: str | None,
    event_id: str | None,
    data: str | None,
    content_type: str | None,
    attributes: Sequence[str],
) -> EncodedEvent:
    values: dict[str, Any] = {
        "type": event_type,
        "source": DEFAULT_SOURCE if source is None else source,
        "id": event_id or str(uuid.uuid4()),
        "time": datetime.now(UTC).isoformat(),
        "subject": subject,
        "datacontenttype": content_type,
    }
    for attribute in attributes:
        name, equals, value = attribute.partition("=")
        if not equals:
            raise click.BadParameter(f"{attribute!r} has no '='; write NAME=VALUE", param_hint="--attr")
        values[name] = value
    try:
        return encode(event_from_attributes(values, _data(data, values["datacontenttype"])))
    except InvalidEventError as error:
        raise click.UsageError(str(error)) from error


def _data(text: str | None, content_type: str | None) -> Any:
    if text is None or (content_type is not None and not is_json_type(content_type)):
        return text
    try:
        return load_json(text)
    except orjson.JSONDecodeError as error:
        message = f"is not JSON ({error}); quote text, or give --content-type text/plain"
        raise click.BadParameter(message, param_hint="--data") from error
