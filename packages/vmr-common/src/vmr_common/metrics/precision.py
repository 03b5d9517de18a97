"""Average precision of ranked windows and of ranked clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from vmr_common.metrics.overlap import Booleans, Floats, floating


def match(overlaps: ArrayLike, counts: ArrayLike, thresholds: Sequence[float]) -> Booleans:
    """Mask of the ranked windows that are correct when every target may be claimed once.

    Windows choose in order; each takes the free target with the highest overlap that reaches the threshold
    (of equal overlaps the later target, as in the official evaluation of QVHighlights).

    Args:
        overlaps: ``(N, P, G)`` overlap of every window, best score first, with every target. Anything below
            the lowest threshold, such as 0 or not-a-number, marks padding of windows.
        counts: ``(N,)`` number of targets that are real, the first ones.
        thresholds: T overlaps that make a match.

    Returns:
        ``(N, P, T)`` bool.

    Example:
        >>> match([[[0.6, 0.0], [0.9, 0.0], [0.0, 0.8]]], [2], [0.5])[0, :, 0].tolist()
        [True, False, True]
    """
    values, targets = floating(overlaps), np.asarray(counts)
    total, windows, _ = values.shape
    correct = np.zeros((total, windows, len(thresholds)), dtype=bool)
    largest, width = int(targets.max(initial=0)), 0
    while width < largest:
        # queries of like size together: a few have many targets, and would make all of them slow
        previous, width = width, max(1, 2 * width)
        rows = np.flatnonzero((targets > previous) & (targets <= width))
        if len(rows):
            part = values[rows, :, : min(width, values.shape[2])]
            real = np.arange(part.shape[2]) < targets[rows, None]
            correct[rows] = _claim(part, real, np.asarray(thresholds, dtype=values.dtype))
    return correct


def _claim(overlaps: Floats, real: Booleans, thresholds: Floats) -> Booleans:
    total, windows, targets = overlaps.shape
    free = np.repeat(real[:, None], len(thresholds), axis=1)  # (n, T, G)
    correct = np.zeros((total, windows, len(thresholds)), dtype=bool)
    for rank in range(windows):
        overlap = overlaps[:, rank, None, :]
        worth = np.where(free & (overlap >= thresholds[:, None]), overlap, -1.0)
        # the last of equals: argmax finds the first, so look from the end
        chosen = targets - 1 - worth[..., ::-1].argmax(axis=-1)
        correct[:, rank] = np.take_along_axis(worth, chosen[..., None], axis=-1)[..., 0] >= 0
        row, threshold = np.nonzero(correct[:, rank])
        free[row, threshold, chosen[row, threshold]] = False
    return correct


def average_precision(correct: ArrayLike, num_truth: ArrayLike) -> Floats:
    """Interpolated average precision of ranked windows (VOC 2011: area under the monotone curve).

    Args:
        correct: ``(N, P, ...)`` bool, best window first (see `match`); padding is False and comes last.
        num_truth: ``(N,)`` number of targets, at least 1.

    Returns:
        ``(N, ...)`` float64.

    Example:
        >>> average_precision([[True, False, True]], [2]).round(3).tolist()
        [0.833]
    """
    found = np.asarray(correct, dtype=np.float64)
    shape = (-1,) + (1,) * (found.ndim - 2)
    ranks = np.arange(1.0, found.shape[1] + 1).reshape(shape)
    precision = np.cumsum(found, axis=1) / ranks
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((found * envelope).sum(axis=1) / np.asarray(num_truth, dtype=np.float64).reshape(shape))


def trapezoid_precision(relevant: ArrayLike) -> Floats:
    """Area under the precision-recall curve of ranked clips by trapezoids (TVSum, YouTube Highlights).

    The curve begins at precision 1; recall is that among the ranked clips alone, so that a cut list can reach 1.

    Args:
        relevant: ``(..., C)`` bool, best clip first.

    Returns:
        ``(...)`` float64; 0 where nothing is relevant.

    Example:
        >>> trapezoid_precision([[True, False, True], [False, False, False]]).round(3).tolist()
        [0.792, 0.0]
    """
    found = np.asarray(relevant, dtype=np.float64)
    hits = np.cumsum(found, axis=-1)
    precision = hits / np.arange(1, found.shape[-1] + 1)
    before = np.concatenate([np.ones_like(found[..., :1]), precision[..., :-1]], axis=-1)
    return np.asarray((found * (before + precision) / 2).sum(axis=-1) / np.maximum(hits[..., -1], 1))


def step_precision(scores: ArrayLike, labels: ArrayLike) -> Floats:
    """Precision of a ranking of clips, averaged over the steps of its recall (QVHighlights' highlights).

    The precision-recall curve has one point per distinct score and is made monotone; the value is the plain
    mean of its precision over the points at which the recall rises, not the area.

    Args:
        scores: ``(N, C)``, higher is better; padding is ``-inf``.
        labels: ``(N, A, C)`` bool, what each of A annotators calls a highlight; padding is False.

    Returns:
        ``(N, A)`` float64; 0 where an annotator calls nothing a highlight.

    Example:
        >>> labels = [[[True, False, True], [False, False, False]]]
        >>> step_precision([[0.9, 0.5, 0.1]], labels).round(3).tolist()
        [[0.833, 0.0]]
    """
    values, relevant = floating(scores), np.asarray(labels, dtype=bool)
    order = np.argsort(-values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=1)
    relevant = np.take_along_axis(relevant, order[:, None], axis=2)
    changes = ranked[:, 1:] != ranked[:, :-1]
    edge = np.ones((len(values), 1), dtype=bool)
    first = np.concatenate([edge, changes], axis=1)[:, None]  # (N, 1, C): first and last clip of a score
    last = np.concatenate([changes, edge], axis=1)[:, None]
    found = np.cumsum(relevant, axis=2, dtype=np.int32)
    precision = np.where(last, found / np.arange(1, values.shape[1] + 1), 0.0)
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
    if changes.all():
        rises = relevant
    else:
        # relevant clips before the current score: carried along from the first clip that has it
        before = np.maximum.accumulate(np.where(first, found - relevant, 0), axis=2)
        rises = last & (found > before)
    steps = rises.sum(axis=2)
    return np.asarray((rises * envelope).sum(axis=2) / np.maximum(steps, 1))
