"""How a model package describes itself to the commands that all of them share."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from vmr_common.boundary import reason
from vmr_common.cli.entrypoint import command
from vmr_common.cli.query_options import add_data_root
from vmr_common.errors import UserError
from vmr_common.features.config import VideoStore
from vmr_common.splits.config import SplitsConfig
from vmr_common.types import Prediction, Query
from vmr_train.checkpoint import Checkpoint
from vmr_train.cli.config import DEFAULT, make_parser
from vmr_train.cli.requests import requested_queries
from vmr_train.config import OptimConfig, TrainConfig
from vmr_train.method import Dataset, Method
from vmr_train.report import Curve, FrameOverlay


class DataConfig(Protocol):
    """What the data part of every model's configuration has."""

    @property
    def splits(self) -> SplitsConfig:
        """The queries."""

    @property
    def standardise(self) -> bool:
        """Whether feature columns are standardised."""


class RunConfig(Protocol):
    """What every model's configuration has."""

    @property
    def name(self) -> str:
        """Name of the run folder."""

    @property
    def quirks(self) -> str:
        """`released` or `fixed`."""

    @property
    def protocols(self) -> list[str]:
        """Evaluation protocols, the first one chooses the epoch."""

    @property
    def data(self) -> DataConfig:
        """The data."""

    @property
    def optim(self) -> OptimConfig:
        """The optimiser."""

    @property
    def train(self) -> TrainConfig:
        """The training loop."""


class VideoInputs(Protocol):
    """Features in the form that a model takes, read on first use."""

    @property
    def store(self) -> VideoStore:
        """Where they come from."""

    @property
    def words(self) -> list[Path]:
        """The files of word vectors or query features."""

    def __getitem__(self, video: str) -> Any:
        """The features of one video."""


Config = TypeVar("Config", bound=RunConfig)
Model = TypeVar("Model", bound=Method)
Inputs = TypeVar("Inputs", bound=VideoInputs)


@dataclass(frozen=True, kw_only=True)
class ModelPackage(Generic[Config, Model, Inputs]):
    """A paper's package, as its commands see it.

    Attributes:
        name: Package and command prefix, e.g. ``rgn``.
        title: The method in a few words.
        schema: The configuration dataclass.
        open_inputs: Opens the features of a configuration under a data root.
        create: A new, untrained task for training queries and features.
        restore: The task that a checkpoint describes; its weights are loaded afterwards.
        examples: Queries with features as batches for a task.
        convert: A task from an authors' checkpoint: configuration, weights by released name, the arguments
            that the package's import command adds (see `import_options`), data root.
        import_options: Adds options to the import command that `convert` reads.
        curves: Weights over time that the report draws for some queries, by query id; or None.
        default: The bundled configuration that is taken without ``--cfg``.
        predict_options: Adds options to the predict command that `requested` reads.
        requested: The queries that the predict command is asked for: configuration, its options, features, data root.
        moment_table: How the predict command shows the moments of a query; None: rank, start, end and score.
        explain: Shows why the predict command's moments were found: configuration, task, inputs, predictions with their
            queries, its options, data root; None: there is nothing to show.
        draw: Prepares what is drawn on the frames of some queries in the report: configuration, task, inputs, queries.
        remarks: Lines below the tables of an evaluation, from what the task met while it predicted these queries;
            called on all ranks.
        may_change: Options of its own, of memory and speed alone, that a resumed training may change.
    """

    name: str
    title: str
    schema: type[Config]
    open_inputs: Callable[[Config, Path], Inputs]
    create: Callable[[Config, Sequence[Query], Inputs], Model]
    restore: Callable[[Config, Checkpoint], Model]
    examples: Callable[[Config, Model, Inputs, Sequence[Query]], Dataset]
    convert: Callable[[Config, Mapping[str, Tensor], Any, Path], Model]
    import_options: Callable[[argparse.ArgumentParser], None] | None = None
    curves: Callable[[Config, Model, Inputs, Sequence[Query]], Mapping[str, list[Curve]]] | None = None
    default: str = DEFAULT
    predict_options: Callable[[argparse.ArgumentParser], None] | None = None
    requested: Callable[[Config, Any, Any, Path], list[Query]] = requested_queries
    moment_table: Callable[[Model, Prediction], str] | None = None
    explain: (
        Callable[[Config, Model, Inputs, Sequence[tuple[Query, Prediction]], Any, Path], list[str]] | None
    ) = None
    draw: Callable[[Config, Model, Inputs, Sequence[Query]], FrameOverlay] | None = None
    remarks: Callable[[Config, Model, Sequence[Query]], list[str]] | None = None
    may_change: tuple[str, ...] = ()

    def command(
        self, main: Callable[[ModelPackage[Config, Model, Inputs], list[str]], None]
    ) -> Callable[..., int]:
        """A console entry point that runs one of this module's functions for this package."""

        @command
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> None:
            try:
                main(self, list(sys.argv[1:] if argv is None else argv))
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                raise UserError(
                    f"not enough memory ({reason(error)}); smaller sizes of the model or of a batch need less"
                ) from None

        return run

    def parser(self, verb: str, description: str) -> argparse.ArgumentParser:
        """The parser of a command, with the options that all of them have."""
        parser = make_parser(f"{self.name}-{verb}", f"{self.title}: {description}")
        add_data_root(parser)
        return parser


def _out_of_memory(error: Exception) -> bool:
    """Whether memory was missing, which torch says in several ways on a CPU."""
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
    )


def add_word_list(parser: argparse.ArgumentParser) -> None:
    """The option of import commands whose released checkpoints lack their words (see `Preprocessor.from_released`)."""
    parser.add_argument(
        "--words",
        type=str,
        required=True,
        help="the model's words in class order, one per line (class 1 first; a tab ends the word)",
    )
