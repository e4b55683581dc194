"""Events out of bytes that come in pieces: JSON lines, JSON documents one after the other, JSON arrays. Pure."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import orjson

from oms_events.errors import InvalidEventError
from oms_events.events import EncodedEvent, encode, parse_event

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""No platform takes an event of this size, and a parser keeps no more than one event in memory."""

_SPACE: Final = re.compile(r"[ \t\r\n]*")
# As far from the end, a syntax error is none that more input could mend, such as half of a literal.
_CUT: Final = 12


class InputFormat(StrEnum):
    """How events lie in a file; `auto` looks at its beginning."""

    AUTO = "auto"
    LINES = "lines"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Item:
    """What stood at a line: an event, or the reason why it is none. An event of the command line has line 0."""

    line: int
    content: EncodedEvent | str


class Parser(Protocol):
    """Takes bytes as they come and gives the items that are complete."""

    @property
    def ended(self) -> bool:
        """Whether nothing more can be read, after an error from which there is no way back."""
        ...

    def feed(self, chunk: bytes) -> list[Item]: ...

    def finish(self) -> list[Item]:
        """The items of what is left at the end of the input."""
        ...


def make_parser(form: InputFormat = InputFormat.AUTO, *, max_size: int = MAX_EVENT_BYTES) -> Parser:
    """A parser of that format; `max_size` is in bytes of one event's JSON."""
    if form is InputFormat.LINES:
        return LineParser(max_size)
    if form is InputFormat.JSON:
        return DocumentParser(max_size)
    return AutoParser(max_size)


class LineParser:
    """One event per line. A line that is no event harms no other."""

    ended = False

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._rest = bytearray()
        self._line = 0
        self._skipping = False

    def feed(self, chunk: bytes) -> list[Item]:
        *lines, rest = chunk.split(b"\n")
        if not lines:
            return self._keep(rest)
        items = []
        if not self._skipping:
            lines[0] = bytes(self._rest) + lines[0]
        self._rest.clear()
        for line in lines:
            self._line += 1
            if not self._skipping and line.strip():
                items.append(_read(line, self._line))
            self._skipping = False
        return items + self._keep(rest)

    def finish(self) -> list[Item]:
        return self.feed(b"\n")

    def _keep(self, rest: bytes) -> list[Item]:
        if self._skipping:
            return []
        self._rest += rest
        if len(self._rest) <= self._max_size:
            return []
        self._rest.clear()
        self._skipping = True
        return [_too_large(self._line + 1, self._max_size)]


class DocumentParser:
    """JSON documents one after the other, each an event or an array of events, laid out in any way.

    A document that is no event harms no other; after an error of syntax nobody knows where the next one
    begins, and nothing more is read.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._scan = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._line = 1
        self._in_array = False
        self._after_value = False
        self.ended = False

    def feed(self, chunk: bytes) -> list[Item]:
        return self._take(chunk, final=False)

    def finish(self) -> list[Item]:
        return self._take(b"", final=True)

    def _take(self, chunk: bytes, *, final: bool) -> list[Item]:
        if self.ended:
            return []
        try:
            self._text += self._decoder.decode(chunk, final)
        except UnicodeDecodeError as error:
            self._text += error.object[: error.start].decode()
            items = list(self._items(final=False))
            if not self.ended:
                self._move_to(len(self._text))
                items.append(self._give_up(f"not UTF-8: {error.reason}"))
            return items
        items = list(self._items(final=final))
        self._text, self._at = self._text[self._at :], 0
        if not self.ended and len(self._text) > self._max_size:
            items.append(self._give_up(_too_large(0, self._max_size).content))
        return items

    def _items(self, *, final: bool) -> Iterator[Item]:
        while not self.ended:
            self._move_to(_end_of_space(self._text, self._at))
            if self._at == len(self._text):
                if final and self._in_array:
                    yield self._give_up("the array has no end")
                return
            if self._is_punctuation():
                continue
            if self._in_array and self._after_value:
                yield self._give_up("no comma between two events")
                return
            try:
                _, end = self._scan(self._text, self._at)
            except json.JSONDecodeError as error:
                if final or not self._may_be_cut(error):
                    self._move_to(error.pos)
                    yield self._give_up(f"not JSON: {error.msg}")
                return
            except RecursionError:
                yield self._give_up("not JSON that can be read: nested too deeply")
                return
            if end == len(self._text) and not final and self._text[end - 1] not in '}]"':
                return
            yield _read(self._text[self._at : end], self._line)
            self._after_value = True
            self._move_to(end)

    def _is_punctuation(self) -> bool:
        """Steps over what opens or closes an array, or separates its values."""
        mark = self._text[self._at]
        if mark == "[" and not self._in_array:
            self._in_array, self._after_value = True, False
        elif mark == "]" and self._in_array:
            self._in_array = False
        elif mark == "," and self._in_array and self._after_value:
            self._after_value = False
        else:
            return False
        self._at += 1
        return True

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated string") or len(self._text) - error.pos < _CUT

    def _move_to(self, end: int) -> None:
        self._line += self._text.count("\n", self._at, end)
        self._at = end

    def _give_up(self, reason: object) -> Item:
        self.ended = True
        return Item(self._line, f"{reason}; nothing from here on was read")


class AutoParser:
    """Looks at the first line, or two, and leaves the rest to the parser that fits."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._head = b""
        self._parser: Parser | None = None

    @property
    def ended(self) -> bool:
        return self._parser is not None and self._parser.ended

    def feed(self, chunk: bytes) -> list[Item]:
        return self._take(chunk, final=False)

    def finish(self) -> list[Item]:
        items = self._take(b"", final=True)
        return items + (self._parser.finish() if self._parser is not None else [])

    def _take(self, chunk: bytes, *, final: bool) -> list[Item]:
        if self._parser is not None:
            return self._parser.feed(chunk)
        self._head += chunk
        self._parser = self._choose(final=final)
        if self._parser is None:
            return []
        head, self._head = self._head, b""
        return self._parser.feed(head.removeprefix(codecs.BOM_UTF8))

    def _choose(self, *, final: bool) -> Parser | None:
        lines, document = LineParser(self._max_size), DocumentParser(self._max_size)
        if len(self._head) > self._max_size:
            final = True
        text = self._head.removeprefix(codecs.BOM_UTF8).lstrip()
        if not text:
            return lines if final else None
        if text.startswith(b"["):
            return document
        if not text.startswith(b"{"):
            return lines
        first, *more = text.split(b"\n", 2)
        if not more and not final:
            return None
        if not more or _is_object(first):
            return lines
        if len(more) == 1 and not final:
            return None
        # One bad line before good ones, or the first line of an object that is laid out over several.
        return lines if _is_object(more[0]) else document


def _read(text: bytes | str, line: int) -> Item:
    try:
        return Item(line, encode(parse_event(text)))
    except InvalidEventError as error:
        syntax = error.__cause__
        if not isinstance(syntax, json.JSONDecodeError):
            return Item(line, str(error))
        # The whole message tells the line inside this one event, which would only confuse.
        column = f" (column {syntax.colno})" if isinstance(text, bytes) else ""
        return Item(line, f"not JSON: {syntax.msg}{column}")


def _too_large(line: int, size: int) -> Item:
    return Item(line, f"longer than {size:,} bytes, which is more than an event can be")


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _end_of_space(text: str, start: int) -> int:
    space = _SPACE.match(text, start)
    return start if space is None else space.end()
