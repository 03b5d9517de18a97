"""Is one system better than another? The paired difference with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmr_common.evaluation.recall import PerQuery

_DRAWS_AT_ONCE = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Differences of the second system to the first, in fractions."""

    first: float  # value of the first system over the queries that count for both
    second: float  # value of the second system over the same queries
    low: float  # lower end of the interval of `second - first`
    high: float  # upper end

    @property
    def difference(self) -> float:
        """``second - first``."""
        return self.second - self.first


def paired_differences(
    first: PerQuery,
    second: PerQuery,
    videos: Sequence[str],
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    """Paired bootstrap of the difference in every value that both systems have.

    Whole videos are drawn, not queries, because queries of one video stand or fall together (TACoS has 160 to
    a video); the interval is that of the percentiles.

    Args:
        first: What each query adds to each value, ``(N,)`` per key (`Protocol.per_query`).
        second: The same for the other system, queries in the same order.
        videos: ``(N,)`` video of each query.
        draws: Bootstrap samples.
        level: Probability that the interval covers.
        seed: The same seed gives the same interval.

    Example:
        >>> import numpy as np
        >>> worse, better = {"R@1,IoU@0.5": np.array([0.0, 1.0])}, {"R@1,IoU@0.5": np.array([1.0, 1.0])}
        >>> found = paired_differences(worse, better, ["v", "w"])["R@1,IoU@0.5"]
        >>> found.difference, found.low, found.high
        (0.5, 0.0, 1.0)
    """
    keys = [key for key in first if key in second]
    if not keys:
        return {}
    a, b = (np.stack([system[key] for key in keys], axis=1) for system in (first, second))
    counts = ~(np.isnan(a) | np.isnan(b))
    names, group = np.unique(np.asarray(videos), return_inverse=True)
    gains = _sums(np.where(counts, b - a, 0.0), group, len(names))
    sizes = _sums(counts.astype(np.float64), group, len(names))
    samples = _samples(gains, sizes, draws, seed)
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(samples, [tail, 100 - tail], axis=0)
    return {
        key: Difference(
            first=float(a[counts[:, n], n].mean()),
            second=float(b[counts[:, n], n].mean()),
            low=float(low[n]),
            high=float(high[n]),
        )
        for n, key in enumerate(keys)
        if counts[:, n].any()
    }


def _sums(values: NDArray[np.float64], group: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
    """Sums ``(groups, keys)`` of the rows of each group."""
    totals = np.zeros((groups, values.shape[1]))
    np.add.at(totals, group, values)
    return totals


def _samples(
    gains: NDArray[np.float64], sizes: NDArray[np.float64], draws: int, seed: int
) -> NDArray[np.float64]:
    """Mean difference ``(draws, keys)`` in each bootstrap sample."""
    rng = np.random.default_rng(seed)
    groups = len(gains)
    at_once = max(1, _DRAWS_AT_ONCE // groups)
    parts = []
    for begin in range(0, draws, at_once):
        chosen = rng.integers(groups, size=(min(at_once, draws - begin), groups))
        offsets = np.arange(len(chosen))[:, None] * groups
        weights = np.bincount((chosen + offsets).ravel(), minlength=chosen.size).reshape(chosen.shape)
        with np.errstate(invalid="ignore"):  # a sample may hold no query that counts
            parts.append((weights @ gains) / (weights @ sizes))
    return np.concatenate(parts)


def format_differences(differences: dict[str, Difference], labels: tuple[str, str]) -> str:
    """A text table of paired differences, percent and percentage points.

    Example:
        >>> print(format_differences({"R@1,mIoU": Difference(first=0.2, second=0.25, low=0.01, high=0.09)},
        ...                          ("old", "new")))
        value     old    new    difference  95 % interval
        R@1,mIoU  20.00  25.00       +5.00  +1.00 to +9.00
    """
    width = max([len("value"), *map(len, differences)])
    widths = [max(5, len(label)) for label in labels]
    titles = "  ".join(label.ljust(w) for label, w in zip(labels, widths, strict=True))
    lines = [f"{'value'.ljust(width)}  {titles}  difference  95 % interval"]
    for key, found in differences.items():
        values = zip((found.first, found.second), widths, strict=True)
        cells = [f"{100 * value:.2f}".rjust(w) for value, w in values]
        gain = f"{100 * found.difference:+.2f}".rjust(10)
        interval = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
        lines.append("  ".join([key.ljust(width), *cells, gain, interval]))
    return "\n".join(lines)
