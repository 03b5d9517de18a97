"""How well one score tells two classes apart: area under the ROC curve, and recall at few false alarms."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def auroc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """The probability that a positive scores above a negative, ties counted half; not-a-number where one side is empty.

    Args:
        positives: Scores ``(P,)`` of what should score high.
        negatives: Scores ``(N,)`` of what should score low.

    Example:
        >>> auroc([0.9, 0.5], [0.5, 0.1])
        0.875
    """
    high, low = _scores(positives), _scores(negatives)
    return float(weighted_auroc(high, low, np.ones((1, len(high))), np.ones((1, len(low))))[0])


def weighted_auroc(
    positives: Floats, negatives: Floats, positive_weights: Floats, negative_weights: Floats
) -> Floats:
    """`auroc` ``(S,)`` of S weightings at once, such as bootstrap samples.

    Args:
        positives: Scores ``(P,)``.
        negatives: Scores ``(N,)``.
        positive_weights: ``(S, P)``, how often each positive counts.
        negative_weights: ``(S, N)``.

    Example:
        >>> weights = np.array([[1.0, 1.0], [2.0, 0.0]])
        >>> weighted_auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1]), weights, weights).tolist()
        [0.875, 1.0]
    """
    order = np.argsort(negatives, kind="stable")
    ranked = negatives[order]
    below = np.concatenate(
        [np.zeros((len(negative_weights), 1)), np.cumsum(negative_weights[:, order], axis=1)], axis=1
    )
    lower, upper = (np.searchsorted(ranked, positives, side) for side in ("left", "right"))
    beaten = (below[:, lower] + below[:, upper]) / 2  # (S, P)
    with np.errstate(invalid="ignore", divide="ignore"):  # a sample may hold nothing of one side
        total = positive_weights.sum(axis=1) * negative_weights.sum(axis=1)
        found: Floats = (beaten * positive_weights).sum(axis=1) / total
    return found


def recall_at_false_alarms(positives: ArrayLike, negatives: ArrayLike, rate: float = 0.05) -> float:
    """The largest share of positives at or above a threshold that at most this share of negatives reaches.

    Not-a-number where one side is empty.

    Args:
        positives: Scores ``(P,)`` of what should score high.
        negatives: Scores ``(N,)`` of what should score low.
        rate: Share of negatives that may pass, in [0, 1].

    Example:
        >>> recall_at_false_alarms([3.0, 2.0, 1.0], [2.0, 0.0], 0.5)
        1.0
    """
    high, low = _scores(positives), np.sort(_scores(negatives))
    if not len(high) or not len(low):
        return float("nan")
    allowed = int(np.floor(rate * len(low) + 1e-9))  # 0.05 * 20 is 1, whatever the rounding
    if allowed >= len(low):
        return 1.0
    return float((high > low[len(low) - allowed - 1]).mean())


def _scores(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or np.isnan(array).any():
        raise ValueError(f"scores must be numbers of shape (N,), found shape {array.shape} or not-a-number")
    return array
