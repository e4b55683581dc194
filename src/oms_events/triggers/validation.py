"""Drafts completed by the environment's defaults, and checked: all that is wrong in one go. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

from pydantic.fields import FieldInfo

from oms_events._config import suggestion
from oms_events.triggers.config import RunOptions, TriggerConfig
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.event_table import same_source
from oms_events.triggers.reading.identity import digest_of
from oms_events.triggers.reading.s3 import S3Object
from oms_events.triggers.request import (
    MAX_CORRELATION_ID,
    MAX_SYMBOLS,
    SYMBOL,
    SYMBOL_REMEDY,
    TABLE_NAME,
    TABLE_NAME_REMEDY,
    WORD,
    WORD_REMEDY,
    TriggerRequest,
    is_correlation_id,
)
from oms_events.triggers.start import Draft


def _bound(field: FieldInfo, name: str) -> int:
    return next(int(getattr(limit, name)) for limit in field.metadata if hasattr(limit, name))


_WORDS: Final[Mapping[str, Code]] = {
    "data_source": Code.INVALID_DATA_SOURCE,
    "data_type": Code.INVALID_DATA_TYPE,
    "domain": Code.INVALID_DOMAIN,
    "table_name": Code.INVALID_TABLE_NAME,
    "period": Code.INVALID_PERIOD,
    "interval": Code.INVALID_INTERVAL,
    "file_format": Code.INVALID_FILE_FORMAT,
}
_FLAGS: Final = ("dry_run", "force_symbols")
_SHOWN: Final = 10
"""Wrong symbols, or unknown options, that an answer names; the others are counted."""
_LONGEST_NAME: Final = 100

_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    name: (_bound(field, "ge"), _bound(field, "le")) for name, field in RunOptions.model_fields.items()
}
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_LONGEST_TIME: Final = 64
_LONGEST_KEY: Final = 4 * MAX_CORRELATION_ID
NO_DAY: Final = "-"
"""What the key of a start has for its day when nobody says that."""
_TIME_REMEDY: Final = "give an RFC 3339 time with its offset, such as 2026-09-09T22:00:00Z, or leave it out"


class Completed(NamedTuple):
    """What became of a draft: a request, or what is wrong with it; and which fields came from the defaults."""

    request: TriggerRequest | None
    problems: list[Problem]
    defaulted: list[str]


def complete(draft: Draft, config: TriggerConfig, *, now: datetime, make_id: Callable[[], str]) -> Completed:
    """The request of a draft, with what it does not say taken from `config.defaults`.

    Symbols are never: without them they are loaded later. They are trimmed, and named once each, in their order;
    their case is kept. A correlation id that nobody gave is made by `make_id`, and a missing time is `now`; null
    means absent. What the fields say of the trigger's type is not looked at: the source decides that.
    """
    problems: list[Problem] = []
    values: dict[str, Any] = {"trigger_type": draft.trigger_type}
    defaulted = []
    for name, code in _WORDS.items():
        given = draft.fields.get(name)
        if given is None:
            values[name] = getattr(config.defaults, name)
            defaulted.append(name)
        elif problem := _word_problem(name, code, given, config):
            problems.append(problem)
        else:
            values[name] = given
    values["symbols"] = _symbols(draft, problems)
    values["urgent"] = _flag("urgent", draft.fields.get("urgent"), problems)
    values["trigger_time"] = _time(draft.fields.get("trigger_time"), now, problems)
    values["correlation_id"] = _correlation_id(draft, make_id, problems)
    for name in _FLAGS:
        _flag(name, getattr(draft, name), problems)
    if draft.ds is not None and not _is_date(draft.ds):
        problems.append(Problem(Code.INVALID_DETAIL, "a partition is a date, such as 2026-09-09", "ds", draft.ds))
    problems.extend(_option_problems(draft.override_config))
    return Completed(None if problems else TriggerRequest(**values), problems, defaulted)


def options_of(draft: Draft, config: TriggerConfig) -> RunOptions:
    """How a draft that `complete` found nothing wrong with goes on."""
    return config.options.model_copy(update=dict(draft.override_config))


def date_of(draft: Draft, request: TriggerRequest) -> str:
    """The day that a start is for: that of its partition, else the UTC date of its time."""
    if draft.ds is not None or request.trigger_time is None:
        return draft.ds or ""
    return datetime.fromisoformat(request.trigger_time.upper()).astimezone(UTC).date().isoformat()


def key_of(draft: Draft, request: TriggerRequest) -> str:
    """What tells a start from others: `domain:table_name:ds:correlation_id`, or what it was set aside with."""
    if draft.key is not None and _fits(draft.key, request):
        return draft.key
    return _key(draft, request)


def own_key(draft: Draft, request: TriggerRequest) -> str | None:
    """The key of an event's, schedule's or object's start where another start has its correlation id already.

    `domain:table_name:ds:correlation_id:` and what makes it unique by itself: the event's id, or what it asks for.
    None where nobody gave the id, so that no other start has it; and for manual calls, which their caller mends.
    """
    if draft.trigger_type == "manual" or not draft.is_id_given:
        return None
    return f"{_key(draft, request)}:{draft.identity or digest_of(_asked(draft, request))}"


def payload_of(draft: Draft, request: TriggerRequest) -> dict[str, Any] | None:
    """What must be the same in all starts of one key whose id somebody gave: what was asked for, as it was.

    Not what defaults and sources of symbols add: they may change before a start is delivered again. None where the
    id was derived, and for a key of its own: they say that it is the same, whatever it came wrapped in.
    """
    if draft.trigger_type == "manual":
        return _asked(draft, request)
    own = own_key(draft, request)
    return None if own is None or own == key_of(draft, request) else _asked(draft, request)


def _key(draft: Draft, request: TriggerRequest) -> str:
    day = NO_DAY if draft.is_timeless and draft.ds is None else date_of(draft, request)
    return f"{request.domain}:{request.table_name}:{day}:{request.correlation_id}"


def _fits(key: str, request: TriggerRequest) -> bool:
    """Whether it may be the key of this start: the defaults may have changed since."""
    begins, has = f"{request.domain}:{request.table_name}:", f":{request.correlation_id}"
    return len(key) <= _LONGEST_KEY and key.isprintable() and key.startswith(begins) and has in key


def _asked(draft: Draft, request: TriggerRequest) -> dict[str, Any]:
    if draft.data is not None:
        # With what only its own model knows, such as which market has closed.
        return {"data": dict(draft.data)}
    asked = {
        name: value
        for name, value in request.document().items()
        if name in draft.fields and name not in ("trigger_type", "trigger_time", "correlation_id")
    }
    if request.symbols:
        asked["symbols"] = sorted(request.symbols)
    else:
        asked.pop("symbols", None)
    if isinstance(draft.detail, S3Object):
        asked["object"] = [draft.detail.bucket, draft.detail.key, draft.detail.sequencer]
    return {**asked, "options": dict(draft.override_config), "unknown": dict(draft.unknown)}


def symbol_problems(symbols: Sequence[object]) -> Iterator[Problem]:
    """What is wrong with symbols, of which at most 10 are named: too many, or one that is none.

    Of too many none is looked at: there may be millions.
    """
    if len(symbols) > MAX_SYMBOLS:
        yield Problem(
            Code.INVALID_SYMBOLS,
            f"a start has at most {MAX_SYMBOLS} symbols; make several starts of it",
            "symbols",
            f"{len(symbols):,} symbols",
        )
        return
    wrong = 0
    for at, symbol in enumerate(symbols):
        problem = _symbol_problem(f"symbols.{at}", symbol)
        if problem is not None:
            wrong += 1
            if wrong <= _SHOWN:
                yield problem
    if wrong > _SHOWN:
        more = f"{wrong - _SHOWN:,} more are wrong too"
        yield Problem(Code.INVALID_SYMBOLS, f"{more}; {SYMBOL_REMEDY}", "symbols")


def normal_symbols(symbols: Sequence[object]) -> list[object]:
    """Symbols trimmed, each once, in their order; what is no text stays as it is."""
    seen: set[str] = set()
    kept: list[object] = []
    for symbol in symbols:
        trimmed = symbol.strip() if isinstance(symbol, str) else symbol
        if not isinstance(trimmed, str):
            kept.append(trimmed)
        elif trimmed not in seen:
            seen.add(trimmed)
            kept.append(trimmed)
    return kept


def _word_problem(name: str, code: Code, given: object, config: TriggerConfig) -> Problem | None:
    if not isinstance(given, str):
        return _wrong_type(name, given, 'write text, in quotes: "..."')
    pattern, remedy = (TABLE_NAME, TABLE_NAME_REMEDY) if name == "table_name" else (WORD, WORD_REMEDY)
    if pattern.fullmatch(given) is None:
        return Problem(code, remedy, name, given)
    allowed = {"data_source": config.data_sources, "domain": config.domains}.get(name)
    if allowed is None or same_source(given) in {same_source(one) for one in allowed}:
        return None
    known = ", ".join(sorted(allowed)) or "none"
    return Problem(code, f"give one that is allowed: {known}", name, given)


def _symbols(draft: Draft, problems: list[Problem]) -> list[object]:
    given = draft.fields.get("symbols")
    symbols: list[object] = []
    if isinstance(given, list | tuple):
        symbols = normal_symbols(given)
        problems.extend(symbol_problems(symbols))
    elif given is not None:
        problems.append(_wrong_type("symbols", given, 'write a list of text: ["AAPL", "MSFT"]'))
        return symbols
    if draft.force_symbols is True and not symbols:
        problems.append(
            Problem(
                Code.INVALID_SYMBOLS,
                "force_symbols takes those given, and none are; give some, or leave force_symbols out",
                "symbols",
                given,
            )
        )
    return symbols


def _symbol_problem(field: str, symbol: object) -> Problem | None:
    if isinstance(symbol, str):
        fits = SYMBOL.fullmatch(symbol) is not None
        return None if fits else Problem(Code.INVALID_SYMBOLS, SYMBOL_REMEDY, field, symbol)
    remedy = "a symbol is text"
    if isinstance(symbol, int | float) and not isinstance(symbol, bool):
        remedy = 'write a symbol in quotes, with the zeros that it begins with: "005930"'
    return _wrong_type(field, symbol, remedy)


def _flag(name: str, given: object, problems: list[Problem]) -> bool:
    if given is None or isinstance(given, bool):
        return bool(given)
    problems.append(_wrong_type(name, given, "write true or false, without quotes"))
    return False


def _time(given: object, now: datetime, problems: list[Problem]) -> str:
    if given is None:
        return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if not isinstance(given, str):
        problems.append(_wrong_type("trigger_time", given, _TIME_REMEDY))
    elif not _is_time(given):
        problems.append(Problem(Code.INVALID_TRIGGER_TIME, _TIME_REMEDY, "trigger_time", given))
    else:
        return given
    return ""


def _is_time(text: str) -> bool:
    if len(text) > _LONGEST_TIME or _TIME.fullmatch(text) is None:
        return False
    try:
        # At the ends of the calendar a time has no date in UTC.
        datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


def _is_date(text: object) -> bool:
    try:
        return isinstance(text, str) and date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _correlation_id(draft: Draft, make_id: Callable[[], str], problems: list[Problem]) -> str | None:
    given: object = draft.correlation_id
    if given is None:
        given = draft.fields.get("correlation_id")
    if given is None:
        return make_id()
    if not isinstance(given, str):
        problems.append(_wrong_type("correlation_id", given, 'write text, in quotes: "..."'))
    elif not is_correlation_id(given):
        remedy = f"give 1 to {MAX_CORRELATION_ID} printable characters, or leave it out"
        problems.append(Problem(Code.INVALID_CORRELATION_ID, remedy, "correlation_id", given))
    else:
        return given
    return None


def _option_problems(overrides: object) -> Iterator[Problem]:
    if not isinstance(overrides, Mapping):
        yield _wrong_type("override_config", overrides, 'write an object: {"chunk_size": 5}')
        return
    unknown = [str(name) for name in overrides if name not in _LIMITS]
    for name in unknown[:_SHOWN]:
        hint = suggestion(name[:_LONGEST_NAME], _LIMITS) or f"known are: {', '.join(_LIMITS)}"
        yield Problem(Code.INVALID_OVERRIDE, f"there is no such option; {hint}", "override_config", name)
    if len(unknown) > _SHOWN:
        yield Problem(Code.INVALID_OVERRIDE, f"{len(unknown) - _SHOWN:,} more are unknown too", "override_config")
    for name, (least, most) in _LIMITS.items():
        value = overrides.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            remedy = f"give a whole number from {least} to {most:,}"
            yield Problem(Code.INVALID_OVERRIDE, remedy, f"override_config.{name}", value)


def _wrong_type(field: str, value: object, remedy: str) -> Problem:
    return Problem(Code.WRONG_TYPE, remedy, field, value)
