"""Seconds from one feature row to the next: stated by the files or the configuration, or told by rows and durations."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence

from rgnet.config import Config
from vmr_common.errors import UserError
from vmr_common.features.sameness import GOES_ON
from vmr_common.features.stride import durations_of, stride_of
from vmr_common.types import Query
from vmr_train import distributed
from vmr_train.feature_files import VideoStore

logger = logging.getLogger(__name__)
_ROUNDED = 0.01  # 0.535 in the released code for frames 16/30 s apart


def log(line: str) -> None:
    """Logs a warning, on one process."""
    if distributed.rank() == 0:
        logger.warning("%s", line)


def with_stride(
    config: Config,
    store: VideoStore,
    queries: Sequence[Query],
    *,
    allow: bool = False,
    warn: Callable[[str], object] = log,
) -> Config:
    """The configuration with the seconds of a row in `data.feature_stride`, for all that comes after.

    They are the configured ones, from which the manifest of the features may differ by rounding (a hundredth) alone;
    else those of the manifest, else what rows against durations tell. Where they are not stated anywhere, or videos
    disagree with them, that is said.

    Args:
        config: Of a run; `data.feature_stride` may be null.
        store: The features.
        queries: Know the durations of their videos.
        allow: Take what the manifest states where the configuration contradicts it (``--allow-other-features``).
        warn: Takes the lines.

    Raises:
        UserError: if manifest and configuration contradict each other, naming both, or nothing tells the stride.
    """
    configured, stated = config.data.feature_stride, getattr(store.manifest, "stride_s", None)
    rounded = (
        configured is not None and stated is not None and math.isclose(configured, stated, rel_tol=_ROUNDED)
    )
    if configured is not None and stated is not None and not (rounded or allow):
        raise UserError(
            f"{store.name}: the manifest says {stated:g} s from row to row (stride_s), data.feature_stride is "
            f"{configured:g} (null takes the manifest's; {GOES_ON} with it)"
        )
    found = stride_of(store, durations_of(queries), configured if stated is None else None)
    if found.seconds is None:
        raise UserError(
            f"{store.name}: nothing tells how many seconds a row stands for (no manifest, and {found.videos:,} videos "
            "do not agree on it); say it with data.feature_stride"
        )
    seconds = configured if rounded and configured is not None else found.seconds
    if not math.isclose(seconds, found.seconds, rel_tol=1e-3):
        warn(f"{store.name}: {found}; data.feature_stride {seconds:g} is taken")
    if found.known_by == "rows":
        warn(f"{store.name}: {found}; data.feature_stride or a manifest states it")
    if (disagreement := found.disagreement()) is not None:
        warn(f"{store.name}: {found}; {disagreement}")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, feature_stride=seconds))
