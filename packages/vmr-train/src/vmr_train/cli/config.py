"""Configurations on the command line: bundled or own YAML, any field as an option, clear errors."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import yaml

from vmr_common.cli.entrypoint import Parser
from vmr_common.errors import UserError, quoted, visible
from vmr_train import run_files
from vmr_train.cli.fields import build, check_values, explain, explain_main, field_of, given_values, merged
from vmr_train.cli.renamed import with_new_names
from vmr_train.cli.yaml_text import parse_yaml, read_yaml

if TYPE_CHECKING:  # it needs torch, which configurations do without
    from vmr_train.checkpoint import Checkpoint

Schema = TypeVar("Schema")
DEFAULT = "shapes"
STORED = "stored configuration"


class Shown(NamedTuple):
    """The part of a configuration that ``--help`` shows; ``--help-config`` shows all.

    Attributes:
        fields: Dotted names.
        stored: Whether the configuration is that of a checkpoint, so that no ``--cfg`` can be given.
    """

    fields: tuple[str, ...]
    stored: bool = False


_LOOP = ("train.device", "train.precision", "train.eval_batch", "train.workers")
WHERE_USED = Shown(_LOOP, stored=True)
WHERE_IMPORTED = Shown(("quirks",))
WHERE_TRAINED = Shown(
    ("name", "train.epochs", "train.global_batch", "optim.lr", "train.seed", "train.select", *_LOOP)
)


@dataclass(frozen=True)
class Parsed(Generic[Schema]):
    """A command line that was understood.

    Attributes:
        config: The validated configuration.
        options: The command's other options by name.
    """

    config: Schema
    options: argparse.Namespace


def make_parser(prog: str, description: str) -> Parser:
    """A parser for the options of a command beside the fields of its configuration.

    Options are not abbreviated: what reads an option before anything is parsed would not see it, and a misspelt key
    would set its neighbour.
    """
    return Parser(prog=prog, description=description)


def is_answered_at_once(argv: Sequence[str]) -> bool:
    """True for a command line that asks for help or the version, whatever else it says."""
    return not {"-h", "--help", "--help-config", "--version"}.isdisjoint(argv)


def bundled_configs(package: str) -> dict[str, str]:
    """The YAML texts that a package ships, by name."""
    found = {Path(file.name).stem: file for file in files(package).joinpath("configs").iterdir()}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found) if name != "__init__"}


def parse(
    parser: argparse.ArgumentParser,
    schema: type[Schema],
    argv: Sequence[str],
    *,
    package: str,
    base: Mapping[str, Any] | None,
    base_name: str = STORED,
    default: str = DEFAULT,
    shown: Shown = WHERE_TRAINED,
) -> Parsed[Schema]:
    """Reads options and configuration.

    Values come from one reader each (`parse_yaml`, or JSON for stored ones) and go to the dataclasses as they are:
    no text is understood twice, and no value names code.

    Args:
        parser: From `make_parser`, with the command's own options added.
        schema: The configuration dataclass; its fields become options.
        argv: The arguments.
        package: Whose bundled configurations ``--cfg`` may name.
        base: A stored configuration to start from instead of ``--cfg`` (None: ``--cfg``, else the default).
        base_name: Where it comes from, for messages.
        default: The bundled configuration that is taken without ``--cfg``.
        shown: What ``--help`` shows.

    Raises:
        UserError: for an unknown key (names the accepted ones), a value of the wrong type or range, a file
            that is missing or no YAML.
    """
    bundled = bundled_configs(package)
    about = f"a YAML file, or one of the bundled: {', '.join(bundled)} (default: {default}); given again, a later one "
    about = argparse.SUPPRESS if shown.stored else about + "changes what it names"
    parser.add_argument("--cfg", action="append", metavar="FILE", help=about)
    parser.add_argument("--print_config", action="store_true", help="print the whole configuration and end")
    parser.add_argument("--help-config", action="help", help="show every field of the configuration, and end")
    if "--help-config" in argv:
        explain(parser, schema, "fields of the configuration")
    elif is_answered_at_once(argv):
        example = None if shown.stored else build(schema, _read(default, bundled, schema), "")
        title = "fields of the configuration (--help-config shows all)"
        explain_main(parser, schema, title, shown.fields, example)
    if base is not None:
        base = _with_new_names(base, schema)
        check_values(base, schema, base_name)
    given, rest = given_values(argv, schema)
    options = parser.parse_args(rest)
    if base is not None and options.cfg:
        raise UserError("--cfg cannot be given here: the checkpoint holds its configuration")
    values: dict[str, Any] = dict(base or {})
    if base is None:
        for name in options.cfg or [default]:
            values = merged(values, _read(name, bundled, schema), schema)
    sources = [f"--cfg {visible(name)}" for name in options.cfg or ()] if base is None else [base_name]
    where = ", ".join(sources + ["command line"] * bool(given))
    to_begin_from = (
        f"; a file of changes comes after a whole one: --cfg {default} --cfg ..." if options.cfg else ""
    )
    config = build(schema, merged(values, given, schema), where and f"{where}: ", to_begin_from)
    if options.print_config:
        sys.stdout.write(to_yaml(config))
        raise SystemExit(0)
    return Parsed(config, options)


def _read(name: str, bundled: Mapping[str, str], schema: type[Any]) -> dict[str, Any]:
    """The values of a configuration file, or of a bundled configuration."""
    where, path = f"--cfg {visible(name)}", Path(name)
    if name in bundled:
        values: Any = parse_yaml(bundled[name], where)
    elif path.suffix in (".yaml", ".yml", ".json") or os.path.exists(name):
        values = read_yaml(path, where)
    else:
        raise UserError(f"{where}: no such file, and not one of the bundled: {', '.join(bundled)}")
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected keys and values, found {quoted(values, 60)}")
    # the file of a run, which an earlier version may have written
    if path.name == run_files.CONFIG and (path.parent / run_files.METRICS).exists():
        values = _with_new_names(values, schema)
    check_values(values, schema, where)
    found: dict[str, Any] = values
    return found


def _with_new_names(values: Mapping[str, Any], schema: type[Any]) -> dict[str, Any]:
    return with_new_names(values, lambda key: field_of(key, schema) is not None)


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
    values = checkpoint.meta["describe"].get("config")
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
