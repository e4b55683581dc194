"""The financial example as Lambda functions: zipped, deployed with the preset on the emulator, checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOUND = 300.0
"""Seconds: pip builds the zip, and each of four functions starts several times."""


@pytest.mark.nightly
def test_the_functions_do_what_one_process_does() -> None:
    done = subprocess.run(
        [sys.executable, "examples/event_sourcing/deployed.py"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "getAccountSummary answers that row" in done.stdout
    assert done.stdout.endswith(" 0 failed\n")
