"""Lines of logs and terminals."""

from __future__ import annotations

import pytest

from oms_events._text import one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("삼성전자 is 'fine'", "삼성전자 is 'fine'"),
        ("a\nb\r\x1b[2J", "a\\nb\\r\\x1b[2J"),
        # What is printable stays readable beside what is not.
        ("삼성\n", "삼성\\n"),
        ("\u202eevil \ud800\u2028", "\\u202eevil \\ud800\\u2028"),
    ],
)
def test_it_is_one_line_without_control_characters(text: str, shown: str) -> None:
    assert one_line(text) == shown
