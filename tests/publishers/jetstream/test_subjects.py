from __future__ import annotations

import string

import pytest
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from oms_events._nats.subjects import covers, subject_problem
from oms_events.errors import ConfigurationError, EventRejectedError
from oms_events.events import build_event, encode
from oms_events.publishers.jetstream.subjects import SubjectTemplate
from tests.strategies import events, names


def subject(template: str, type: str = "com.foundry.oms.schema.created", **attributes: str) -> str:  # noqa: A002
    return SubjectTemplate(template)(encode(build_event(type, "/oms/main", **attributes)))


def test_the_type_without_its_prefix_is_the_subject() -> None:
    assert subject("{type}") == "oms.schema.created"
    assert subject("{type}", "com.other.thing") == "com.other.thing"
    assert SubjectTemplate(strip_prefix="com.")(encode(build_event("com.a.b", "/s"))) == "a.b"


def test_a_prefix_that_is_the_whole_type_stays() -> None:
    assert subject("{type}", "com.foundry.") == "com.foundry._"


def test_attributes_are_single_tokens() -> None:
    assert subject("events.{tenant}.{type}", tenant="acme") == "events.acme.oms.schema.created"
    assert subject("{branch}.{source}", branch="feature.x/1") == "feature%2Ex/1./oms/main"
    assert subject("v{specversion}.x") == "v1%2E0.x"


def test_attributes_of_other_types_have_their_text() -> None:
    event = encode(build_event("t", "/s", flag=True, number=7))  # type: ignore[arg-type]
    assert SubjectTemplate("{flag}.{number}")(event) == "true.7"


def test_a_missing_attribute_takes_the_default_or_rejects_the_event() -> None:
    assert subject("{tenant|none}.{type}") == "none.oms.schema.created"
    assert subject("{tenant|none}.x", tenant="") == "none.x"
    with pytest.raises(EventRejectedError, match=r"'tenant' is missing.*\{tenant\|default\}"):
        subject("{tenant}.{type}")


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("a b.*.>", "a%20b.%2A.%3E"),
        ("a..b", "a._.b"),
        (".", "_._"),
        ("tab\there.\x00\x7f", "tab%09here.%00%7F"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("$JS.API.STREAM.DELETE.X", "%24JS.API.STREAM.DELETE.X"),
        ("_INBOX.x", "%5FINBOX.x"),
        ("100%", "100%25"),
    ],
)
def test_tokens_are_made_safe(type_: str, expected: str) -> None:
    assert subject("{type}", type_) == expected


def test_a_subject_too_long_rejects_the_event() -> None:
    with pytest.raises(EventRejectedError, match="max_subject_length is 512"):
        subject("{type}", "x" * 600)


@pytest.mark.parametrize(
    "template",
    ["", "a..b", ".{type}", "a.*", "a b", "$JS.{type}", "{Type}", "{type", "x.{tenant|}", "_INBOX.{type}", "ä.b"],
)
def test_a_template_that_cannot_work_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="subject = "):
        SubjectTemplate(template)


@given(events())
def test_every_event_gets_a_publishable_subject(event: CloudEvent) -> None:
    made = SubjectTemplate("x.{id}.{type}", max_length=2000)(encode(event))
    assert subject_problem(made) is None
    assert not set(made) - set(string.ascii_letters + string.digits + string.punctuation)
    assert not set(made) & set("*>")


@given(names, names)
def test_different_attributes_never_share_a_subject(one: str, other: str) -> None:
    made = [subject("{tenant}.x", tenant=tenant) for tenant in (one, other)]
    assert (made[0] == made[1]) == (one == other)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("oms.>", "oms.schema.created", True),
        ("oms.>", "oms", False),
        ("oms.*", "oms.schema", True),
        ("oms.*", "oms.schema.created", False),
        ("oms.*.created", "oms.schema.created", True),
        ("oms.schema", "oms.schema", True),
        ("oms.schema", "oms.branch", False),
        (">", "anything.at.all", True),
        ("oms.>", "oms.>", True),
        ("oms.*", "oms.>", False),
        ("oms.*", "oms.*", True),
        ("oms.a", "oms.*", False),
        ("oms.>", "*.a", False),
    ],
)
def test_coverage(pattern: str, subject: str, expected: bool) -> None:
    assert covers(pattern, subject) is expected


@given(st.lists(st.sampled_from(["a", "b", "*", ">"]), min_size=1, max_size=4), st.data())
def test_what_is_covered_matches_every_concrete_subject(tokens: list[str], data: st.DataObject) -> None:
    if ">" in tokens[:-1]:
        return
    concrete = [token if token in "ab" else data.draw(st.sampled_from(["a", "b", "c"])) for token in tokens]
    assert covers(".".join(tokens), ".".join(concrete))
