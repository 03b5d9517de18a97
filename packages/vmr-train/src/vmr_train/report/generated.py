"""Frames of generated data sets, and their queries about what training never shows, for reports."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.splits.generated import offered
from vmr_train.report.data import Frames, Pictures

FRAMES = "vmr_common.video_frames"
"""Entry points ``name = function(folder, video)``: frames ``(F, H, W, 3)`` uint8 and their times ``(F,)``, seconds."""
HELD_OUT = "vmr_common.held_out_queries"
"""Entry points ``name = function(folder)``: ids of the queries that describe what training never shows."""


def generated_frames(split: str, data_root: Path) -> Frames | None:
    """Renders the videos of a data set; None where no installed package does.

    Args:
        split: A name such as ``shapes/test``.
        data_root: Holds the data set's folder. What is not there, or another data set, gives no frames.
    """
    name = split.partition("/")[0]
    function = offered(FRAMES, name)
    folder = data_root / name
    if function is None or not folder.is_dir():
        return None

    def frames(video: str) -> tuple[Pictures, NDArray[np.float64]] | None:
        try:
            found: tuple[Pictures, NDArray[np.float64]] = function(folder, video)
        except UserError:
            return None
        return found

    return frames


def held_out_queries(split: str, data_root: Path) -> Collection[str] | None:
    """Ids of the queries that describe what training never shows; None where no installed package knows them."""
    name = split.partition("/")[0]
    function = offered(HELD_OUT, name)
    return None if function is None else function(data_root / name)
