"""Exact search: every vector of every video against the queries, at full speed first, then the best in float32."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vmr_search.engine.moment_index import Filter
from vmr_search.engine.scan.shards import BLOCK, Shard

FEW = 2
"""Up to this many queries are multiplied one by one, by float16 vectors as they are; the best are scored again."""

_SPAN = 6 * BLOCK  # rows that are scored together, so that a call costs little beside its work
_GATHERED = 2 * BLOCK  # rows that are scored again together
_AT_ONCE = 1 << 19  # float32 numbers multiplied with many queries at once: they stay in the cache
_LONGEST = 1e4  # of a vector that is multiplied in float16, whose largest number is 65,504


@dataclass(frozen=True, eq=False)
class Candidates:
    """The most promising videos of one query.

    Attributes:
        places: ``(n, 2)`` int64 position of the shard, and number of the video in it.
        scores: float32 scores ``(W,)`` of all windows of each.
        best: ``(n,)`` float32, the highest of each that the filter lets pass.
    """

    places: NDArray[np.int64]
    scores: list[NDArray[np.float32]]
    best: NDArray[np.float32]


def best_videos(
    shards: Sequence[Shard], queries: Tensor, n: int, where: Filter, device: torch.device
) -> Iterator[Candidates]:
    """The n videos with the highest-scoring window, best first, for one query after the other.

    Scores are first computed at full speed, then those that could be among the best are computed again in
    float32; the margin covers all rounding of the first pass, so the result is that of float32 throughout.

    Args:
        shards: Those to search.
        queries: ``(Q, size)`` float32.
        n: How many; of equal scores the first ones.
        where: The windows that count.
        device: Where to multiply.

    Yields:
        One per query; fewer than n videos only if there are not more.
    """
    if not shards:
        none = Candidates(np.zeros((0, 2), dtype=np.int64), [], np.zeros(0, dtype=np.float32))
        yield from [none] * len(queries)
        return
    allowed = [_allowed(shard, where) for shard in shards]
    first = np.cumsum([0, *(len(mask) for mask in allowed)])
    if where.videos is not None and 8 * sum(int(mask.sum()) for mask in allowed) <= first[-1]:
        chosen = np.flatnonzero(np.concatenate(allowed))
        for query in queries:
            yield _rescored(shards, first, chosen, query, n, where)
        return
    largest = max(shard.table["norm"] for shard in shards)
    multiply = _Multiply(queries, largest, shards[0].vectors.dtype, device)  # an index has one type
    best = np.full((len(queries), first[-1]), -np.inf, dtype=np.float32)
    for shard, mask, start in zip(shards, allowed, first, strict=False):
        shard.recheck_if_touched()
        mine = best[:, start : start + len(mask)]
        _first_pass(shard, multiply, where, mine)
        mine[:, ~mask] = -np.inf
    for query, values in zip(queries, best, strict=True):
        yield _rescored(shards, first, _promising(values, n, multiply.slack), query, n, where)


def _allowed(shard: Shard, where: Filter) -> NDArray[np.bool_]:
    """True for the videos of a shard that are searched."""
    if where.videos is None:
        return shard.live
    mask = np.zeros_like(shard.live)
    fewer, more = sorted([where.videos, shard.numbers.keys()], key=len)
    mask[[shard.numbers[video] for video in fewer if video in more]] = True
    return mask


def _first_pass(shard: Shard, multiply: _Multiply, where: Filter, best: NDArray[np.float32]) -> None:
    """Puts the highest score of each video ``(Q, videos)`` into `best`."""
    starts, rows = shard.starts, shard.entry.rows
    for first in range(0, rows, _SPAN):
        last = min(first + _SPAN, rows)
        shard.check(first, last)
        scores = multiply(shard.vectors[first:last])
        if where.of_windows:
            scores[:, ~where.keeps(shard.windows[first:last])] = -np.inf
        begin = int(np.searchsorted(starts, first, side="right")) - 1
        end = int(np.searchsorted(starts, last, side="left"))
        cuts = np.maximum(starts[begin:end] - first, 0)
        highest = np.maximum.reduceat(scores, cuts, axis=1)
        np.maximum(best[:, begin:end], highest, out=best[:, begin:end])


@functools.cache
def multiplies_half() -> bool:
    """True if the processor multiplies float16 matrices itself (AVX512-FP16, AMX-FP16) and adds up in float32.

    The second is tried: `_Multiply.slack` relies on it.
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", None)
    if supported is None or not supported():
        return False
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(rows, 2048, generator=random).half() for rows in (32, 256))
    exact = a.double() @ b.double().T
    # 2^-11 of a number is its rounding to float16; sums in float16 would be off by far more than the rest
    return bool(((a @ b.T).double() - exact).abs().le(exact.abs() * 2.0**-11 + 1e-3).all())


class _Multiply:
    """Scores ``(Q, rows)`` float32 of vectors ``(rows, size)``, times a positive number that is one for each query.

    float16 is multiplied as it is for few queries (memory is then the limit) and where the processor can, else
    converted first.

    Attributes:
        slack: Scores that differ by more are in the right order.
    """

    def __init__(self, queries: Tensor, largest: float, dtype: np.dtype[Any], device: torch.device) -> None:
        self.device = device
        self.few = len(queries) <= FEW and device.type == "cpu"
        self.half = (
            dtype == np.float16
            and device.type == "cpu"
            and largest <= _LONGEST
            and (self.few or multiplies_half())
        )
        self.few &= self.half or dtype == np.float32
        # a power of two changes no digit: of length 1 to 2, a query loses nothing but digits in float16
        length = queries.norm(dim=1, keepdim=True).clamp(min=2.0**-126)
        queries = queries * torch.exp2(-length.log2().floor())
        # by Cauchy and Schwarz, the roundings to float16 (11 bits) of a query and of a score are at most 2^-11 of the
        # lengths' product each; twice that leaves room for the order of summation
        bound = 2 * largest
        self.slack = 2 * bound * (4 * 2.0**-11 if self.half else 2.0**-18) + 2.0**-23
        self.queries = (queries.half() if self.half else queries).to(device)
        self.rows = max(1, _AT_ONCE // max(1, queries.shape[1]))
        # memory that is taken anew for every part can cost more than the product
        self.converted = torch.empty(self.rows if dtype == np.float16 else 0, queries.shape[1])

    def __call__(self, block: NDArray[Any]) -> NDArray[np.float32]:
        vectors = torch.from_numpy(block)
        if self.few:  # one query at a time is limited by memory alone
            scores = torch.stack([torch.mv(vectors, query) for query in self.queries])
        elif self.half or self.device.type != "cpu":
            scores = self.queries @ vectors.to(self.device).to(self.queries.dtype).T
        else:
            scores = torch.cat([self.queries @ self._float32(part).T for part in vectors.split(self.rows)], 1)
        found: NDArray[np.float32] = scores.float().cpu().numpy()
        return found

    def _float32(self, vectors: Tensor) -> Tensor:
        same = vectors.dtype == torch.float32
        return vectors if same else self.converted[: len(vectors)].copy_(vectors)


def _promising(best: NDArray[np.float32], n: int, slack: float) -> NDArray[np.int64]:
    """Positions of the videos that may be among the n best, given scores within slack / 2 of the truth."""
    nth = -np.inf if n >= len(best) else float(np.partition(best, len(best) - n)[len(best) - n])
    return np.flatnonzero((best >= nth - slack) & (best > -np.inf))


def _rescored(
    shards: Sequence[Shard],
    first: NDArray[np.int64],
    chosen: NDArray[np.int64],
    query: Tensor,
    n: int,
    where: Filter,
) -> Candidates:
    """The n best of some videos, by scores in float32 of all their windows."""
    shard = np.searchsorted(first, chosen, side="right") - 1
    places = np.stack([shard, chosen - first[shard]], axis=1)
    scores: list[NDArray[np.float32]] = []
    highest = [np.zeros(0, dtype=np.float32)]
    for number in np.unique(shard).tolist():  # ascending, as `chosen` is
        values, best = _exact(shards[number], places[shard == number, 1], query, where)
        scores += values
        highest.append(best)
    best = np.concatenate(highest)
    order = np.argsort(-best, kind="stable")[:n]
    order = order[best[order] > -np.inf]
    return Candidates(places[order], [scores[row] for row in order.tolist()], best[order])


def _exact(
    shard: Shard, numbers: NDArray[np.int64], query: Tensor, where: Filter
) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Scores in float32 of all windows of some videos, and the highest of each that the filter lets pass."""
    shard.recheck_if_touched()
    rows = shard.rows_of(numbers)
    parts = [
        (torch.from_numpy(shard.gather(rows[start : start + _GATHERED])).float() @ query).numpy()
        for start in range(0, len(rows), _GATHERED)
    ]
    scores: NDArray[np.float32] = np.concatenate(parts)
    counts = shard.starts[numbers + 1] - shard.starts[numbers]
    cuts = np.cumsum(counts) - counts
    seen = scores
    if where.of_windows:
        seen = np.where(where.keeps(shard.windows[rows]), scores, np.float32(-np.inf))
    return np.split(scores, cuts[1:]), np.maximum.reduceat(seen, cuts)
