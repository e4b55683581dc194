"""Python environments of our own in the user's cache folder, for programs that are no dependencies of ours."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from oms_events.devstack.processes import DevstackError, Process

_log = logging.getLogger("oms_events.devstack")

_INSTALL_TIMEOUT = 600.0
_LOCK_POLL = 0.1


def default_cache_folder() -> Path:
    """The user's cache folder: `$XDG_CACHE_HOME`, else what is usual on the system."""
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured) / "oms-events"
    usual = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path.home() / usual / "oms-events"


def log_notice(text: str) -> None:
    """The notice as a log record, of a level that is seen where logging was never set up."""
    _log.warning("%s", text)


async def ensure_environment(
    package: str, version: str, *, cache_folder: Path, notify: Callable[[str], None] = log_notice
) -> Path:
    """The Python of an environment that has `package` in exactly this version, made when it is missing.

    Several processes may ask at once: one makes it, the others wait. It appears under its name only when it
    is complete. pip runs with the user's own configuration. Cancelling ends pip and leaves a rest that the
    next call removes.
    """
    folder = cache_folder / f"{package}-{version}-{sys.implementation.cache_tag}"
    if _complete(folder, package):
        return _python(folder)
    try:
        await asyncio.to_thread(cache_folder.mkdir, parents=True, exist_ok=True)
        async with _locked(folder.with_name(f"{folder.name}.lock")):
            if not _complete(folder, package):
                notify(f"Installing {package} {version} into {folder} (once, some seconds) ...")
                await _make(folder, package, version)
                notify(f"{package} {version} is installed.")
    except OSError as error:
        raise DevstackError(f"no environment in {cache_folder} (XDG_CACHE_HOME moves it): {error}") from error
    return _python(folder)


async def _make(folder: Path, package: str, version: str) -> None:
    await asyncio.to_thread(_remove_rests, folder)
    half_made = Path(tempfile.mkdtemp(prefix=f"{folder.name}.making-", dir=folder.parent))
    try:
        await _run(Path(sys.executable), "venv", str(half_made))
        await _run(_python(half_made), "pip", "install", "--quiet", f"{package}=={version}")
        if not _complete(half_made, package):
            raise DevstackError(f"pip installed {package} {version}, but its module is missing")
        # Scripts of a moved environment are broken; `python -m` is not, and that is all we use.
        await asyncio.to_thread(half_made.rename, folder)
    finally:
        await asyncio.to_thread(shutil.rmtree, half_made, ignore_errors=True)


async def _run(python: Path, module: str, *arguments: str) -> None:
    # Constraints belong to the user's project; an environment has no user site to install into.
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    environment |= {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    command = (str(python), "-I", "-m", module, *arguments)
    process = Process.spawn(command, name=module, environment=environment, directory=Path.cwd())
    try:
        async with asyncio.timeout(_INSTALL_TIMEOUT):
            code = await process.wait()
    except TimeoutError as error:
        raise process.failure(f"did not end within {_INSTALL_TIMEOUT:g} s") from error
    finally:
        process.kill()
    if code != 0:
        raise process.failure(f"{' '.join(command)} ended with status {code}")


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _complete(folder: Path, package: str) -> bool:
    """Also false when the Python that the environment was made with has gone."""
    return _python(folder).exists() and any(folder.glob(f"lib/python*/site-packages/{package}/__init__.py"))


def _remove_rests(folder: Path) -> None:
    for rest in folder.parent.glob(f"{folder.name}.making-*"):
        shutil.rmtree(rest, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def _locked(file: Path) -> AsyncIterator[None]:
    """One holder on this machine at a time; the system frees the lock when the holder dies."""
    import fcntl  # here, because the pytest plugin is imported on Windows too

    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_POLL)
        yield
    finally:
        os.close(handle)
