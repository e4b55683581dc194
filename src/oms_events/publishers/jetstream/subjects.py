"""Subjects made from events by a template, always safe. Pure."""

from __future__ import annotations

import re
from typing import Final

from oms_events.errors import ConfigurationError, EventRejectedError
from oms_events.events import EncodedEvent, percent_encoder
from oms_events.publishers.jetstream.binding import attribute_text

_PLACEHOLDER = re.compile(r"\{([a-z0-9]+)(?:\|([^{}]*))?\}")
_LITERAL = re.compile(r"[!-~]*")
_RESERVED: Final = ("$", "_INBOX")
_CACHED_TYPES: Final = 4096

_escape_path = percent_encoder("*>")
_escape_token = percent_encoder("*>.")


class SubjectTemplate:
    """Makes a subject of an event: text with `{type}`, `{<attribute>}` and `{<attribute>|<default>}`.

    `{type}` is the event type without `strip_prefix`, its dots separating tokens. Any other attribute is one
    token, or part of one. What a subject may not hold (space, `*`, `>`, control and non-ASCII characters,
    `%`, and the dots of an attribute) is percent-encoded, so different values never share a subject; an empty
    token of a type becomes `_`; the first character of a subject that would begin like the server's own
    (`$`, `_INBOX`) is percent-encoded too. An absent or empty attribute without a default, and a subject
    longer than `max_length`, raise `EventRejectedError`. `ConfigurationError` for a template that cannot work.
    """

    def __init__(
        self, template: str = "{type}", *, strip_prefix: str = "com.foundry.", max_length: int = 512
    ) -> None:
        self.template = template
        self._strip_prefix = strip_prefix
        self._max_length = max_length
        self._parts: list[str | tuple[str, str | None]] = []
        position = 0
        for match in _PLACEHOLDER.finditer(template):
            self._parts.append(template[position : match.start()])
            self._parts.append((match[1], match[2]))
            position = match.end()
        self._parts.append(template[position:])
        problems = list(self._problems())
        if problems:
            raise ConfigurationError("subject template", problems)
        self._only_type = all(part[0] == "type" for part in self._parts if isinstance(part, tuple))
        self._by_type: dict[str, str] = {}

    def _problems(self) -> list[str]:
        problems = []
        literals = "".join(part for part in self._parts if isinstance(part, str))
        if set(literals) & set("{}*>") or not _LITERAL.fullmatch(literals):
            problems.append(
                f"subject = {self.template!r}: outside of {{attribute}} and {{attribute|default}} only "
                "printable ASCII without space, '*', '>' and braces may stand"
            )
        shape = _PLACEHOLDER.sub("x", self.template)
        if not all(shape.split(".")):
            problems.append(f"subject = {self.template!r} has an empty token; remove the extra dot")
        if shape.startswith(_RESERVED):
            problems.append(f"subject = {self.template!r} begins like the server's own; choose another")
        problems.extend(
            f"subject = {self.template!r}: the default of {part[0]!r} is empty; write a word"
            for part in self._parts
            if isinstance(part, tuple) and part[1] == ""
        )
        return problems

    def __call__(self, event: EncodedEvent) -> str:
        if not self._only_type:
            return self._render(event)
        subject = self._by_type.get(event.type)
        if subject is None:
            subject = self._render(event)
            if len(self._by_type) >= _CACHED_TYPES:
                self._by_type.clear()
            self._by_type[event.type] = subject
        return subject

    def _render(self, event: EncodedEvent) -> str:
        subject = "".join(
            part if isinstance(part, str) else self._fill(event, part[0], part[1]) for part in self._parts
        )
        if subject.startswith(_RESERVED):
            subject = f"%{ord(subject[0]):02X}{subject[1:]}"
        if len(subject) > self._max_length:
            raise EventRejectedError(
                f"the subject has {len(subject)} characters, max_subject_length is {self._max_length}; "
                f"shorten what {self.template!r} takes from the event"
            )
        return subject

    def _fill(self, event: EncodedEvent, name: str, default: str | None) -> str:
        if name == "type":
            path = event.type.removeprefix(self._strip_prefix) or event.type
            return ".".join(_escape_path(token) or "_" for token in path.split("."))
        value = event.attributes.get(name)
        text = default if value is None or value == "" else attribute_text(name, value)
        if text is None:
            raise EventRejectedError(
                f"attribute {name!r} is missing and the subject template {self.template!r} needs it; set it, "
                f"or write {{{name}|default}}"
            )
        return _escape_token(text)
