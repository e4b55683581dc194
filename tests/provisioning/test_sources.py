from __future__ import annotations

from pathlib import Path

import pytest

from oms_events.errors import ConfigurationError, SpecError
from oms_events.provisioning.sources import read_source

FILE = """\
name = "orders"
tags = { team = "shop" }

[[queues]]
name = "orders"
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "stack.toml"
    path.write_text(FILE)
    return str(path)


@pytest.mark.parametrize(
    ("setting", "tags"),
    [
        ("tags.team=orders", {"team": "orders"}),
        ("tags.account=123456789012", {"team": "shop", "account": "123456789012"}),
        ("tags.build=1e5", {"team": "shop", "build": "1e5"}),
        ("tags.critical=true", {"team": "shop", "critical": "true"}),
        ('tags.account="12"', {"team": "shop", "account": "12"}),
        ('tags."cost.center" = 7', {"team": "shop", "cost.center": " 7"}),
        ('tags."a=b"=c=d', {"team": "shop", "a=b": "c=d"}),
        (" tags . team =x", {"team": "x"}),
        ('tags={"a": "1"}', {"a": "1"}),
    ],
)
def test_what_is_set_goes_into_its_field(file: str, setting: str, tags: dict[str, str]) -> None:
    assert read_source(file, [setting]).tags == tags


def test_a_preset_takes_digits_for_a_text() -> None:
    settings = ["resource_suffix=12345678", "environment=dev"]
    assert any(queue.name.endswith("-12345678") for queue in read_source("event-sourcing", settings).queues)


def test_what_is_no_text_is_not_made_one(file: str) -> None:
    stack = read_source(file, ["termination_protection=true", "description=null", 'outputs={"a": "b"}'])
    assert (stack.termination_protection, stack.description, stack.outputs) == (True, None, {"a": "b"})


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        (["termination_protection=7", "tags.account=12"], ["termination_protection = '7': "]),
        (["nothing=5", "tags.account=12"], ["unknown field 'nothing'"]),
        (["name=5"], ["name = '5': a stack's name"]),
    ],
)
def test_a_value_that_is_wrong_in_any_form_is_told(file: str, settings: list[str], problems: list[str]) -> None:
    with pytest.raises(SpecError) as refused:
        read_source(file, settings)
    assert [words for words in problems if words not in str(refused.value)] == []


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('tags={"a": "1", "b": "2", "a": "3"}', "a key stands twice"),
        ('outputs=[{"a": {"b": 1, "b": 2}}]', "a key stands twice"),
        ("preset=oms", "what SOURCE says"),
        ('"preset"=oms', "what SOURCE says"),
        ("name.x=1", "'name' is str and has no fields"),
        ("name", "write key=value"),
        ("=x", "write key=value"),
        ("tags..a=x", "write key=value"),
        ('tags."a=x', "write key=value"),
        ('tags.a"b"=x', "write key=value"),
        ("tags. =x", "write key=value"),
    ],
)
def test_what_cannot_be_set_is_refused(file: str, setting: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as refused:
        read_source(file, [setting])
    assert refused.value.subject == "--set"


def test_a_preset_is_not_changed_into_another() -> None:
    with pytest.raises(SpecError, match="what SOURCE says"):
        read_source("oms", ["preset=ticket-events"])


def test_a_value_without_end_is_text(file: str) -> None:
    assert read_source(file, ["description=" + "[" * 1000]).description == "[" * 1000
    with pytest.raises(SpecError, match="description"):
        read_source(file, ["description=" + "[" * 100_000])


def test_a_preset_that_is_nearly_known_gets_that_one_proposed(tmp_path: Path) -> None:
    path = tmp_path / "stack.toml"
    for name, words in (("ticket_events", "did you mean 'ticket-events'?"), ("xyz", "ingestion-triggers")):
        path.write_text(f'preset = "{name}"\n')
        for source in (name, str(path)):
            with pytest.raises(ConfigurationError) as refused:
                read_source(source)
            assert words in str(refused.value)
            assert ("did you mean" in str(refused.value)) == (name != "xyz")
