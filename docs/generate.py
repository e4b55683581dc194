"""Refreshes what the pages take from the code: reference tables, and code blocks from `examples/`.

    python docs/generate.py           # rewrites the pages
    python docs/generate.py --check   # exit code 1 when a page is stale, and says which

A page has `<!-- generated: NAME ARGUMENT -->` ... `<!-- /generated -->` around what `docs/tables.py` makes, and
`<!-- example: FILE#SECTION -->` before a fenced block that holds a part of a file in `examples/`, between its
lines `# [start:SECTION]` and `# [end:SECTION]`; without a section, all of it. A mark without what belongs to it is
an error.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import tables

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

_GENERATED = re.compile(r"(<!-- generated: ([\w-]+)(?: (\S+))? -->\n).*?(<!-- /generated -->)", re.DOTALL)
_EXAMPLE = re.compile(
    r"(<!-- example: ([\w./-]+)(?:#([\w-]+))? -->\n```(\w+)\n).*?(^```$)", re.DOTALL | re.MULTILINE
)
_ANY = re.compile(r"<!-- /?(?:generated|example)\b[^>]*>")
_MARK = re.compile(r"^[^\S\n]*# \[(?:start|end):[\w-]+\]\n", re.MULTILINE)


class StaleError(Exception):
    """A page names something that is not there."""


def pages() -> Iterator[Path]:
    """The README and every page of the docs."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def section(file: str, name: str | None, *, folder: Path = EXAMPLES) -> str:
    """A section of an example without its marks, at the left margin."""
    path = folder / file
    if not path.is_file():
        raise StaleError(f"there is no example {file}")
    text = path.read_text(encoding="utf-8")
    if name is not None:
        mark = rf"^\s*# \[{{}}:{re.escape(name)}\]\n"
        found = re.search(mark.format("start") + r"(.*?)" + mark.format("end"), text, re.DOTALL | re.MULTILINE)
        if found is None:
            raise StaleError(f"{file} has no section {name!r}")
        text = found[1]
    text = textwrap.dedent(_MARK.sub("", text)).strip("\n")
    if not text:
        raise StaleError(f"{file} has nothing in its section {name!r}")
    return text + "\n"


def refresh(text: str) -> str:
    """The page's text with every example and every generated part as it should be now."""
    if left := _ANY.findall(_EXAMPLE.sub("", _GENERATED.sub("", text))):
        raise StaleError(f"no code block follows, or no end: {', '.join(left)}")

    def generated(match: re.Match[str]) -> str:
        make = tables.TABLES.get(match[2])
        if make is None:
            raise StaleError(f"nothing generates {match[2]!r}; known: {', '.join(sorted(tables.TABLES))}")
        return f"{match[1]}\n{make(match[3] or '').strip()}\n\n{match[4]}"

    def example(match: re.Match[str]) -> str:
        return f"{match[1]}{section(match[2], match[3])}{match[5]}"

    return _EXAMPLE.sub(example, _GENERATED.sub(generated, text))


def main(arguments: list[str]) -> int:
    check = arguments == ["--check"]
    stale = 0
    for page in pages():
        before = page.read_text(encoding="utf-8")
        try:
            after = refresh(before)
        except Exception as error:
            raise SystemExit(f"{page.relative_to(ROOT)}: {error}") from error
        if after != before:
            stale += 1
            sys.stdout.write(f"{page.relative_to(ROOT)} {'is stale' if check else 'rewritten'}\n")
            if not check:
                page.write_text(after, encoding="utf-8")
    if stale and check:
        sys.stdout.write("run: python docs/generate.py\n")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
