"""Trained models from Python: the shared parts of `load`, `train` and `load_config`, which every paper offers.

A paper's `api.py` says how its inputs are opened and what it can show of an answer; everything else is here and in
`model`.
"""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vmr_common.errors import UserError, quoted
from vmr_common.splits.load import data_root as chosen_root
from vmr_train import needs
from vmr_train.answers import Explanation, Html, Moment, Predictions, Rows
from vmr_train.cli.config import bundled_config, completed_config, stored_values, to_dict
from vmr_train.cli.fields import build, check_values, merged
from vmr_train.cli.options import train_options
from vmr_train.config import RunConfig
from vmr_train.given_features import given_features
from vmr_train.known_features import require_known
from vmr_train.model import Model
from vmr_train.run_files import PAGE
from vmr_train.video_files import Making

if TYPE_CHECKING:  # torch takes seconds to load, and configurations do without
    from vmr_common.features.sameness import HasManifest
    from vmr_train.checkpoint import Checkpoint
    from vmr_train.cli.results import Results
    from vmr_train.feature_files import VideoStore

__all__ = [
    "Explanation",
    "Html",
    "Making",
    "Model",
    "Moment",
    "Opened",
    "Predictions",
    "Rows",
    "Run",
    "given_features",
    "load_config",
    "open_checkpoint",
    "train",
]
logger = logging.getLogger(__name__)
Config = TypeVar("Config", bound=RunConfig)


# --- configurations ----------------------------------------------------------------------------------------


def load_config(
    package: str,
    schema: type[Config],
    config: str | os.PathLike[str] | Config,
    changes: Mapping[str, Any] | None,
) -> Config:
    """A configuration: a bundled name, a YAML file, or one at hand, with changes by dotted name.

    Raises:
        UserError: for a file that cannot be read, an unknown key (names the accepted ones) and a value that its field
            cannot hold.
    """
    if isinstance(config, schema):
        known = config
    else:
        known = bundled_config(
            package, schema, _path(config, "config", "a bundled name, a YAML file or a Config")
        )
    values = to_dict(known)
    for name, value in (changes or {}).items():
        *sections, key = name.split(".")
        nested: Any = {key: list(value) if isinstance(value, tuple) else value}
        for section in reversed(sections):
            nested = {section: nested}
        check_values(nested, schema, f"{package}: {name}")
        values = merged(values, nested, schema)
    return build(schema, values, f"{package}: ")


# --- training ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run; where a path is taken, it stands for its folder (``rgn.load(run)``).

    Attributes:
        folder: The run folder, ``runs/<package>/<name>``.
        results: Scores on the test split, as in its ``results.json``.

    Example:
        >>> run = Run(Path("runs/rgn/shapes"), Rows([], "rgn  47.0"))
        >>> run
        runs/rgn/shapes
        rgn  47.0
        >>> run.report, os.fspath(run)
        (PosixPath('runs/rgn/shapes/report.html'), 'runs/rgn/shapes')
    """

    folder: Path
    results: Rows

    @property
    def report(self) -> Path:
        """The page that shows it."""
        return self.folder / PAGE

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"{self.folder}\n{self.results!r}"


def train(
    package: str,
    run: Callable[[Config, Namespace], Results],
    config: Config,
    *,
    data_root: str | os.PathLike[str] | None,
    runs: str | os.PathLike[str],
    **given: bool,
) -> Run:
    """Trains as ``<package>-train`` does, with its options `given`; nothing is printed.

    Raises:
        UserError: if files of the configuration are missing, or as the run.
    """
    root = None if data_root is None else os.fspath(data_root)
    options = train_options(package, data_root=root, runs=os.fspath(runs), **given)
    needs.require_files(config, options.root)
    results = run(config, options)
    return Run(Path(runs) / package / config.name, Rows(results.to_dict(), results.text()))


# --- a trained model ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Opened(Generic[Config]):
    """A checkpoint, its configuration with changes, and the data root.

    Attributes:
        package: The paper's package.
        config: The configuration.
        checkpoint: The checkpoint.
        root: The data root.
        allow_other_features: Features may be made in another way than those of the training.
    """

    package: str
    config: Config
    checkpoint: Checkpoint
    root: Path
    allow_other_features: bool = False
    _said: set[str] = field(default_factory=set)

    def require_known(self, store: VideoStore, **further: HasManifest | None) -> None:
        """Makes sure that features are made as those of the training; what is not known is a warning, once.

        Raises:
            UserError: as `known_features.require_known`.
        """
        described, allow = self.checkpoint.meta["describe"], self.allow_other_features
        require_known(self.config, store, described, allow=allow, warn=self.warn, **further)

    def warn(self, line: str) -> None:
        """Logs a warning that was not given before."""
        if line not in self._said:
            self._said.add(line)
            logger.warning("%s", line)


def open_checkpoint(
    package: str,
    schema: type[Config],
    checkpoint: str | os.PathLike[str],
    data_root: str | os.PathLike[str] | None,
    changes: Mapping[str, Any],
    allow_other_features: bool = False,
) -> Opened[Config]:
    """Reads a checkpoint file, or the best one of a run folder.

    Raises:
        UserError: as `load_checkpoint` and `load_config`.
    """
    from vmr_train.checkpoint import load_checkpoint

    path = _path(
        checkpoint, "checkpoint", "the path of a checkpoint file or of a run folder, or a finished Run"
    )
    found = load_checkpoint(path, package=package)
    stored = completed_config(stored_values(found), schema, package, f"configuration in {found.path}")
    root = chosen_root(None if data_root is None else os.fspath(data_root), found.data_root)
    return Opened(package, load_config(package, schema, stored, changes), found, root, allow_other_features)


def _path(value: Any, what: str, expected: str) -> str:
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{what}: found {quoted(value, 60)}, expected {expected}")
    return os.fspath(value)
