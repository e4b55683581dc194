"""Routing rules from one TOML or YAML file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from oms_events.errors import ConfigurationError, MissingExtraError, RuleError
from oms_events.routing.rules import RoutingRule

Format = Literal["toml", "yaml"]

_FORMATS: Mapping[str, Format] = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}


def load_rules(path: str | Path) -> list[RoutingRule]:
    """Reads the rules of a `.toml`, `.yaml` or `.yml` file.

    Blocks on the disk: for start-up, or a thread. Raises as `parse_rules` does, and `RuleError` for a file
    that cannot be read.
    """
    return _rules_of(read_document(path, error_class=RuleError), str(path))


def read_document(path: str | Path, *, error_class: type[ConfigurationError] = ConfigurationError) -> object:
    """What a `.toml`, `.yaml` or `.yml` file holds, as plain values. Blocks on the disk.

    Raises `error_class`, with the path as its subject, for a file that cannot be read or parsed, and
    `MissingExtraError` for YAML without the extra `yaml`.
    """
    path = Path(path)
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise error_class(str(path), (f"unknown kind of file; name it one of {', '.join(_FORMATS)}",))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise error_class(str(path), (f"cannot be read: {error}",)) from error
    return _parsed(text, form, str(path), error_class)


def parse_rules(text: str, format: Format, *, subject: str = "rules") -> list[RoutingRule]:  # noqa: A002
    """Reads rules from text: `[[rules]]` tables in TOML, a `rules:` list in YAML, with a rule's field names.

    Raises `RuleError` with the problems of all rules, and `MissingExtraError` for YAML without the extra
    `yaml`.
    """
    return _rules_of(_parsed(text, format, subject, RuleError), subject)


def read_rules(items: object, *, subject: str = "rules") -> list[RoutingRule]:
    """Makes rules of a list of mappings, such as a part of a larger configuration file.

    Raises `RuleError` with the problems of all rules.
    """
    if not isinstance(items, list):
        raise RuleError(subject, (f"rules is {type(items).__name__}; write a list of rules",))
    rules: list[RoutingRule] = []
    problems: list[str] = []
    first_with: dict[str, int] = {}
    for number, item in enumerate(items, 1):
        if not isinstance(item, Mapping) or not all(isinstance(key, str) for key in item):
            problems.append(f"rule {number}: {item!r} is no rule; write its fields by name")
            continue
        try:
            rule = RoutingRule(**item)
        except RuleError as error:
            problems.extend(f"rule {number} ({error.subject}): {problem}" for problem in error.problems)
            continue
        first = first_with.setdefault(rule.name, number)
        if first != number:
            problems.append(f"rule {number} ({rule.name}): has the name of rule {first}; give it its own name")
        rules.append(rule)
    if problems:
        raise RuleError(subject, problems)
    return rules


def _rules_of(document: object, subject: str) -> list[RoutingRule]:
    if not isinstance(document, Mapping) or list(document) != ["rules"]:
        found = ", ".join(map(repr, document)) if isinstance(document, Mapping) else type(document).__name__
        raise RuleError(subject, (f"holds {found or 'nothing'}; write one list named 'rules'",))
    return read_rules(document["rules"], subject=subject)


def _parsed(text: str, form: Format, subject: str, error_class: type[ConfigurationError]) -> object:
    try:
        return _PARSERS[form](text)
    except RecursionError:
        raise error_class(
            subject, ("has lists or objects in each other without end; make them flatter",)
        ) from None
    except ValueError as error:
        raise error_class(subject, (f"is no {form.upper()}: {error}",)) from error


def _parse_yaml(text: str) -> object:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError("yaml", needed_for="a YAML file") from None

    class Loader(yaml.SafeLoader):
        """Refuses a key that stands twice, of which YAML would keep the last without a word."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) < len(keys):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key stands twice; keep one", node.start_mark
                )
            return super().construct_mapping(node, deep=deep)

    try:
        return yaml.load(text, Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


_PARSERS: Final[Mapping[Format, Callable[[str], object]]] = {"toml": tomllib.loads, "yaml": _parse_yaml}
