from __future__ import annotations

import asyncio
import os
import sys
import zipfile
from pathlib import Path

import pytest

from oms_events.devstack import DevstackError
from oms_events.devstack.environments import default_cache_folder, ensure_environment
from tests.devstack.support import alive, children, needs_proc, until

MAKE = """
import asyncio, sys
from pathlib import Path
from oms_events.devstack.environments import ensure_environment
print(asyncio.run(ensure_environment("tool", "1.0", cache_folder=Path(sys.argv[1]),
                                     notify=lambda text: print("notice:", text))))
"""


def make_wheel(folder: Path) -> None:
    """A package that pip can install without a network."""
    info = "tool-1.0.dist-info"
    with zipfile.ZipFile(folder / "tool-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tool/__init__.py", "answer = 42\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tool\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def list_folder(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def run(*command: str, environment: dict[str, str]) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().splitlines()


@needs_proc
async def test_two_processes_at_once_replace_a_broken_one_and_only_one_makes_it(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    broken = cache / f"tool-1.0-{sys.implementation.cache_tag}"
    rest = cache / f"{broken.name}.making-dead"
    for folder in (broken, rest):
        (folder / "bin").mkdir(parents=True)
    (broken / "bin" / "python").symlink_to("/no/such/python")
    make_wheel(tmp_path)
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONSTRAINT": "/no/such/file"}
    command = (sys.executable, "-c", MAKE, str(cache))
    both = await asyncio.gather(run(*command, environment=pip), run(*command, environment=pip))
    pythons = {lines[-1] for lines in both}
    assert pythons == {str(broken / "bin" / "python")}
    assert sorted(len(lines) for lines in both) == [1, 3]
    assert await run(pythons.pop(), "-c", "import tool; print(tool.answer)", environment={}) == ["42"]
    assert not rest.exists()
    assert sorted(path.name for path in list_folder(cache)) == [broken.name, f"{broken.name}.lock"]


@needs_proc
async def test_failed_install_says_what_pip_said_and_cancelling_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    before = children(os.getpid())

    def make() -> asyncio.Task[Path]:
        return asyncio.create_task(ensure_environment("tool", "1.0", cache_folder=tmp_path, notify=lambda _: None))

    cancelled = make()
    await until(lambda: len(children(os.getpid())) > len(before))
    pids = children(os.getpid()) - before
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(DevstackError, match=r"(?s)pip: .*tool==1.0.*No matching distribution"):
        await make()
    assert [path.suffix for path in list_folder(tmp_path)] == [".lock"]


def test_cache_folder_follows_the_users_wish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "oms-events"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = "Library/Caches" if sys.platform == "darwin" else ".cache"
    assert default_cache_folder() == tmp_path / usual / "oms-events"


async def test_cache_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DevstackError, match="XDG_CACHE_HOME"):
        await ensure_environment("tool", "1.0", cache_folder=tmp_path / "file" / "cache")
