"""Checks that every engine makes of the videos that it is given, and of a search."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted
from vmr_common.timeline import MOST_SECONDS
from vmr_common.values import duration_of, identifier
from vmr_search.engine.moment_index import VideoWindows


def checked_video(one: VideoWindows, size: int, dtype: np.dtype[Any]) -> VideoWindows:
    """The video with vectors of `dtype`, as an engine keeps it.

    Raises:
        UserError: naming the video, if its id is no text, its duration or a window is not possible, or its vectors
            have another shape or are not finite in this type.
    """
    name = f"video {quoted(one.video, 60)}"
    if not isinstance(one.video, str):
        raise UserError(f"{name}: expected text as id")
    identifier(one.video, name, "id")
    duration = one.duration.item() if isinstance(one.duration, np.generic) else one.duration
    duration = duration_of(duration, name)
    windows, vectors = np.asarray(one.windows, dtype=np.float64), np.asarray(one.vectors)
    if windows.ndim != 2 or windows.shape[1] != 2 or not len(windows):
        raise UserError(f"{name}: windows of shape {windows.shape}, expected (W, 2), at least one")
    if vectors.shape != (len(windows), size):
        raise UserError(f"{name}: vectors of shape {vectors.shape}, expected {(len(windows), size)}")
    if (wrong := _impossible(windows)) is not None:
        raise UserError(f"{name}: window {quoted(wrong)}: expected start and end in seconds, in order")
    if vectors.dtype not in (np.float16, np.float32):
        raise UserError(f"{name}: vectors of {vectors.dtype}, expected float16 or float32")
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(vectors, dtype=dtype)
    if not np.isfinite(vectors).all():
        raise UserError(f"{name}: the model's vectors are not finite in {dtype}")
    return dataclasses.replace(one, duration=duration, windows=np.ascontiguousarray(windows), vectors=vectors)


def checked_videos(
    videos: Iterable[VideoWindows],
    size: int,
    dtype: np.dtype[Any],
    *,
    there: Container[object],
    place: Path | str,
) -> Iterator[VideoWindows]:
    """Videos as `checked_video` has them, one after the other.

    Args:
        videos: Those that are given.
        size: Length of a vector.
        dtype: Of the vectors that are kept.
        there: Ids that are taken.
        place: Of the index, for messages.

    Raises:
        UserError: as `checked_video`, or for an id that is taken or given twice.
    """
    given: set[str] = set()
    for one in videos:
        checked = checked_video(one, size, dtype)
        if one.video in given or one.video in there:
            raise UserError(f"{place}: holds video {quoted(one.video)} already, or it is given twice")
        given.add(one.video)
        yield checked


def stored_problem(windows: NDArray[np.float64], vectors: NDArray[Any], size: int) -> str | None:
    """The fault of windows ``(W, 2)`` and vectors that a store gives back and no engine was given; None: none."""
    if vectors.shape != (len(windows), size):
        return f"vectors of shape {vectors.shape}, expected {(len(windows), size)}"
    if not np.isfinite(vectors).all():
        return "vectors that are not finite"
    wrong = _impossible(windows)
    return None if wrong is None else f"the window {wrong}, expected start and end in seconds, in order"


def _impossible(windows: NDArray[np.float64]) -> list[float] | None:
    """The first window that no video has."""
    start, end = windows[:, 0], windows[:, 1]
    possible = (start >= 0) & (start <= end) & (end <= MOST_SECONDS)  # false for NaN
    found: list[float] | None = None if possible.all() else windows[np.flatnonzero(~possible)[0]].tolist()
    return found


def require_dtype(dtype: str, place: Path | str) -> None:
    """Raises `UserError` for a type that vectors are not kept in."""
    if dtype not in ("float16", "float32"):
        raise UserError(f"{place}: dtype: found {quoted(dtype)}, expected float16 or float32")


def checked_queries(queries: NDArray[Any], size: int, n: int) -> NDArray[np.float32]:
    """The queries as float32 ``(Q, size)``.

    Raises:
        UserError: if they have another shape or are not finite, or no video is asked for.
    """
    vectors = np.ascontiguousarray(queries, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != size:
        raise UserError(f"queries of shape {vectors.shape}, expected (Q, {size})")
    if not np.isfinite(vectors).all():
        raise UserError("the vector of a sentence is not finite")
    if n < 1:
        raise UserError(f"n: found {quoted(n)}, expected at least 1")
    return vectors
