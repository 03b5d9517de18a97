"""Options of the papers' commands, read before torch is loaded: ``--help`` and a wrong option are answered at once."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vmr_common.boundary import reason
from vmr_common.cli import entrypoint
from vmr_common.cli.entrypoint import free_text, option_words
from vmr_common.cli.numbers import seconds, whole
from vmr_common.cli.query_options import add_data_root, add_layout
from vmr_common.errors import UserError
from vmr_common.evaluation import protocol
from vmr_common.splits.load import data_root
from vmr_train import needs
from vmr_train.cli import video_files
from vmr_train.cli.config import (
    DEFAULT,
    STORED,
    WHERE_IMPORTED,
    WHERE_TRAINED,
    WHERE_USED,
    Shown,
    is_answered_at_once,
    make_parser,
    parse,
    stored_values,
)
from vmr_train.cli.requests import option, resumed_config
from vmr_train.config import RunConfig
from vmr_train.first_process import said_once
from vmr_train.run_files import PREDICTIONS, find_checkpoint

if TYPE_CHECKING:
    from vmr_train.checkpoint import Checkpoint

Config = TypeVar("Config", bound=RunConfig)


REMEMBERED = "the folder that the checkpoint was trained with, if it is still there, else data"
"""The data root of commands that read a checkpoint, in words."""


def _out_of_memory(error: Exception) -> str | None:
    """The message for an error of missing memory, which torch words in several ways, or None."""
    lacking = (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
    )
    return (
        f"not enough memory ({reason(error)}); smaller sizes of the model or of a batch need less"
        if lacking
        else None
    )


def command(main: Callable[[list[str]], None]) -> Callable[..., int]:
    """Makes a console entry point of a function of an argument list, see `vmr_common.cli.entrypoint.command`."""
    return entrypoint.command(main, _out_of_memory)


def train_command(
    package: str,
    title: str,
    schema: type[Config],
    train: Callable[[Config, Namespace], object],
    default: str = DEFAULT,
) -> Callable[..., int]:
    """Makes the console entry point ``<package>-train`` of the function that trains.

    Args:
        package: The paper's package.
        title: The paper's.
        schema: The configuration dataclass; its fields become options.
        train: Takes the configuration and the other options.
        default: The bundled configuration that is taken without ``--cfg``.
    """

    def read(argv: list[str]) -> tuple[Config, Namespace]:
        return read_train_options(train_parser(package, title), schema, argv, package, default)

    return entrypoint.command(train, _out_of_memory, read)


def train_options(package: str, **given: Any) -> Namespace:
    """The options of a training that is called from Python: the command's, and `argv` is None (nothing is printed)."""
    options = train_parser(package, "").parse_args([])
    vars(options).update(given)
    options.root, options.argv = data_root(options.data_root), None
    return options


def dispatch(prog: str, commands: Mapping[str, Callable[..., int]], argv: Sequence[str] | None = None) -> int:
    """Runs the command that is named first, and returns its exit status; 2 with a line on the usage if there is none.

    ``--help`` prints that line and is 0.

    Args:
        prog: What was typed before the name, such as ``python -m rgn``.
        commands: Entry points by name, as `command` makes them.
        argv: The name and the command's arguments (None means the process's own).
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    usage = f"usage: {prog} {{{','.join(commands)}}} ...\n"
    if name in ("-h", "--help"):
        sys.stdout.write(usage)
        return 0
    if name not in commands:
        sys.stderr.write(usage)
        return entrypoint.EXIT_USER
    return commands[name](rest)


def train_parser(package: str, title: str) -> ArgumentParser:
    """The parser of ``<package>-train``."""
    parser = _parser(package, "train", f"{title}: train, evaluate and report. Every field is an option.")
    add = parser.add_argument
    add("--runs", type=str, default="runs", help="folder of all run folders")
    add("--resume", action="store_true", help="continue the run from its last checkpoint")
    add("--overwrite", action="store_true", help="replace an earlier run of this name, once all is done")
    add_other_features(parser)
    add(
        "--check",
        action="store_true",
        help="list the files that the configuration needs, and end; 2 if one lacks",
    )
    return parser


def evaluate_parser(package: str, title: str) -> ArgumentParser:
    """The parser of ``<package>-eval``."""
    parser = _parser(package, "eval", f"{title}: score a checkpoint on a split.")
    _add_checkpoint(parser)
    add = parser.add_argument
    about = "test, validation or train of the run, or a registered split"
    add("--split", type=str, default="test", help=about)
    add("--annotations", type=str, default=None, help="an annotation file instead of a split")
    add_layout(parser)
    add("--out", type=str, default=None, help="write the predictions here (JSON lines)")
    add("--json", action="store_true", help="print the scores as JSON")
    return parser


def predict_parser(package: str, title: str) -> ArgumentParser:
    """The parser of ``<package>-predict``."""
    parser = _parser(package, "predict", f"{title}: find moments for a sentence.")
    _add_checkpoint(parser)
    add = parser.add_argument
    add("--video", type=free_text, default=None, help="video id, as in the feature files")
    about = "the sentence; several times for several"
    add("--query", type=free_text, action="append", default=None, help=about)
    add("--duration", type=seconds, default=None, help="length of the video in seconds")
    about = "an annotation file with many queries instead, or with --video-file a .txt of a sentence a line"
    add("--queries", type=str, default=None, help=about)
    add("-k", type=whole(1), default=5, help="moments per query")
    add("--json", action="store_true", help=f"print JSON lines, as in {PREDICTIONS}")
    video_files.add_options(parser)
    return parser


def import_parser(package: str, title: str) -> ArgumentParser:
    """The parser of ``<package>-import``."""
    about = f"{title}: turn the authors' weights into a checkpoint that eval and predict take."
    parser = _parser(package, "import", about)
    parser.add_argument("--weights", type=str, required=True, help="PyTorch, safetensors or npz file")
    parser.add_argument("--out", type=str, required=True, help="the checkpoint to write")
    return parser


def add_word_list(parser: ArgumentParser) -> None:
    """The option of import commands whose released checkpoints lack their words."""
    about = "the model's words in class order, one per line (class 1 first; a tab ends the word)"
    parser.add_argument("--words", type=str, required=True, help=about)


def _parser(package: str, verb: str, about: str) -> ArgumentParser:
    parser = make_parser(f"{package}-{verb}", about)
    add_data_root(parser, REMEMBERED if verb in ("eval", "predict") else "data")
    return parser


def _add_checkpoint(parser: ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=str, required=True, help="a checkpoint file, or a run folder")
    add_other_features(parser)


def add_other_features(parser: ArgumentParser) -> None:
    """The option of commands in which features and a model meet."""
    about = (
        "go on where features are made in another way than those that the model was trained on, and say so"
    )
    parser.add_argument("--allow-other-features", action="store_true", help=about)


def read_train_options(
    parser: ArgumentParser, schema: type[Config], argv: Sequence[str], package: str, default: str = DEFAULT
) -> tuple[Config, Namespace]:
    """The configuration of a training and the other options; ``--resume`` alone means the run's own configuration.

    The options hold `argv`, the arguments as they were understood. ``--check`` ends here.

    Raises:
        UserError: as `read_config`, and if a file of the configuration is missing.
    """
    argv = [*resumed_config(package, default, argv), *argv]
    config, options = read_config(parser, schema, argv, package, default, shown=WHERE_TRAINED)
    options.argv = argv
    with said_once():
        if options.check:
            needs.check_files(config, options.root)
            raise SystemExit(0)
        needs.require_files(config, options.root)
    return config, options


def read_config(
    parser: ArgumentParser,
    schema: type[Config],
    argv: Sequence[str],
    package: str,
    default: str = DEFAULT,
    checkpoint: Checkpoint | None = None,
    shown: Shown = WHERE_IMPORTED,
) -> tuple[Config, Namespace]:
    """The configuration and the other options; with a checkpoint its configuration is where fields start.

    The options hold `root`, the folder of the data sets.

    Args:
        parser: One of this module.
        schema: The configuration dataclass; its fields become options.
        argv: The arguments.
        package: The paper's package.
        default: The bundled configuration that is taken without ``--cfg``.
        checkpoint: Holds the configuration to start from.
        shown: What ``--help`` shows of the configuration.

    Raises:
        UserError: as `vmr_train.cli.config.parse`, and for protocols that do not exist.
    """
    base = None if checkpoint is None else stored_values(checkpoint)
    where = STORED if checkpoint is None else f"configuration in {checkpoint.path}"
    with said_once():
        parsed = parse(
            parser,
            schema,
            argv,
            package=package,
            base=base,
            base_name=where,
            default=default,
            shown=shown,
        )
        if not parsed.config.protocols:
            raise UserError("protocols: found none, expected at least one")
        for rules in parsed.config.protocols:
            protocol(rules)
    remembered = None if checkpoint is None else checkpoint.data_root
    parsed.options.root = data_root(parsed.options.data_root, remembered)
    return parsed.config, parsed.options


def read_checkpoint(
    parser: ArgumentParser, schema: type[Config], argv: Sequence[str], package: str, default: str = DEFAULT
) -> tuple[Config, Namespace, Checkpoint]:
    """The checkpoint that ``--checkpoint`` names, its configuration with what the command line changes, the options.

    Raises:
        UserError: as `load_checkpoint` and `read_config`.
    """
    path, checkpoint = option(argv, "--checkpoint", ""), None
    if path and not is_answered_at_once(argv):
        with said_once():
            file = find_checkpoint(path)
            from vmr_train.checkpoint import load_checkpoint  # imports torch

            checkpoint = load_checkpoint(file, package=package)
    config, options = read_config(parser, schema, argv, package, default, checkpoint, WHERE_USED)
    if checkpoint is None:
        raise UserError("--checkpoint needs a checkpoint file or a run folder")
    with said_once():
        if "video_file" in options:
            video_files.check(package, options)
        needs.require_requested(config, options)
    return config, options, checkpoint


def with_same_data(checkpoint: str | Path, options: Namespace) -> list[str]:
    """The arguments with which another command finds the same weights and data."""
    root = [] if options.data_root is None else option_words("--data-root", options.data_root)
    return [*option_words("--checkpoint", str(checkpoint)), *root]
