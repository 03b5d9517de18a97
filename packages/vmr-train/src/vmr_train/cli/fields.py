"""The fields of a configuration: values for them from any source, instances from values, and their explanations."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import json
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from vmr_common.errors import UserError, quoted, shortened, visible
from vmr_common.schema import conform, in_words
from vmr_train.cli.renamed import new_name
from vmr_train.cli.yaml_text import DEPTH, DIGITS, NODES, parse_yaml
from vmr_train.ranges import types_of

Schema = TypeVar("Schema")


def check_values(values: object, schema: type[Any], where: str, prefix: str = "") -> None:
    """Refuses what no field can hold: keys that the schema lacks, values of another type, text that nobody can see.

    Ranges are for the schema to check, and keys that are missing may come from elsewhere.

    Args:
        values: From YAML, JSON, or an option.
        schema: The configuration dataclass, or the one of a section.
        where: Begins the message.
        prefix: Of the section, ending in a dot.

    Raises:
        UserError: naming the key, and what is accepted.
    """
    if not prefix:
        _require_plain(values, where)
    if not isinstance(values, dict):
        raise UserError(
            f"{where}: {prefix[:-1] or 'a configuration'} must hold keys and values, found {quoted(values, 60)}"
        )
    hints = types_of(schema)
    for key, value in values.items():
        if key not in hints:
            renamed = new_name(f"{prefix}{key}", lambda name: name.removeprefix(prefix) in hints)
            if renamed is not None:
                raise UserError(f"{where}: {prefix}{key} is now called {renamed}")
            name = shortened(visible(str(key)), 60)
            near = difflib.get_close_matches(name, hints, n=1)
            guess = f" (did you mean {prefix}{near[0]}?)" if near else ""
            accepted = ", ".join(prefix + name for name in hints)
            raise UserError(f"{where}: unknown key {prefix}{name}{guess}; accepted: {accepted}")
        section = section_of(hints[key])
        if section is None:
            conform(value, hints[key], f"{where}: {prefix}{key}")
        elif value is not None or type(None) not in get_args(hints[key]):
            check_values(value, section, where, f"{prefix}{key}.")


def _require_plain(values: object, where: str) -> None:
    """Raises `UserError` for values that are too many, too deep or too large, and for text with control characters."""
    left: list[tuple[object, int]] = [(values, 1)]
    count = 0
    while left:
        item, depth = left.pop()
        count += 1
        if depth > DEPTH or count > NODES:
            raise UserError(
                f"{where}: more than {DEPTH} levels or {NODES:,} values, which no configuration has"
            )
        if isinstance(item, dict):
            left += ((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, list):
            left += ((part, depth + 1) for part in item)
        elif isinstance(item, str):
            if visible(item) != item:
                raise UserError(f"{where}: found control characters in {quoted(item, 60)}")
        elif isinstance(item, int | float) and not abs(item) < 10**DIGITS:
            raise UserError(f"{where}: found a number that is not finite or has more than {DIGITS} digits")


def section_of(hint: Any) -> type[Any] | None:
    """The dataclass that a field holds, if it holds one."""
    return next(
        (kind for kind in _options(hint) if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None
    )


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def build(schema: type[Schema], values: Mapping[str, Any], where: str, advice: str = "") -> Schema:
    """A configuration from values that passed `check_values`; fields without one get their default.

    Raises:
        UserError: for fields that need a value and have none, and for values outside their range.
    """
    missing = list(_missing(schema, values, ""))
    if missing:
        raise UserError(f"{where}required and not given: {', '.join(missing)}{advice}")
    try:
        return _instance(schema, values)
    except UserError as error:
        raise UserError(f"{where}{error}") from None


def _missing(schema: type[Any], values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    hints = types_of(schema)
    for field in dataclasses.fields(schema):
        section, value = section_of(hints[field.name]), values.get(field.name)
        needed = field.default is field.default_factory is dataclasses.MISSING
        if section is not None and (value is not None or needed):
            below = list(_missing(section, value or {}, f"{prefix}{field.name}."))
            yield from below if below or field.name in values else [prefix + field.name]
        elif needed and field.name not in values:
            yield prefix + field.name


def _instance(schema: type[Schema], values: Mapping[str, Any]) -> Schema:
    hints = types_of(schema)
    return schema(**{name: _native(value, hints[name]) for name, value in values.items()})


def _native(value: Any, hint: Any) -> Any:
    """A value as its field's type has it: sections are instances, whole numbers of a float field floats."""
    section = section_of(hint)
    if section is not None and value is not None:
        return _instance(section, value)
    kinds = _options(hint)
    if type(value) is int and float in kinds and int not in kinds:
        return float(value)
    if isinstance(value, dict) and get_origin(hint) is dict:
        return {key: _native(item, get_args(hint)[1]) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) and get_origin(hint) is tuple else value


def merged(below: Mapping[str, Any], above: Mapping[str, Any], schema: type[Any]) -> dict[str, Any]:
    """Values of two sources for a schema, section by section; where both have one, that of `above`."""
    hints = types_of(schema)
    result = dict(below)
    for key, value in above.items():
        section, known = section_of(hints[key]), result.get(key)
        both = section is not None and isinstance(known, dict) and isinstance(value, dict)
        result[key] = merged(known, value, section) if both and known and section else value
    return result


def field_of(name: str, schema: type[Any]) -> tuple[list[str], Any] | None:
    """The keys that lead to a field or section and its type, by dotted name; None where there is none."""
    first, dot, rest = name.partition(".")
    hint = types_of(schema).get(first)
    if hint is None or not dot:
        return None if hint is None else ([first], hint)
    section = section_of(hint)
    found = None if section is None else field_of(rest, section)
    return None if found is None else ([first, *found[0]], found[1])


def given_values(argv: Sequence[str], schema: type[Any]) -> tuple[dict[str, Any], list[str]]:
    """The values that an argument list gives to fields (``--optim.lr 1e-4``), and the other arguments.

    A value is YAML, except that of a text field, which is the text itself (``null`` and lists where the field may
    hold them).

    Raises:
        UserError: for an option without its value, or with one that its field cannot hold.
    """
    values: dict[str, Any] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, text = word.removeprefix("--").partition("=")
        found = field_of(name, schema) if word.startswith("--") else None
        if found is None:
            renamed = new_name(name, lambda key: field_of(key, schema) is not None)
            if word.startswith("--") and renamed is not None:
                raise UserError(f"command line: --{name} is now called --{renamed}")
            if word.startswith("--") and name.partition(".")[0] in types_of(schema):
                # its message names the keys that there are
                check_values(_nested(name.split("."), None), schema, f"command line: --{name}")
            rest.append(word)
            continue
        if not equals:
            text = next(words, "--")
            if text.startswith("--"):
                raise UserError(f"argument --{name}: expected one argument")
        path, hint = found
        nested = _nested(path, _read(text, hint, f"--{name}"))
        check_values(nested, schema, "command line")
        values = merged(values, nested, schema)
    return values, rest


def _nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def _read(text: str, hint: Any, where: str) -> Any:
    kinds = _options(hint)
    origins = [get_origin(kind) for kind in kinds]
    if text == "null" and type(None) in kinds:
        return None
    if (str in kinds or Literal in origins) and not (list in origins and text.lstrip().startswith("[")):
        return text
    return parse_yaml(text, where)


def explain(parser: argparse.ArgumentParser, schema: type[Any], title: str) -> None:
    """Adds every field to a parser for its help, with the text under the field, its type and its default.

    Args:
        parser: Does not parse with these options; `given_values` takes them before.
        schema: The configuration dataclass; each section of it is a group.
        title: What it is about.
    """
    for section, fields in itertools.groupby(_explained(schema, title), lambda field: field.section):
        group = parser.add_argument_group(section)
        for field in fields:
            _add(group, field.name, f"{field.text} ({in_words(field.hint)}; {field.default})")


def explain_main(
    parser: argparse.ArgumentParser,
    schema: type[Any],
    title: str,
    names: Sequence[str],
    config: object | None,
) -> None:
    """Adds some fields to a parser for its help, as `explain`, with their values in a configuration if there is one."""
    fields = {field.name: field for field in _explained(schema, title)}
    group = parser.add_argument_group(title)
    for name in names:
        notes = [in_words(fields[name].hint)] if get_origin(fields[name].hint) is Literal else []
        if config is not None:
            notes.append(f"default: {functools.reduce(getattr, name.split('.'), config)}")
        _add(group, name, fields[name].text + (f" ({'; '.join(notes)})" if notes else ""))


def _add(group: Any, name: str, about: str) -> None:
    group.add_argument(f"--{name}", metavar=name.rpartition(".")[2].upper(), help=about.replace("%", "%%"))


class _Explained(NamedTuple):
    """A field that is no section, by its dotted name: the title of its section, its type, text and default."""

    section: str
    name: str
    hint: Any
    text: str
    default: str


def _explained(schema: type[Any], title: str, prefix: str = "") -> Iterator[_Explained]:
    texts, hints = _texts_under_fields(schema), types_of(schema, rules=True)
    for field in sorted(
        dataclasses.fields(schema), key=lambda field: section_of(hints[field.name]) is not None
    ):
        name, text, hint = prefix + field.name, texts.get(field.name, ""), hints[field.name]
        section = section_of(hint)
        if section is not None:
            yield from _explained(section, f"{name}: {text}".replace("\n", " "), f"{name}.")
        else:
            yield _Explained(title, name, hint, text, _default_of(field))


def _default_of(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"default: {json.dumps(field.default)}"
    if field.default_factory is not dataclasses.MISSING:
        return f"default: {json.dumps(field.default_factory())}"
    return "required"


def _texts_under_fields(schema: type[Any]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for kind in reversed(schema.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in itertools.pairwise(definition.body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                texts[field.target.id] = inspect.cleandoc(str(text.value.value))
    return texts
