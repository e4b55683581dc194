"""Hypothesis strategies for events, shared by all property tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cloudevents.core.v1.event import CloudEvent
from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
names = texts.filter(bool)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
extension_names = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("data", "id", "source", "type", "time", "subject", "specversion", "dataschema")
)
extension_values = names | st.integers(-(2**31), 2**31 - 1) | st.booleans()


@st.composite
def events(draw: st.DrawFn) -> CloudEvent:
    """Valid events with every kind of data that has a JSON form."""
    attributes: dict[str, Any] = {
        "id": draw(names), "source": draw(names), "type": draw(names), "time": draw(times),
        **draw(st.dictionaries(extension_names, extension_values, max_size=3)),
    }  # fmt: skip
    if draw(st.booleans()):
        attributes["subject"] = draw(names)
    kind = draw(st.sampled_from(["json", "declared json", "text", "bytes", "none"]))
    data: Any = None
    if kind == "json":
        data = draw(json_values.filter(lambda value: value is not None))
    elif kind == "declared json":
        attributes["datacontenttype"] = "application/json"
        data = draw(json_values)
    elif kind == "text":
        attributes["datacontenttype"] = "text/plain"
        data = draw(texts)
    elif kind == "bytes":
        attributes["datacontenttype"] = "application/octet-stream"
        data = draw(st.binary(min_size=1, max_size=30))
    return CloudEvent(attributes, data)
