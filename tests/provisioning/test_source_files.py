from __future__ import annotations

from pathlib import Path

import pytest

from oms_events.errors import ConfigurationError
from oms_events.provisioning.sources import read_source

QUEUES = "name: orders\nqueues: [{name: orders}]\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", QUEUES + "tags: {on: x}", "tags: True is a name that is no text"),
        ("a.yaml", QUEUES + "1: x", "1 is a name that is no text"),
        ("a.yaml", QUEUES + "rules: [{name: r, targets: [{1: 2}]}]", "rules.0.targets.0: 1 is a name"),
        ("a.yaml", QUEUES + "outputs: &x\n  a: *x", "more than 100 levels"),
        ("a.yaml", QUEUES + "description: 2026-01-31", "description: datetime.date(2026, 1, 31) is nothing"),
        ("a.yaml", QUEUES + "description: 2026-13-31", "is no YAML: month must be in 1..12"),
        ("a.yaml", QUEUES + "outputs: " + "[" * 3000 + "]" * 3000, "make them flatter"),
        ("a.toml", "name = 'orders'\noutputs = " + "[" * 3000 + "]" * 3000, "make them flatter"),
        ("a.toml", "name = 'orders'\nthreshold = nan", "threshold: nan is nothing that JSON has"),
    ],
)
def test_a_file_that_means_no_stack_says_where(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        read_source(str(path))
    assert said in str(raised.value)


def test_a_name_that_no_file_can_have_is_a_problem_of_the_source() -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_source("a\0b.toml")


def test_a_setting_of_endless_depth_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(QUEUES)
    assert read_source(str(path), ["description=" + "[" * 900]).description == "[" * 900
    with pytest.raises(ConfigurationError, match="more than 1024 bytes"):
        read_source(str(path), ["description=" + "[" * 100_000])
