"""Builds the zip of Lambda functions: your modules, oms-events, and what it needs for AWS.

    python examples/lambda_package.py examples/triggers/orchestrator.py --output orchestrator.zip --python 3.13

The zip is the same, byte for byte, for the same versions. `--local` builds for the Python that runs this, which is
what the embedded emulator takes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ROOT = Path(__file__).parents[1]

KEPT_SERVICES = {"dynamodb", "events", "sqs", "ssm", "sts", "sso", "sso-oidc"}
"""Of the 400 services that botocore describes; Lambda takes 250 MB unzipped, and starts faster with less."""

EPOCH = (1980, 1, 1, 0, 0, 0)


def build(
    output: Path,
    modules: Sequence[Path],
    *,
    python: str | None,
    machine: str = "x86_64",
    requirement: str | None = None,
) -> Path:
    """Writes the zip; `python` is Lambda's version, None the one that runs this."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        install(target, requirement or f"{ROOT}[aws]", python=python, machine=machine)
        with ZipFile(output, "w", ZIP_DEFLATED, compresslevel=6) as archive:
            for path in sorted(wanted(target)):
                add(archive, path.relative_to(target).as_posix(), path.read_bytes())
            for module in modules:
                add(archive, module.name, module.read_bytes())
    return output


def install(target: Path, requirement: str, *, python: str | None, machine: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--target", str(target), "--constraint", str(ROOT / "constraints.txt")]
    if python is not None:
        # Wheels for Amazon Linux 2023, whatever this machine is.
        command += ["--python-version", python, "--implementation", "cp", "--only-binary", ":all:"]
        command += ["--platform", f"manylinux2014_{machine}", "--platform", f"manylinux_2_28_{machine}"]
    subprocess.run([*command, requirement], check=True)


def wanted(target: Path) -> Iterator[Path]:
    for path in target.rglob("*"):
        folders = path.relative_to(target).parts[:-1]
        is_described = len(folders) > 2 and folders[:2] == ("botocore", "data")
        if path.is_dir() or "__pycache__" in folders or folders[:1] == ("bin",):
            continue
        if not is_described or folders[2] in KEPT_SERVICES:
            yield path


def add(archive: ZipFile, name: str, content: bytes) -> None:
    entry = ZipInfo(name, EPOCH)
    entry.compress_type = ZIP_DEFLATED
    # Readable for all: Lambda runs as a user of its own.
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("modules", nargs="+", type=Path, help="what the functions import, and themselves")
    parser.add_argument("--output", type=Path, default=Path("handlers.zip"))
    parser.add_argument("--python", default="3.13", help="Lambda's Python version")
    parser.add_argument("--machine", default="x86_64", choices=("x86_64", "aarch64"))
    parser.add_argument("--local", action="store_true", help="for the Python and machine that run this")
    parser.add_argument(
        "--requirement", help="another oms-events than this checkout, such as 'oms-events[aws]==0.1.0'"
    )
    options = parser.parse_args()
    python = None if options.local else options.python
    path = build(
        options.output,
        options.modules,
        python=python,
        machine=options.machine,
        requirement=options.requirement,
    )
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
