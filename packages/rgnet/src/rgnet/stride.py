"""Seconds from one feature row to the next: stated by the files or the configuration, or told by rows and durations."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from rgnet.config import Config
from vmr_common.errors import UserError
from vmr_common.features.stride import Stride, durations_of, stride_of
from vmr_common.types import Query
from vmr_train import distributed
from vmr_train.feature_files import VideoStore
from vmr_train.known_features import GOES_ON

logger = logging.getLogger(__name__)


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

    They are those that the manifest of the features states, else the configured ones, else what rows against durations
    tell. Where they are not stated anywhere, or videos disagree with them, that is said.

    Args:
        config: Of a run; `data.feature_stride` may be null.
        store: The features.
        queries: Know the durations of their videos.
        allow: Take what the manifest states where the configuration contradicts it (``--allow-other-features``).
        warn: Takes the lines.

    Raises:
        UserError: if manifest and configuration contradict each other, naming both, or nothing tells the stride.
    """
    configured = config.data.feature_stride
    found = _stride_of(store, queries, configured, allow)
    if found.seconds is None:
        raise UserError(
            f"{store.name}: nothing tells how many seconds a row stands for (no manifest, and {found.videos:,} videos "
            "do not agree on it); say it with data.feature_stride"
        )
    if configured is None and found.known_by == "rows":
        warn(f"{store.name}: {found}; data.feature_stride or a manifest states it")
    if (disagreement := found.disagreement()) is not None:
        warn(f"{store.name}: {found}; {disagreement}")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, feature_stride=found.seconds))


def _stride_of(store: VideoStore, queries: Sequence[Query], configured: float | None, allow: bool) -> Stride:
    stated = getattr(store.manifest, "stride_s", None)
    if allow and stated is not None:
        return stride_of(store, durations_of(queries))
    try:
        return stride_of(store, durations_of(queries), configured)
    except UserError as error:
        raise UserError(
            f"data.feature_stride: {error}; null takes the manifest's; of a trained model {GOES_ON}"
        ) from None
