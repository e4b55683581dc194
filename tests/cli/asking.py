"""Commands that ask on a terminal, and what they do with the answer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

QUESTION = b"[y/N]"
_PATIENCE = 20.0


def asked(
    command: Sequence[str],
    env: Mapping[str, str],
    reply: bytes | signal.Signals,
    *,
    first: Callable[[], object] = lambda: None,
) -> tuple[int, str, str]:
    """Exit code, stdout, and what a terminal shows, on which `reply` is typed, or sent, when it asks.

    `first` is called before that. Who does not end is killed.
    """
    ours, theirs = os.openpty()
    process = subprocess.Popen(command, env=dict(env), stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    killer = threading.Timer(_PATIENCE, process.kill)
    killer.start()
    shown = b""
    replied = False
    # Linux ends a terminal that all have left with an error.
    with contextlib.suppress(OSError):
        while data := os.read(ours, 65_536):
            shown += data
            if QUESTION in shown and not replied:
                replied = True
                first()
                if isinstance(reply, bytes):
                    os.write(ours, reply)
                else:
                    _wait_until_it_waits(process)
                    process.send_signal(reply)
    stdout, _ = process.communicate()
    killer.cancel()
    os.close(ours)
    return process.returncode, stdout.decode(), shown.decode()


def _wait_until_it_waits(process: subprocess.Popen[bytes]) -> None:
    """Python looks at a signal that comes just before a read only when the read has ended."""
    state = ["ps", "-o", "stat=", "-p", str(process.pid)]
    while not subprocess.run(state, capture_output=True, check=True).stdout.startswith(b"S"):
        pass
