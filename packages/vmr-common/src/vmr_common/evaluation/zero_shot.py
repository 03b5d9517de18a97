"""The baseline ``zero-shot``: moments by the similarity of frames and sentence alone, where both share a space."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest, same_extractor
from vmr_common.metrics import nms
from vmr_common.timeline import FloatArray
from vmr_common.types import Prediction, Query

ZERO_SHOT = "zero-shot"
"""Name of the baseline's row in tables."""

LEAST_S = 1.0
"""Seconds of the shortest windows, where a row is not longer."""
_SCENE = 0.1  # part of the variance of similarities that the mean of a window does not average out
_STEP = np.sqrt(2.0)  # from one width to the next
_PER_WIDTH = 8  # windows begin at every eighth of their width
_WIDEST = 0.85  # of the video: what is wider has hardly any surroundings
_OVERLAP = 0.5  # that two moments may have
_LEAST_SPREAD = 1e-9  # of similarities: less is rounding
_KEPT = 5_000  # best windows that compete in the suppression

Vectors = NDArray[np.floating[Any]]
Rows = NDArray[np.int64]


def similarities(frames: Vectors, sentence: Vectors) -> FloatArray:
    """Cosine of every row of `frames` ``(T, D)`` with `sentence` ``(D,)``, ``(T,)``; of rows of length 0 the mean.

    Raises `ValueError` if the widths differ.

    Example:
        >>> similarities(np.eye(3)[[0, 0, 1]], np.array([2.0, 0.0, 0.0])).tolist()
        [1.0, 1.0, 0.0]
    """
    if frames.ndim != 2 or sentence.shape != frames.shape[1:]:
        raise ValueError(f"frames {frames.shape} and a sentence {sentence.shape} share no space")
    lengths = np.linalg.norm(frames, axis=1).astype(np.float64)
    products = np.asarray(frames @ sentence, np.float64)
    seen = lengths > 0
    cosines: FloatArray = (
        products / np.where(seen, lengths, 1.0) / max(float(np.linalg.norm(sentence)), 1e-12)
    )
    if not seen.all():
        cosines[~seen] = cosines[seen].mean() if seen.any() else 0.0
    return cosines


def zero_shot_moments(
    frames: Vectors, sentence: Vectors, stride: float, duration: float, k: int = 5
) -> tuple[FloatArray, FloatArray]:
    """The k moments whose frames are more like the sentence than what lies around them, best first.

    The rule: windows from one second (or row) to 85 % of the video, in steps of a factor of sqrt(2), each with its
    contrast d, the mean similarity inside less that of as many rows on either side; a constant added to all
    similarities, as CLIP has one, is nothing to it. A window of w rows with n around scores
    ``d / (sigma * sqrt(1 / w + 1 / n + 0.1))``, sigma being the deviation of the video's similarities: d in units of
    what it would be by chance if a tenth of their variance were that of whole scenes, which no mean averages out. Then
    greedy suppression at an overlap of 0.5. The numbers come from simulated similarities (benchmarks/zero_shot.py),
    no data set chose them. The ends of those that stay are then moved to where they score best, at most
    by a third of the width. The time it takes is linear in T.

    Args:
        frames: ``(T, D)``, a row per `stride` seconds.
        sentence: ``(D,)`` in the space of the frames.
        stride: Seconds from one row to the next.
        duration: Of the video, seconds; moments are cut to it.
        k: Number of moments at most.

    Returns:
        Moments ``(K, 2)`` in seconds, ``1 <= K <= k``, and scores ``(K,)``; the whole video with score 0 where all
        frames are alike.

    Raises:
        ValueError: if the widths differ, or there is no row.

    Example:
        >>> frames = np.ones((60, 2))
        >>> frames[20:30, 1] = 0
        >>> moments, scores = zero_shot_moments(frames, np.array([1.0, 0.0]), 0.5, 30.0, k=1)
        >>> moments.tolist()
        [[10.0, 15.0]]
    """
    # rows may go on where the annotated duration ends
    shown = max(1, math.ceil(duration / stride - 1e-6))
    found = similarities(frames[:shown], sentence)
    if not len(found):
        raise ValueError("a video without rows has no moments")
    if len(found) < 2 or float(found.std()) < _LEAST_SPREAD:
        return np.array([[0.0, duration]]), np.zeros(1)
    contrast = _Contrast(found)
    rows, scores = contrast.best(_widths(len(found), stride))
    kept = nms(rows.astype(np.float64), _OVERLAP, scores=scores, limit=4 * k + 10)
    rows, scores = contrast.refined(rows[kept])
    moments = np.minimum(rows * stride, duration)
    kept = nms(moments, _OVERLAP, scores=scores, limit=k)
    return moments[kept], scores[kept]


def _widths(count: int, stride: float) -> tuple[int, ...]:
    """Widths of windows in rows: from `LEAST_S` on, or all where the video is that short."""
    most = max(int(_WIDEST * count), 1)
    width, found = float(np.clip(round(LEAST_S / stride), 1, most)), []
    while round(width) <= most:
        found.append(round(width))
        width *= _STEP
    return tuple(dict.fromkeys(found))


@functools.lru_cache(maxsize=2)
def _grid(count: int, widths: tuple[int, ...]) -> tuple[Rows, Rows, FloatArray, FloatArray]:
    """Windows ``(N, 2)`` in rows, what lies around them ``(N, 2)``, and the factors of the sums of both."""
    rows = []
    for wide in widths:
        start = np.arange(0, count - wide + 1, max(1, wide // _PER_WIDTH))
        rows.append(np.stack([start, start + wide], axis=1))
    windows = np.concatenate(rows)
    return windows, *_factors(windows[:, 0], windows[:, 1], count)


def _factors(start: Rows, end: Rows, count: int) -> tuple[Rows, FloatArray, FloatArray]:
    wide = end - start
    surroundings = np.stack([np.maximum(start - wide, 0), np.minimum(end + wide, count)], axis=1)
    around = surroundings[:, 1] - surroundings[:, 0] - wide
    noise = np.sqrt(1 / wide + 1 / around + _SCENE)
    return surroundings, 1 / (wide * noise), 1 / (around * noise)


class _Contrast:
    """The scores of windows over the similarities ``(T,)`` of a video, T at least 2."""

    def __init__(self, values: FloatArray) -> None:
        self.count = len(values)
        # summed around the mean: a large constant would cost digits
        self._sums = np.concatenate([[0.0], np.cumsum((values - values.mean()) / values.std())])

    def of(self, windows: Rows) -> FloatArray:
        """Scores of windows ``(N, 2)``, rows; none may be the whole video."""
        return self._scores(windows, *_factors(windows[:, 0], windows[:, 1], self.count))

    def _scores(
        self, windows: Rows, surroundings: Rows, of_inside: FloatArray, of_around: FloatArray
    ) -> FloatArray:
        sums = self._sums
        inside = sums[windows[:, 1]] - sums[windows[:, 0]]
        outside = sums[surroundings[:, 1]] - sums[surroundings[:, 0]] - inside
        scores: FloatArray = inside * of_inside - outside * of_around
        return scores

    def best(self, widths: tuple[int, ...]) -> tuple[Rows, FloatArray]:
        """The windows of these widths that score best, and their scores."""
        windows, surroundings, of_inside, of_around = _grid(self.count, widths)
        scores = self._scores(windows, surroundings, of_inside, of_around)
        if len(scores) <= _KEPT:
            return windows, scores
        kept = np.sort(np.argpartition(-scores, _KEPT)[:_KEPT])
        return windows[kept], scores[kept]

    def refined(self, rows: Rows) -> tuple[Rows, FloatArray]:
        """For each window the best one whose ends lie within a third of its width of its own, and their scores."""
        found, scores = [], []
        for first, last in rows.tolist():
            reach = max((last - first) // 3, 1)
            shifts = np.arange(-reach, reach + 1, max(reach // _PER_WIDTH, 1))
            start, end = (grid.ravel() for grid in np.meshgrid(first + shifts, last + shifts))
            fits = (start >= 0) & (end <= self.count) & (start < end) & (end - start < self.count)
            windows = np.stack([np.append(start[fits], first), np.append(end[fits], last)], axis=1)
            values = self.of(windows)
            best = int(values.argmax())
            found.append(windows[best])
            scores.append(values[best])
        return np.stack(found), np.array(scores)


def share_space(
    frames: Manifest | None, sentences: Manifest | None, width: int, sentence_width: int
) -> str | None:
    """Why vectors of frames and of sentences are not in one space, or None where nothing says so.

    Their widths are held against each other, then what the manifests know: the hash of the weights, else the extractor
    (that of sentences may be named with ``text`` behind it) and the network.

    Example:
        >>> share_space(Manifest(extractor="CLIP ViT-B/32"), Manifest(extractor="clip-vit-b32 text"), 512, 512)
        >>> share_space(Manifest(extractor="I3D"), Manifest(extractor="clip-vit-b32"), 512, 512)
        "frames were made by extractor 'I3D', sentences by 'clip-vit-b32'"
    """
    if width != sentence_width:
        return f"frames have vectors of width {width}, sentences of {sentence_width}"
    if frames is None or sentences is None:
        return None
    for name in ("weights_hash", "extractor", "network"):
        seen, read = getattr(frames, name), getattr(sentences, name)
        if seen is None or read is None:
            continue
        named = name == "extractor" and same_extractor(seen, read.removesuffix(" text"))
        if read != seen and not named:
            return f"frames were made by {name} {seen!r}, sentences by {read!r}"
        if name == "weights_hash":
            return None
    return None


def require_shared_space(
    frames: Manifest | None, sentences: Manifest | None, width: int, sentence_width: int
) -> None:
    """Raises `UserError` with both sides where vectors of frames and of sentences are not in one space."""
    reason = share_space(frames, sentences, width, sentence_width)
    if reason is not None:
        raise UserError(f"{ZERO_SHOT}: no common space of frames and sentences: {reason}")


def zero_shot_predictions(
    queries: Iterable[Query],
    frames_of: Callable[[str], Vectors],
    sentence_of: Callable[[Query], Vectors],
    stride: float | None,
    k: int = 5,
) -> list[Prediction]:
    """The answer of the baseline to every query.

    Args:
        queries: Those of one video are best one after the other, its frames are then read once.
        frames_of: Rows ``(T, D)`` of a video, by id.
        sentence_of: The vector ``(D,)`` of a query's sentence.
        stride: Seconds from one row to the next; None: the rows are spread evenly over the duration.
        k: Moments of each query at most.
    """
    video: str | None = None
    frames: Vectors = np.zeros((0, 0))
    predictions = []
    for query in queries:
        if query.video != video:
            video, frames = query.video, frames_of(query.video)
        step = query.duration / max(len(frames), 1) if stride is None else stride
        moments, scores = zero_shot_moments(frames, sentence_of(query), step, query.duration, k)
        predictions.append(
            Prediction(query=query.id, video=query.video, text=query.text, moments=moments, scores=scores)
        )
    return predictions
