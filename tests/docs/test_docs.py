"""The docs say what the code does: generated parts are fresh, code is from examples, links and commands exist."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

import oms_events
from oms_events import EventRouter, MemoryOutbox, MemoryPublisher, OutboxProcessor, errors
from oms_events._config import ConfigModel
from oms_events.cli.app import app
from oms_events.instrumentation import BacklogMeasured
from oms_events.provisioning import PRESETS, QueueSpec, eventbridge_setup, synthesize
from oms_events.routing.operators import OPERATORS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^(?P<before>[^\n]*)\n```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r'\bcode="(\w+)"')

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("generate")


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _blocks(page: Path, language: str) -> Iterator[re.Match[str]]:
    return (block for block in BLOCK.finditer(_read(page)) if block["language"] == language)


# ------------------------------------------------------------------ generated parts


def test_committed_pages_are_what_the_code_generates() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_example_and_a_stale_table_are_replaced(generate: ModuleType) -> None:
    stale = (
        "<!-- example: failover.py#rule -->\n```python\nold = 1\n```\n"
        "<!-- generated: metrics -->\n| old |\n<!-- /generated -->\n"
    )
    fresh = generate.refresh(stale)
    assert "old = 1" not in fresh
    assert "| old |" not in fresh
    assert 'name="orders"' in fresh
    assert "oms_events_published_total" in fresh
    assert generate.refresh(fresh) == fresh


@pytest.mark.parametrize("comment", ["example: nothing.py#a", "example: failover.py#nothing"])
def test_an_example_that_is_not_there_is_an_error(generate: ModuleType, comment: str) -> None:
    with pytest.raises(generate.StaleError, match="nothing"):
        generate.refresh(f"<!-- {comment} -->\n```python\n```\n")


@pytest.mark.parametrize(
    "text",
    [
        "<!-- example: failover.py#rule -->\n<!-- /example -->\n",
        "<!-- example: failover.py#rule -->\n\n```python\nold = 1\n```\n",
        "<!-- generated: metrics -->\n",
        "<!-- /generated -->\n",
    ],
)
def test_a_mark_that_nothing_would_fill_is_an_error(generate: ModuleType, text: str) -> None:
    with pytest.raises(generate.StaleError, match="no code block follows, or no end: <!-- "):
        generate.refresh(text)


def test_an_example_with_nothing_in_it_is_an_error(generate: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("# [start:part]\n\n# [end:part]\n", encoding="utf-8")
    with pytest.raises(generate.StaleError, match=r"empty.py has nothing in its section 'part'"):
        generate.section("empty.py", "part", folder=tmp_path)


def test_an_unknown_table_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(generate.StaleError, match="nothing generates"):
        generate.refresh("<!-- generated: nothing -->\n<!-- /generated -->\n")


class Unexplained(ConfigModel):
    """A model whose field nobody explains."""

    field: int = 1


def test_a_field_that_nobody_explains_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"Unexplained\.field is explained by neither"):
        generate.tables._meaning(Unexplained, "field")


def test_every_explained_field_exists(generate: ModuleType) -> None:
    models = {model.__name__: model for model in _config_models()}
    for name, fields in generate.tables.MEANINGS.items():
        if name != "aliases":
            assert set(fields) <= set(models[name].model_fields), name


def _config_models() -> list[type[ConfigModel]]:
    for module in pkgutil.walk_packages(oms_events.__path__, "oms_events."):
        importlib.import_module(module.name)
    found: list[type[ConfigModel]] = []
    waiting = [ConfigModel]
    while waiting:
        children = waiting.pop().__subclasses__()
        found += children
        waiting += children
    return [model for model in found if model.__module__.startswith("oms_events.")]


def test_every_configuration_model_has_its_table() -> None:
    reference = "".join(_read(page) for page in (DOCS / "reference").glob("*.md"))
    bases = {base for model in _config_models() for base in model.__mro__[1:]}
    missing = [
        model.__name__
        for model in _config_models()
        if model not in bases and f"### {model.__name__}\n" not in reference
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("model", "field", "text"),
    [
        ("TargetSpec", "dead_letter", "ARN or reference or none"),
        ("QueueSpec", "kms_key", "ARN or reference or none"),
        ("ArchiveSpec", "bus", "ARN or reference"),
        ("RuleSpec", "bus", "name or reference"),
        ("StatementSpec", "resources", "list of ARN or reference"),
        ("RuleSpec", "targets", "list of [TargetSpec](provisioning.md#targetspec)"),
        ("TicketEventsPreset", "archive_config", "[ArchiveConfig](preset-ticket-events.md#archiveconfig)"),
        ("Settings", "nats", "[NatsConfig](settings.md#natsconfig) or none"),
    ],
)
def test_types_are_written_as_people_write_them(generate: ModuleType, model: str, field: str, text: str) -> None:
    models = {each.__name__: each for each in _config_models()}
    assert generate.tables._field_type(models[model].model_fields[field]) == text


def test_a_link_to_a_model_without_a_table_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(ValueError, match="no page of the reference has the table of Unexplained"):
        generate.tables._link(Unexplained)


def test_what_a_queue_is_referred_to_with_is_in_its_table(generate: ModuleType) -> None:
    table = generate.tables.config("oms_events.provisioning.QueueSpec")
    assert f"Referred to as `queue:<key>`, with {', '.join(f'`{name}`' for name in QueueSpec.returns)}." in table


@pytest.mark.parametrize("preset", PRESETS)
def test_every_permission_of_a_presets_roles_is_on_the_page(preset: str, generate: ModuleType) -> None:
    page = _read(DOCS / "reference/permissions.md")
    section = page.partition(f"\n## Of the preset `{preset}`\n")[2].partition("\n## ")[0]
    document = synthesize(generate.tables.role_permissions.WHOLE[preset].stack()).document
    for entry in document["Resources"].values():
        for policy in entry["Properties"].get("Policies", ()) if entry["Type"] == "AWS::IAM::Role" else ():
            lines = [line for line in section.splitlines() if f"`{entry['Properties']['RoleName']}`" in line]
            for statement in policy["PolicyDocument"]["Statement"]:
                marked = [f"`{action}`" for action in statement["Action"]]
                assert any(all(action in line for action in marked) for line in lines), statement


def test_every_call_of_deploying_is_on_the_page_of_permissions() -> None:
    folder = Path(oms_events.__file__).parent / "provisioning/deployment"
    source = "".join(_read(path) for path in folder.glob("*.py"))
    calls = set(re.findall(r'\.(?:begin|call|pages)\(\s*"(\w+)"', source))
    # The action for old versions has another name than the call.
    actions = {"ListBucketVersions" if call == "ListObjectVersions" else call for call in calls}
    page = _read(DOCS / "reference/permissions.md").partition("\n## To deploy\n")[2]
    assert "ExecuteChangeSet" in actions
    assert sorted(action for action in actions if f"{action}`" not in page) == []


def test_every_operator_is_in_the_reference() -> None:
    rules = _read(DOCS / "reference/rules.md")
    assert [operator for operator in OPERATORS if f'"{operator}"' not in rules] == []


def test_codes_of_the_reference_are_those_of_the_code() -> None:
    package = Path(oms_events.__file__).parent
    paths = [path for room in ("_nats", "publishers") for path in sorted((package / room).rglob("*.py"))]
    source = "".join(map(_read, paths))
    documented = set(re.findall(r"^\| `(\w+)` \| (?:NATS|EventBridge)", _read(DOCS / "reference/errors.md"), re.M))
    assert set(CODE.findall(source)) - documented == set()
    assert [code for code in sorted(documented) if f'"{code}"' not in source] == []


def _public_names(tables: ModuleType) -> set[tuple[str, str]]:
    """What the reference lists, as (module, name); errors have a table of their own."""
    public = {("oms_events.errors", name) for name in vars(errors)}
    for page in (DOCS / "reference").glob("*.md"):
        for kind, module, names in re.findall(r"<!-- generated: (api|names) ([\w.]+):?(\S*) -->", _read(page)):
            wanted = tables._load(module).__all__ if kind == "api" else names.split(",")
            public |= {(module, name) for name in wanted}
    return public


def _imports_of_examples() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "examples").glob("*.py")):
        # The demo needs more than a service does: it runs processes, to kill them.
        if path.name != "test_multiplatform_router.py":
            for node in ast.walk(ast.parse(_read(path))):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("oms_events"):
                    yield from ((str(node.module), name.name) for name in node.names)


def test_examples_import_public_names_only(generate: ModuleType) -> None:
    assert set(_imports_of_examples()) - _public_names(generate.tables) == set()


def test_examples_import_from_the_package_what_it_exports_of_errors_and_the_outbox() -> None:
    deep = ("oms_events.outbox", "oms_events.errors")
    imported = {name for module, name in _imports_of_examples() if module.startswith(deep)}
    assert imported & set(oms_events.__all__) == set()


def test_every_key_of_a_processors_status_is_in_the_reference() -> None:
    page = _read(DOCS / "reference/outbox.md")
    tables = page.partition("### Status")[2].partition("A processor is")[0]
    documented = re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE)
    processor = OutboxProcessor(MemoryOutbox(), EventRouter({"nats": MemoryPublisher()}))
    backlog = {field.name for field in dataclasses.fields(BacklogMeasured)} - {"in_flight", "buckets"}
    assert sorted(documented) == sorted([*processor.status(), *backlog])


def test_the_lines_of_the_readme_fit_a_terminal() -> None:
    lines = [line for line in _read(ROOT / "README.md").splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > 120] == []


# ------------------------------------------------------------------ code, links, commands


@each_page
def test_code_comes_from_an_example(page: Path) -> None:
    for language in ("python", "toml"):
        for block in _blocks(page, language):
            assert block["before"].startswith("<!-- example: "), f"not from an example:\n{block['text']}"


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", _read(page), flags=re.MULTILINE | re.DOTALL)
    seen: Counter[str] = Counter()
    anchors = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return anchors


@each_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", _read(page), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def test_every_page_is_reached_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = [link.partition("#")[0] for link in LINK.findall(_read(page)) if "://" not in link]
        waiting += [(page.parent / link).resolve() for link in links if link]
    assert [page for page in PAGES if page.resolve() not in {one.resolve() for one in reached}] == []


def _why_no_command(words: list[str]) -> str | None:
    makefile = _read(ROOT / "Makefile")
    extras = tomllib.loads(_read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    match words:
        case ["make", target, *_]:
            return None if re.search(rf"^{target}:", makefile, re.MULTILINE) else "no such target"
        case ["oms-events", *rest]:
            return _why_no_subcommand(rest)
        case ["pip", "install", *rest]:
            wanted = re.findall(r"\[([\w,]+)\]", " ".join(rest))
            unknown = [extra for group in wanted for extra in group.split(",") if extra not in extras]
            return f"no extras {unknown}" if unknown else None
        case ["python" | "python3", "-m", "oms_events.provisioning.eventbridge_setup", *rest]:
            return _unknown_options(rest, eventbridge_setup._parser()._option_string_actions)
        case ["python" | "python3", "-m", module, *_]:
            return None if module in ("venv", "pytest") else "no such module"
        case ["python", file, *_]:
            places = (ROOT / file, ROOT / "examples" / file)
            return None if any(place.is_file() for place in places) else "no such file"
        case ["export" | "." | "source" | "eval" | "cat" | "cd" | "echo", *_]:
            return None
    return "unknown kind of command"


def _why_no_subcommand(words: list[str]) -> str | None:
    command: click.Command = app
    for word in words:
        if not isinstance(command, click.Group) or word.startswith("-"):
            break
        if word not in command.commands:
            return f"{command.name} has no command {word!r}"
        command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
    return _unknown_options(words, known)


def _unknown_options(words: list[str], known: Collection[str]) -> str | None:
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    return f"unknown options {unknown}" if unknown else None


@each_page
def test_shell_blocks_name_commands_that_exist(page: Path) -> None:
    for language in ("sh", "bash", "console", "shell"):
        for block in _blocks(page, language):
            text = block["text"].replace("\\\n", " ")
            for line in filter(None, (line.partition(" #")[0].strip() for line in text.splitlines())):
                if line.startswith("#"):
                    continue
                for part in re.split(r"\s(?:\||&&|;)\s", line.removeprefix("$ ")):
                    words = part.split()
                    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                        del words[0]
                    if words:
                        why = _why_no_command(words)
                        assert why is None, f"{part}: {why}"


@each_page
def test_commands_in_the_text_exist(page: Path) -> None:
    for command in re.findall(r"`((?:oms-events|make|python -m) [^`\n]+)`", _read(page)):
        why = _why_no_command(command.split())
        assert why is None, f"{command}: {why}"


@pytest.mark.parametrize(
    "command",
    [
        "make nothing",
        "oms-events nothing",
        "oms-events status --nothing",
        "pip install x[nothing]",
        "python -m oms_events.provisioning.eventbridge_setup --nothing",
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    assert _why_no_command(command.split()) is not None
