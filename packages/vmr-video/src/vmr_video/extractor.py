"""Extractors, which make rows of features out of frames: their interface, and the table of those that are known."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, one_line, quoted
from vmr_common.features.manifest import BaseManifest
from vmr_video.recipe import FrameRecipe, Sampling

logger = logging.getLogger(__name__)

Frames = NDArray[np.uint8]
Rows = Mapping[str, NDArray[Any]]
"""Arrays by name, of one length T; `features` ``(T, D)`` float32 where there is one array alone."""

FEATURES = "features"
GROUP = "vmr_video.extractors"
"""Entry points through which other packages offer an `ExtractorKind`."""


Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class ExtractorOptions:
    """The settings of an extractor; None leaves a setting to it.

    Attributes:
        weights: A local folder or file, or a name on a hub, of its weights (of Shapes: the folder of the data set).
        fps: Frames per second; of networks on clips of frames, those that are read.
        stride_s: Seconds from one row to the next, of networks on clips of frames.
        sampling: See `FrameRecipe`.
        normalise: Divide every row by its L2 norm.
        device: A torch device; None takes the best one at hand.
        precision: Type in which a network computes.
    """

    weights: str | None = None
    fps: float | None = None
    stride_s: float | None = None
    sampling: Sampling | None = None
    normalise: bool | None = None
    device: str | None = None
    precision: Precision = "fp32"


class Extractor(Protocol):
    """Makes rows of frames."""

    @property
    def recipe(self) -> FrameRecipe:
        """The frames that it sees."""

    @property
    def row_frames(self) -> int:
        """Frames from one row to the next."""

    @property
    def context(self) -> tuple[int, int] | None:
        """Frames that a row sees before and after its own `row_frames`; None: it needs the whole video at once."""

    def __call__(self, frames: Frames, before: int, after: int) -> Rows:
        """The rows of consecutive frames of one video, or of many pictures where a row sees a single one.

        Args:
            frames: ``(before + T * row_frames + after, H, W, 3)`` uint8 RGB.
            before: Frames of context before the first row; fewer than `context` says only where the video begins.
            after: Frames of context after the last row; fewer only where the video ends.
        """

    def manifest(self) -> BaseManifest:
        """The manifest of its rows; `source` is left to who calls."""


Writer = Callable[[Path, Iterable[tuple[str, Rows]], BaseManifest, str], None]
"""Writes a file of features: path, videos with their rows, manifest, type of the stored numbers."""


@dataclass(frozen=True)
class ExtractorKind:
    """An extractor that can be named.

    Attributes:
        name: As in ``--extractor``.
        about: A line for ``--help``.
        load: Makes the extractor, loading its weights.
        like: The options with which it makes features as a manifest says, or None where it made other ones.
        write: Writes a file of its rows; None: `vmr_common.features.write_features`.
    """

    name: str
    about: str
    load: Callable[[ExtractorOptions], Extractor]
    like: Callable[[BaseManifest], ExtractorOptions | None]
    write: Writer | None = None


@cache
def kinds() -> Mapping[str, ExtractorKind]:
    """All known extractors by name: those of this package, then those of others that are installed.

    One of another package that cannot be loaded is left out, and logged.
    """
    found = dict(_own())
    for entry in entry_points(group=GROUP):
        try:
            kind: ExtractorKind = entry.load()
        except Exception as error:  # whatever is wrong with that package, the others go on
            logger.warning(
                "extractor %s (%s) cannot be loaded: %s", entry.name, entry.value, one_line(str(error))
            )
            continue
        found[kind.name] = kind
    return found


def _own() -> Mapping[str, ExtractorKind]:
    from vmr_video.networks import KINDS

    return {kind.name: kind for kind in KINDS}


def row_width(extractor: Extractor) -> int:
    """Columns of the first array of an extractor's rows, which black frames tell."""
    before, after = extractor.context or (0, 0)
    side = extractor.recipe.size
    black = np.zeros((before + extractor.row_frames + after, side, side, 3), np.uint8)
    return int(next(iter(extractor(black, before, after).values())).shape[1])


def precision_of(manifest: BaseManifest) -> Precision:
    """The type in which a manifest says that its network computed; fp32 where it says none that is known."""
    found = getattr(manifest, "precision", None)
    return next((known for known in get_args(Precision) if known == found), "fp32")


def sampling_of(manifest: BaseManifest) -> Sampling | None:
    """The rule by which a manifest says that frames were taken; None where it says none that is known."""
    found = getattr(manifest, "sampling", None)
    return next((known for known in get_args(Sampling) if known == found), None)


def kind_of(name: str) -> ExtractorKind:
    """The extractor of this name.

    Raises:
        UserError: if there is none; names all.
    """
    if name in (own := _own()):  # without loading what other packages bring
        return own[name]
    known = kinds()
    if name not in known:
        raise UserError(f"extractor: found {quoted(name, 60)}, expected one of {', '.join(sorted(known))}")
    return known[name]
