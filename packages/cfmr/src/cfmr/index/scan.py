"""Exact search: every vector of every video against the queries, then suppression inside each video."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfmr.index.shards import BLOCK, Shard
from vmr_train.map_proposals import top_proposals

FEW = 2
"""Up to this many queries are multiplied one by one, by float16 vectors as they are; the best are scored again."""

_SPAN = 4  # blocks that are scored together, so that a call costs little beside its work
_AT_ONCE = 1 << 19  # float32 numbers multiplied with many queries at once: they stay in the cache


@dataclass(frozen=True)
class Candidates:
    """The most promising videos of one query.

    Attributes:
        places: ``(n, 2)`` int64 shard and row.
        scores: ``(n, P)`` float32 of all their proposals.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float32]


def best_videos(
    shards: Sequence[tuple[int, Shard]], queries: Tensor, k: int, device: torch.device
) -> Iterator[Candidates]:
    """The k videos with the highest-scoring proposal, for one query after the other.

    Scores are first computed at full speed, then those that could be among the best are computed again in
    float32; the margin covers all rounding of the first pass, so the result is that of float32 throughout.

    Args:
        shards: Numbered shards to search.
        queries: ``(Q, K * D)`` float32, K unit vectors each.
        k: How many.
        device: Where to multiply.

    Yields:
        One per query, its videos in no order; fewer than k videos only if there are not more. Ties at the end are kept.
    """
    total = sum(shard.entry.videos for _, shard in shards)
    best = np.full((len(queries), total), -np.inf, dtype=np.float32)
    offset, slack = 0, 0.0
    multiply: _Multiply | None = None
    for _, shard in shards:
        shard.recheck_if_touched()
        multiply = multiply or _Multiply(queries, shard.vectors.dtype, device)  # an index has one type
        slack = multiply.slack
        for start, vectors in _spans(shard):
            best[:, offset + start : offset + start + len(vectors)] = multiply(vectors)
        best[:, offset : offset + shard.entry.videos][:, ~shard.live] = -np.inf
        offset += shard.entry.videos
    parts = [
        np.stack(np.broadcast_arrays(number, np.arange(shard.entry.videos)), axis=1)
        for number, shard in shards
    ]
    places = np.concatenate([np.zeros((0, 2), dtype=np.int64), *parts])
    opened = dict(shards)
    for query, values in zip(queries, best, strict=True):
        chosen = places[_promising(values, k, slack)]
        yield _keep_best(rescore(opened, chosen, query), k)


def _spans(shard: Shard) -> Iterator[tuple[int, NDArray[Any]]]:
    for first in range(0, shard.blocks(), _SPAN):
        for number in range(first, min(first + _SPAN, shard.blocks())):
            shard.block(number)  # checks it
        yield first * BLOCK, shard.vectors[first * BLOCK : (first + _SPAN) * BLOCK]


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
    """Highest score per video ``(Q, n)`` of vectors ``(n, P, K * D)``.

    float16 is multiplied as it is for few queries (memory is then the limit) and where the processor can, else
    converted first.
    """

    def __init__(self, queries: Tensor, dtype: np.dtype[Any], device: torch.device) -> None:
        self.device = device
        self.few = len(queries) <= FEW and device.type == "cpu"
        self.half = dtype == np.float16 and device.type == "cpu" and (self.few or multiplies_half())
        # sums of K products of unit vectors, |score| <= K; float16 has 11 bits: rounding of the query and of
        # the result are at most 2^-11 K each, and twice that leaves room for the order of summation
        bound = float(queries.norm(dim=1).max()) ** 2 if len(queries) else 0.0  # K
        self.slack = 2 * bound * (4 * 2.0**-11 if self.half else 2.0**-18)
        self.queries = (queries.half() if self.half else queries).to(device)
        self.rows = max(1, _AT_ONCE // max(1, queries.shape[1]))
        # memory that is taken anew for every part can cost more than the product
        self.converted = torch.empty(self.rows if dtype == np.float16 else 0, queries.shape[1])

    def __call__(self, block: NDArray[Any]) -> NDArray[np.float32]:
        count, proposals = block.shape[:2]
        vectors = torch.from_numpy(block).flatten(0, 1)  # (n * P, K * D)
        if self.few:  # one query at a time is limited by memory alone
            scores = torch.stack([torch.mv(vectors, query) for query in self.queries])
        elif self.half or self.device.type != "cpu":
            scores = self.queries @ vectors.to(self.device).to(self.queries.dtype).T
        else:
            scores = torch.cat([self.queries @ self._float32(part).T for part in vectors.split(self.rows)], 1)
        best: NDArray[np.float32] = scores.float().unflatten(1, (count, proposals)).amax(-1).cpu().numpy()
        return best

    def _float32(self, vectors: Tensor) -> Tensor:
        same = vectors.dtype == torch.float32
        return vectors if same else self.converted[: len(vectors)].copy_(vectors)


def _promising(best: NDArray[np.float32], k: int, slack: float) -> NDArray[np.int64]:
    """Rows of the videos that may be among the k best, given scores within slack / 2 of the truth."""
    if len(best) == 0:
        return np.zeros(0, dtype=np.int64)
    kth = -np.inf if k >= len(best) else float(np.partition(best, len(best) - k)[len(best) - k])
    return np.flatnonzero((best >= kth - slack) & (best > -np.inf))


def rescore(shards: dict[int, Shard], places: NDArray[np.int64], query: Tensor) -> Candidates:
    """Scores in float32 of all proposals of the videos at `places` ``(n, 2)``."""
    scores: NDArray[np.float32] | None = None
    for number in np.unique(places[:, 0]).tolist():
        mine = np.flatnonzero(places[:, 0] == number)
        for part in np.array_split(mine, -(-len(mine) // BLOCK)):
            vectors = torch.from_numpy(shards[number].gather(places[part, 1])).float()
            found = (vectors @ query).numpy()  # (n, P)
            if scores is None:
                scores = np.empty((len(places), found.shape[1]), dtype=np.float32)
            scores[part] = found
    return Candidates(places, np.zeros((0, 0), dtype=np.float32) if scores is None else scores)


def _keep_best(found: Candidates, k: int) -> Candidates:
    if len(found.places) <= k:
        return found
    order = np.argsort(-found.scores.max(axis=1), kind="stable")[:k]
    return Candidates(found.places[order], found.scores[order])


def merge(parts: Sequence[Candidates], k: int) -> Candidates:
    """The k best of what several processes found, in the order of the index where scores are equal."""
    filled = [part for part in parts if len(part.places)]
    if not filled:
        return parts[0]
    places = np.concatenate([part.places for part in filled])
    scores = np.concatenate([part.scores for part in filled])
    order = np.lexsort((places[:, 1], places[:, 0]))
    return _keep_best(Candidates(places[order], scores[order]), k)


def best_moments(
    found: Candidates, moments: NDArray[np.float64], k: int, nms: float
) -> list[tuple[int, int, float]]:
    """The k best moments: (row of `found`, proposal, score), after suppression inside each video.

    No moment of a video outside the k best ones can be among them: each of those k offers a better one.

    Args:
        found: Candidates of one query.
        moments: ``(P, 2)`` proposals, fractions of a duration (overlap does not depend on it).
        k: How many.
        nms: Largest overlap of two moments of one video.
    """
    if not len(found.places):
        return []
    kept, scores = top_proposals(found.scores, moments, nms, limit=min(k, len(moments)))
    rows, columns = np.nonzero(kept >= 0)
    order = np.argsort(-scores[rows, columns], kind="stable")[:k]
    return [
        (int(row), int(kept[row, column]), float(scores[row, column]))
        for row, column in zip(rows[order], columns[order], strict=True)
    ]
