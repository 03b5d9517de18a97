"""YAML with one meaning: the plain part of it, which every reader understands alike, within bounds."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from vmr_common.boundary import boundary, open_bytes
from vmr_common.errors import UserError, quoted

SIZE = 1 << 18
"""Bytes of a YAML file at the most; a complete configuration has some thousand."""

NODES = 20_000
"""Keys and values of a YAML text at the most, those counted again that an alias repeats."""

DEPTH = 50
"""Levels of nesting at the most."""

DIGITS = 40
"""Characters of a number at the most."""

_PREFIX = "tag:yaml.org,2002:"
_FORMS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"(?i:true|false|yes|no|on|off)", list("tTfFyYnNoO")),
    # a leading zero means base 8 to one reader and nothing to another, a colon base 60: both stay text
    "int": (r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)", list("-+0123456789")),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9_]+(?:[eE][-+]?[0-9]+)?"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    "merge": (r"<<", ["<"]),
}


class _RefusedError(UserError):
    """YAML that is understood and not taken; the message begins with the line."""


class _Loader(yaml.SafeLoader):
    """The safe loader without dates, tags and numbers to base 8 and 60, with each key once, and with bounds."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the form that PyYAML asks for

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}  # nodes that are complete, with all that they hold

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        # before the scanner looks ahead, which takes the square of the levels
        if self.flow_level >= DEPTH:
            raise _refusal(self.get_mark(), f"more than {DEPTH} levels of nesting")
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise _refusal(event.start_mark, f"the tag {quoted(event.tag, 60)}, expected plain values")
        self._depth += 1
        if self._depth > DEPTH:
            raise _refusal(event.start_mark, f"more than {DEPTH} levels of nesting")
        node = super().compose_node(parent, index)
        assert node is not None
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent) and node not in self._sizes:
            raise _refusal(
                event.start_mark, f"the alias {quoted(event.anchor, 60)} stands inside what it repeats"
            )
        self._measure(node, event)
        return node

    def _measure(self, node: yaml.Node, event: yaml.Event) -> None:
        if node in self._sizes:
            return
        if isinstance(node, yaml.MappingNode):
            _require_keys(node)
            held = [part for pair in node.value for part in pair]
        else:
            held = node.value if isinstance(node, yaml.SequenceNode) else []
        self._sizes[node] = 1 + sum(self._sizes[part] for part in held)
        if max(self._sizes[node], len(self._sizes)) > NODES:
            raise _refusal(event.start_mark, f"more than {NODES:,} keys and values")

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = _number(node).replace("_", "")
        return int(text, 16 if "x" in text else 10)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value = float(_number(node).replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(value):
            raise _refusal(node.start_mark, f"the number {node.value}, expected a finite one")
        return value


def _number(node: yaml.ScalarNode) -> str:
    if len(node.value) > DIGITS:
        raise _refusal(node.start_mark, f"a number of {len(node.value):,} characters")
    return str(node.value).lower()


def _require_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag not in (_PREFIX + "str", _PREFIX + "merge"):
            found = quoted(key.value, 60) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise _refusal(
                key.start_mark,
                f"the key {found}, expected text (in quotes where it reads as a number or truth)",
            )
        if key.value in seen:
            raise _refusal(key.start_mark, f"the key {quoted(key.value, 60)} twice in one mapping")
        seen.add(key.value)


def _refusal(mark: Any, found: str) -> _RefusedError:
    return _RefusedError(f"line {mark.line + 1}: found {found}")


for _kind, (_form, _first) in _FORMS.items():
    _Loader.add_implicit_resolver(_PREFIX + _kind, re.compile(f"(?:{_form})$"), _first)
_Loader.add_constructor(_PREFIX + "int", _Loader.construct_yaml_int)
_Loader.add_constructor(_PREFIX + "float", _Loader.construct_yaml_float)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text of one document: mappings with text keys, lists, text, numbers, true, false and null.

    Dates and times are text. Anchors, aliases and merges work.

    Args:
        text: Of any origin.
        where: Begins the message.

    Raises:
        UserError: if it is not YAML, or holds a key twice or one that is not text, a tag, a number that is not finite
            or endless, an alias inside itself, more than `NODES` values or more than `DEPTH` levels; names the line.

    Example:
        >>> parse_yaml("{lr: 1e-4, name: 2024-02-30, sizes: [1, 0x10]}", "mine.yaml")
        {'lr': 0.0001, 'name': '2024-02-30', 'sizes': [1, 16]}
    """
    if len(text) > SIZE:
        raise UserError(f"{where}: found {len(text):,} characters of YAML, expected at most {SIZE:,}")
    try:
        with boundary(f"{where}: not YAML"):
            return yaml.load(text, _Loader)
    except _RefusedError as error:
        raise UserError(f"{where}: {error}") from None


def read_yaml(path: Path, where: str) -> Any:
    """The value of a YAML file (see `parse_yaml`).

    Raises:
        UserError: if it cannot be read, has more than `SIZE` bytes or is not UTF-8, or as `parse_yaml`.
    """
    with open_bytes(path) as file, boundary(f"cannot read {path}"):
        data = file.read(SIZE + 1)
    if len(data) > SIZE:
        raise UserError(f"{where}: found more than {SIZE:,} bytes of YAML, expected at most so many")
    with boundary(f"{where}: not UTF-8 text"):
        text = data.decode("utf-8-sig")
    return parse_yaml(text, where)
