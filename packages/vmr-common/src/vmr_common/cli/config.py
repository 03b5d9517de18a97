"""Configurations on the command line: bundled or own YAML, any field as an option, clear errors."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings  # type: ignore[attr-defined]

from vmr_common.errors import UserError
from vmr_common.files import read_text

if TYPE_CHECKING:  # it needs torch, which configurations do without
    from vmr_common.training import Checkpoint

Schema = TypeVar("Schema")
DEFAULT = "shapes"
STORED = "stored configuration"


@dataclass(frozen=True)
class Parsed(Generic[Schema]):
    """A command line that was understood.

    Attributes:
        config: The validated configuration.
        options: The command's other options by name.
    """

    config: Schema
    options: Namespace


def make_parser(prog: str, description: str) -> ArgumentParser:
    """A parser whose options come from dataclass fields, each explained by the text under the field.

    Options are not abbreviated: what reads an option before anything is parsed would not see it, and a misspelt key
    would set its neighbour.
    """
    return ArgumentParser(prog=prog, description=description, exit_on_error=False, allow_abbrev=False)


def bundled_configs(package: str) -> dict[str, str]:
    """The YAML texts that a package ships, by name."""
    found = {Path(file.name).stem: file for file in files(package).joinpath("configs").iterdir()}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found) if name != "__init__"}


def parse(
    parser: ArgumentParser,
    schema: type[Schema],
    argv: Sequence[str],
    *,
    package: str,
    base: Mapping[str, Any] | None,
    base_name: str = STORED,
    default: str = DEFAULT,
) -> Parsed[Schema]:
    """Reads options and configuration.

    Args:
        parser: From `make_parser`, with the command's own options added.
        schema: The configuration dataclass; its fields become options.
        argv: The arguments.
        package: Whose bundled configurations ``--cfg`` may name.
        base: A stored configuration to start from instead of ``--cfg`` (None: ``--cfg``, else the default).
        base_name: Where it comes from, for messages.
        default: The bundled configuration that is taken without ``--cfg``.

    Raises:
        UserError: for an unknown key (names the accepted ones), a value of the wrong type or range, a file
            that is missing or no YAML.
    """
    parser.add_argument(
        "--cfg",
        action=ActionConfigFile,
        help=f"a YAML file, or one of the bundled: {', '.join(bundled_configs(package))} (default: {default})",
    )
    own = {action.dest for action in parser._actions}
    # reading the fields' texts from the sources takes a while, and only help shows them
    explained = any(word in ("-h", "--help") or word.startswith("--print_config") for word in argv)
    set_parsing_settings(docstring_parse_attribute_docstrings=explained)
    if any(word.startswith("--print_config") for word in argv):
        for action in parser._actions:  # what is printed is a configuration, so that --cfg takes it
            action.help = argparse.SUPPRESS
    parser.add_class_arguments(schema)
    if base is not None:
        check_keys(base, schema, base_name)
    arguments = _Sources(package, schema, default).resolve(list(argv), base)
    try:
        found = parser.parse_args(arguments)
        instance = parser.instantiate(found)
    except argparse.ArgumentError as error:
        raise UserError(_readable(str(error))) from None
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(_readable(str(error))) from None
    fields = {field.name: instance[field.name] for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    options = Namespace(**{name: instance.get(name) for name in own})
    return Parsed(schema(**fields), options)


def bundled_config(package: str, schema: type[Schema], name: str, *options: str) -> Schema:
    """A configuration that a package ships, with changes as on the command line.

    Raises:
        UserError: as `parse`.
    """
    parser = make_parser(package, "")
    return parse(parser, schema, ["--cfg", name, *options], package=package, base=None).config


def completed_config(
    values: Mapping[str, Any], schema: type[Schema], package: str, where: str = STORED
) -> Schema:
    """A configuration from stored values, with the defaults of fields that they lack.

    Raises:
        UserError: as `parse`, naming `where` the values come from.
    """
    parser = make_parser(package, "")
    return parse(parser, schema, [], package=package, base=values, base_name=where).config


def stored_values(checkpoint: Checkpoint) -> dict[str, Any]:
    """The configuration that a checkpoint was trained with, as it is stored.

    Raises:
        UserError: if there is none.
    """
    describe = checkpoint.meta["describe"]
    values = describe.get("config") if isinstance(describe, dict) else None
    if not isinstance(values, dict):
        raise UserError(f"{checkpoint.path}: holds no configuration")
    return values


def stored_config(checkpoint: Checkpoint, schema: type[Schema], package: str) -> Schema:
    """The configuration that a checkpoint was trained with.

    Raises:
        UserError: if there is none, or it does not fit the schema.
    """
    where = f"configuration in {checkpoint.path}"
    return completed_config(stored_values(checkpoint), schema, package, where)


class _Sources:
    """Turns every ``--cfg`` into checked YAML text."""

    def __init__(self, package: str, schema: type[Any], default: str) -> None:
        self.bundled = bundled_configs(package)
        self.default = default
        self.schema = schema

    def resolve(self, argv: list[str], base: Mapping[str, Any] | None) -> list[str]:
        """The arguments with ``--cfg`` first, given as text."""
        rest: list[str] = []
        names: list[str] = []
        position = 0
        while position < len(argv):
            argument = argv[position]
            if argument == "--cfg":
                if position + 1 == len(argv):
                    raise UserError(f"--cfg needs a YAML file or one of: {', '.join(self.bundled)}")
                names.append(argv[position + 1])
                position += 1
            elif argument.startswith("--cfg="):
                names.append(argument.removeprefix("--cfg="))
            else:
                rest.append(argument)
            position += 1
        if base is not None:
            if names:
                raise UserError("--cfg cannot be given here: the checkpoint holds its configuration")
            texts = [yaml.safe_dump(dict(base), sort_keys=False)]
        else:
            texts = [self._text(name) for name in names or [self.default]]
        return [part for text in texts for part in ("--cfg", text)] + rest

    def _text(self, name: str) -> str:
        path = Path(name)
        if name in self.bundled:
            text = self.bundled[name]
        elif path.suffix in (".yaml", ".yml", ".json") or path.exists():
            text = read_text(path)
        else:
            raise UserError(
                f"--cfg {name}: no such file, and not one of the bundled: {', '.join(self.bundled)}"
            )
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--cfg {name}: not YAML ({_on_one_line(str(error))})") from None
        if not isinstance(values, dict):
            raise UserError(f"--cfg {name}: expected keys and values, found {type(values).__name__}")
        check_keys(values, self.schema, f"--cfg {name}")
        return text


def check_keys(values: Mapping[str, Any], schema: type[Any], where: str, prefix: str = "") -> None:
    """Refuses keys that the schema does not have, at any depth.

    Raises:
        UserError: naming the first unknown key, the nearest known one and all that are accepted; or the key
            that should hold further keys and does not.
    """
    hints = typing.get_type_hints(schema)
    fields = [field.name for field in dataclasses.fields(schema)]
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            guess = f" (did you mean {prefix}{near[0]!s}?)" if near else ""
            accepted = ", ".join(prefix + name for name in fields)
            raise UserError(f"{where}: unknown key {prefix}{key}{guess}; accepted: {accepted}")
        nested = _dataclass_of(hints[key])
        if nested is None or (value is None and type(None) in typing.get_args(hints[key])):
            continue
        if not isinstance(value, dict):
            raise UserError(f"{where}: {prefix}{key} must hold keys and values, found {value!r}")
        check_keys(value, nested, where, f"{prefix}{key}.")


def _dataclass_of(hint: Any) -> type[Any] | None:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)  # type: ignore[return-value]


def _readable(message: str) -> str:
    """A parser's message in the words of the command line."""
    message = re.sub(r'^Parser key "([^"]+)":', r"\1:", message)
    message = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", message)
    return _on_one_line(message.replace("typing.", "").replace("NoneType", "null"))


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def to_yaml(config: Any) -> str:
    """A configuration as YAML, complete and in the order of the schema."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    return {name: _plain(value) for name, value in dataclasses.asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
