"""Temporal overlap, suppression and recall at n."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Union = Literal["hull", "true"]
Compare = Literal[">=", ">"]

_CHUNK = 1 << 16  # windows handled at once by `nms`: its temporaries then stay in the processor's cache


def floating(values: ArrayLike) -> Floats:
    """Values as they are if they are floating-point, else as float64."""
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def iou(
    a: ArrayLike, b: ArrayLike, union: Union = "hull", eps: float = 0.0, *, empty: float = float("nan")
) -> Floats:
    """Intersection over union of windows, elementwise with broadcasting.

    Both forms of the union agree wherever two windows overlap, and the intersection is 0 elsewhere; they
    differ in rounding and in what counts as 0/0. A window that starts after it ends intersects nothing.

    Args:
        a: ``(..., 2)`` windows. Computed in float32 if both inputs are float32, else in float64.
        b: ``(..., 2)`` windows in the same unit, broadcast against `a`.
        union: ``"hull"`` is the later end minus the earlier start, at least 0; ``"true"`` is the sum of the
            lengths minus the intersection.
        eps: If not 0, the value is ``(end - start + eps) / (hull + eps)`` with negative values set to 0 (the
            runner of CPL, RGN and CFMR); needs ``union="hull"``.
        empty: Value where the union is 0, as with two windows of length 0.

    Returns:
        ``(...)`` overlaps in [0, 1] for windows that do not start after they end.

    Raises:
        ValueError: if `eps` comes with the true union.

    Example:
        >>> iou([0.0, 5.0], [[0.0, 10.0], [5.0, 9.0]]).tolist()
        [0.5, 0.0]
        >>> float(iou([4.0, 4.0], [4.0, 4.0], empty=0.0))
        0.0
    """
    if eps and union != "hull":
        raise ValueError("eps belongs to the hull form of the overlap")
    first, second = floating(a), floating(b)
    starts, ends = (first[..., 0], second[..., 0]), (first[..., 1], second[..., 1])
    return iou_of(starts, ends, union, eps, empty=empty)


def iou_of(
    starts: tuple[Floats, Floats],
    ends: tuple[Floats, Floats],
    union: Union = "hull",
    eps: float = 0.0,
    *,
    empty: float = float("nan"),
) -> Floats:
    """`iou` of windows whose starts and ends are apart, and may have shapes of their own."""
    shared = np.minimum(*ends) - np.maximum(*starts)
    if union == "hull":
        whole = np.maximum(*ends) - np.minimum(*starts)
        if eps:
            return np.asarray(np.maximum((shared + eps) / (whole + eps), 0.0))
        whole = np.maximum(whole, 0.0)
        shared = np.maximum(shared, 0.0)
    else:
        shared = np.maximum(shared, 0.0)
        whole = (ends[0] - starts[0]) + (ends[1] - starts[1]) - shared
    with np.errstate(divide="ignore", invalid="ignore"):
        overlap = np.asarray(shared / whole)
    overlap[whole == 0] = empty
    return overlap


def nms(
    moments: ArrayLike,
    threshold: float,
    *,
    limit: int | None = None,
    scores: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    union: Union = "true",
    empty: float = float("nan"),
) -> Integers:
    """Greedy suppression: which windows stay when each kept one removes the later ones too much like it.

    A later window stays if its overlap with every kept one is at most `threshold`; an overlap that is not a
    number removes it. With the defaults this is the rule of 2D-TAN, CDN and LEORN; with `scores`,
    ``union="hull"``, ``empty=0.0`` and ``limit=100`` that of the long-video methods (CONE, RGNet).

    Args:
        moments: ``(K, 2)`` windows of one query or ``(N, K, 2)`` of many.
        threshold: Largest overlap that two kept windows may have.
        limit: Largest number of windows to keep per query; all by default.
        scores: ``(K,)`` or ``(N, K)``; windows are taken from the highest on, ties in the given order.
            Without scores the given order is trusted.
        counts: ``(N,)`` number of windows that are real; the others are padding. All by default.
        union: See `iou`.
        empty: See `iou`.

    Returns:
        Indices of the kept windows, best first: ``(kept,)`` for one query; ``(N, L)`` padded with -1 for
        many, ``L = min(limit, K)``.

    Raises:
        ValueError: if `moments` has another shape, or `limit` is below 1.

    Example:
        >>> nms([[0, 10], [0, 9], [20, 30]], 0.5).tolist()
        [0, 2]
        >>> nms([[[0, 10], [0, 9]], [[0, 10], [20, 30]]], 0.5).tolist()
        [[0, -1], [0, 1]]
    """
    windows = floating(moments)
    if windows.ndim == 2:
        single = nms(
            windows[None],
            threshold,
            limit=limit,
            scores=None if scores is None else np.asarray(scores)[None],
            union=union,
            empty=empty,
        )[0]
        return np.asarray(single[single >= 0])
    if windows.ndim != 3 or windows.shape[-1] != 2:
        raise ValueError(f"moments must have shape (K, 2) or (N, K, 2), found {windows.shape}")
    total, width = windows.shape[:2]
    limit = width if limit is None else min(limit, width)
    if limit < 1 and width:
        raise ValueError(f"limit must be at least 1, found {limit}")
    valid = np.ones((total, width), dtype=bool)
    if counts is not None:
        valid = np.arange(width) < np.asarray(counts)[:, None]
    order: Integers | None = None
    if scores is not None:
        # padding sorts last whatever its score is
        ranking = np.where(valid, -floating(scores), np.inf)
        order = np.argsort(ranking, axis=1, kind="stable")
        windows = np.take_along_axis(windows, order[..., None], axis=1)
        valid = np.take_along_axis(valid, order, axis=1)
    kept = np.full((total, limit), -1, dtype=np.int64)
    rows = max(1, _CHUNK // max(width, 1))
    for begin in range(0, total if width else 0, rows):
        chunk = slice(begin, begin + rows)
        _suppress(windows[chunk], valid[chunk].copy(), threshold, union, empty, kept[chunk])
    if order is not None:
        kept = np.where(kept >= 0, np.take_along_axis(order, np.maximum(kept, 0), axis=1), -1)
    return kept


def _suppress(
    windows: Floats, alive: Booleans, threshold: float, union: Union, empty: float, kept: Integers
) -> None:
    """Fills `kept` ``(n, limit)`` with the ranks that stay; one step keeps one window of every query."""
    active = np.arange(len(windows))
    for position in range(kept.shape[1]):
        first = alive.argmax(axis=1)
        some = alive[np.arange(len(alive)), first]
        if not some.all():
            active, windows, alive, first = active[some], windows[some], alive[some], first[some]
        if not len(active):
            return
        kept[active, position] = first
        if position + 1 < kept.shape[1]:
            rows = np.arange(len(active))
            alive &= iou(windows, windows[rows, first][:, None], union, empty=empty) <= threshold
            alive[rows, first] = False


def best_at(overlaps: ArrayLike, ranks: Sequence[int]) -> Floats:
    """The best overlap among the first n windows, for several n.

    Args:
        overlaps: ``(N, K)`` overlaps, best-ranked window first, 0 where there is no window.
        ranks: Increasing numbers n, each at least 1; n may exceed K.

    Returns:
        ``(N, len(ranks))``, of the dtype of `overlaps`; 0 where K is 0.

    Raises:
        ValueError: if `ranks` is not increasing from at least 1.

    Example:
        >>> best_at([[0.2, 0.7, 0.1]], [1, 5]).tolist()
        [[0.2, 0.7]]
    """
    values = floating(overlaps)
    if list(ranks) != sorted({int(rank) for rank in ranks}) or (ranks and ranks[0] < 1):
        raise ValueError(f"ranks must increase from at least 1, found {list(ranks)}")
    best = np.zeros((len(values), len(ranks)), dtype=values.dtype)
    begin = 0
    for column, rank in enumerate(ranks):
        if column:
            best[:, column] = best[:, column - 1]
        part = values[:, begin:rank]
        if part.shape[1]:
            np.maximum(best[:, column], part.max(axis=1), out=best[:, column])
        begin = rank
    return best


def hits(overlaps: ArrayLike, threshold: float, compare: Compare = ">=") -> Booleans:
    """Mask of the overlaps that reach (``>=``) or exceed (``>``) a threshold; not-a-number does not.

    A float32 overlap is compared with the threshold rounded to float32, as the float32 programs do.

    Example:
        >>> hits([0.4, 0.5, float("nan")], 0.5).tolist(), hits([0.5], 0.5, ">").tolist()
        ([False, True, False], [False])
    """
    values = floating(overlaps)
    limit = values.dtype.type(threshold)
    return np.asarray(values >= limit if compare == ">=" else values > limit)
