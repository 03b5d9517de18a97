"""Installed papers as methods that ground a moment, found by their entry points; none is named here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmr_common.boundary import boundary, open_regular
from vmr_common.errors import UserError, quoted
from vmr_common.features.manifest import Manifest
from vmr_common.io import parse_json
from vmr_common.values import object_of

GROUP = "vmr.methods"
"""Entry points: name of a paper's package -> a `Load`."""
_HEADER = 24 << 20  # bytes before the tensors at most, as checkpoints are written
_KEY = "vmr"
_PLACES = (
    "checkpoints/best.safetensors",
    "checkpoints/last.safetensors",
    "best.safetensors",
    "last.safetensors",
)


class Answer(Protocol):
    """Moments of a sentence in one video, best first: ``(M, 2)`` seconds, ``(M,)`` scores, and its probability."""

    @property
    def moments(self) -> NDArray[np.float64]:
        """``(M, 2)``."""

    @property
    def scores(self) -> NDArray[np.float64]:
        """``(M,)``."""

    @property
    def presence(self) -> float | None:
        """Probability that the video shows the sentence, None where the method does not tell."""


class Method(Protocol):
    """A trained model with its data, as `load` of a paper gives it.

    Attributes:
        package: The paper's package.
        config: Of the training.
        root: The data root.
    """

    package: str
    config: Any
    root: Path

    @property
    def inputs(self) -> Any:
        """Its own data; `inputs.store` holds videos by id."""

    def longest_trained(self) -> float | None:
        """Seconds of the longest video of its training, None where that is not at hand."""

    def predict_many(
        self,
        videos: Sequence[Any],
        sentence: str,
        k: int = 5,
        *,
        durations: Sequence[float | None] | None = None,
        manifest: Manifest | None = None,
    ) -> Sequence[Answer]:
        """The moments of one sentence in each of several videos, by id or as arrays of features."""


class Load(Protocol):
    """The object behind an entry point."""

    def __call__(
        self,
        checkpoint: str | os.PathLike[str],
        *,
        data_root: str | os.PathLike[str] | None = None,
        allow_other_features: bool = False,
        **changes: Any,
    ) -> Method:
        """The model of a checkpoint or a run folder."""


def methods() -> list[str]:
    """The packages of all papers that are installed."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def open_method(
    checkpoint: str | Path,
    *,
    data_root: str | Path | None = None,
    device: str | None = None,
    allow_other_features: bool = False,
) -> Method:
    """The model of a checkpoint or a run folder, of whichever installed paper wrote it.

    Args:
        checkpoint: A checkpoint file, or a run folder.
        data_root: Folder of its data sets; None: the one that it was trained with.
        device: Where it computes; None: as it was trained.
        allow_other_features: Features may be made in another way than those of its training.

    Raises:
        UserError: as `package_of`, if the paper is not installed, or as its own loading.
    """
    name = package_of(checkpoint)
    for point in entry_points(group=GROUP):
        if point.name == name:
            load: Load = point.load()
            changes: dict[str, Any] = {} if device is None else {"train.device": device}
            return load(checkpoint, data_root=data_root, allow_other_features=allow_other_features, **changes)
    raise UserError(
        f"{checkpoint}: a checkpoint of package {quoted(name, 60)}, which is not installed (found: "
        f"{', '.join(methods()) or 'none'})"
    )


def package_of(checkpoint: str | Path) -> str:
    """The package that wrote a checkpoint file, or the best one of a run folder; its tensors are not read.

    Raises:
        UserError: if there is none, it is no safetensors file, or no checkpoint of a paper.
    """
    path = checkpoint_file(checkpoint)
    what = f"{path}: not a whole safetensors file, it may be cut short or something else"
    with boundary(what, path), open_regular(path) as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if length > _HEADER:
            raise UserError(f"{path}: not a safetensors checkpoint")
        text = file.read(length)
        if len(start) < 8 or len(text) < length:
            raise ValueError("the header is not complete")
        header = object_of(parse_json(text, f"{path}: header"), f"{path}: header")
    facts = object_of(header.get("__metadata__", {}), f"{path}: header", "__metadata__")
    if not isinstance(facts.get(_KEY), str):
        raise UserError(f"{path}: safetensors, but no checkpoint of a paper: its metadata lacks {_KEY!r}")
    where = f"{path}: metadata {_KEY!r}"
    package = object_of(parse_json(facts[_KEY], where), where).get("package")
    if not isinstance(package, str):
        raise UserError(f"{where}: key package: found {quoted(package, 60)}, expected the name of a package")
    return package


def checkpoint_file(path: str | Path) -> Path:
    """The file that a path means: itself, or the best (else the last) checkpoint of a run folder.

    Raises:
        UserError: if there is none.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{path}: no such checkpoint file or run folder")
        return path
    # what a finished run has not moved to its place yet comes first
    for place in (folder / name for name in _PLACES for folder in (path / ".ready", path)):
        if place.is_file():
            return place
    raise UserError(f"{path}: this folder holds no checkpoint; expected {_PLACES[0]} or {_PLACES[1]}")
