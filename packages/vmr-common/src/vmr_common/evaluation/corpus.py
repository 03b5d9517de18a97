"""Video corpus moment retrieval: a sentence, a corpus of videos, ranked moments of any of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common import metrics
from vmr_common.errors import UserError, quoted
from vmr_common.evaluation.packing import require_matching
from vmr_common.evaluation.scores import Scores
from vmr_common.types import Query, as_moments

DEPTH = 100
"""Moments of an answer that count, as in the published evaluation of TVR."""
RANKS = (1, 5, 10, 100)
Truth = Mapping[str, Sequence[tuple[str, float, float]]]
"""By query id the moments of the corpus that are right: video, start and end in seconds."""
_GRID = 40  # steps of the ends of random windows

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class CorpusPrediction:
    """Ranked moments of a corpus for one query.

    Attributes:
        query: Id of the query.
        videos: The video of each moment, K of them.
        moments: ``(K, 2)`` float64, seconds, best first.
        scores: ``(K,)`` float64, higher is better.
        text: The sentence, where known.
        ranked_videos: Videos, best first, where they are ranked by themselves; None: by their best moment.
    """

    query: str
    videos: tuple[str, ...]
    moments: NDArray[np.float64]
    scores: NDArray[np.float64]
    text: str = ""
    ranked_videos: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "moments", as_moments(self.moments))
        object.__setattr__(self, "scores", np.asarray(self.scores, dtype=np.float64))
        if not len(self.videos) == len(self.moments) == len(self.scores):
            raise ValueError(
                f"prediction for query {self.query}: videos, moments and scores differ in number"
            )

    def video_ranking(self) -> tuple[str, ...]:
        """Videos, best first, each once."""
        return tuple(dict.fromkeys(self.videos if self.ranked_videos is None else self.ranked_videos))


@dataclass(frozen=True, kw_only=True)
class CorpusProtocol:
    """The rule set of corpus retrieval: a moment is right in a right video at an overlap that reaches the threshold.

    Attributes:
        name: What a table calls it.
        thresholds: Overlaps m of the recalls; that of the average precision is 0.5.
        agreeing: How many of a query's own moments a right one has to reach, where it has at least four: the
            annotators of DiDeMo, of whom two have to agree in TVR's evaluation.

    Example:
        >>> query = Query(id="1", video="kitchen", text="a dog runs", duration=30.0, moments=[[3, 9]])
        >>> found = CorpusPrediction(query="1", videos=("street", "kitchen"), moments=[[3, 9], [3, 8]], scores=[2, 1])
        >>> rules = CorpusProtocol(name="mine")
        >>> values = rules.score([query], [found], annotated([query]), ["kitchen", "street"]).values
        >>> values["R@1,IoU@0.5"], values["R@5,IoU@0.5"], values["mAP"], values["median rank"]
        (0.0, 1.0, 0.5, 2.0)
    """

    name: str = "vcmr"
    thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    agreeing: int = 1

    def score(
        self,
        queries: Sequence[Query],
        predictions: Sequence[CorpusPrediction],
        truth: Truth,
        corpus: Iterable[str],
        *,
        split: str = "",
    ) -> Scores:
        """Evaluates ranked moments of a corpus.

        The keys are ``R@n,IoU@m``, ``mAP`` and ``median rank`` of moments, and ``video R@n``, ``video mAP`` and
        ``video median rank``. Recall at n is the share of queries with a right moment (video) among the first n; the
        rank is that of the first right one, infinite where none of the first `DEPTH` is right. Average precision: over
        the first `DEPTH` moments, each true moment claimed once at an overlap of at least 0.5, divided by the smaller
        of the number of true ones and `DEPTH`; of videos likewise.

        Args:
            queries: Those without a right moment in the corpus are left out, and counted.
            predictions: In any order, at most one per query; a query without one is a miss.
            truth: Of every query.
            corpus: Ids of all videos.
            split: Name for the header.

        Raises:
            UserError: for an unknown or repeated query, one without truth, a video that is not in the corpus, or no
                query left.
        """
        require_matching([query.id for query in queries], [found.query for found in predictions])
        videos, found = set(corpus), {found.query: found for found in predictions}
        rows: list[dict[str, float]] = []
        missing = 0
        for query in queries:
            right = _of_corpus(query, truth, videos)
            if right:
                prediction = found.get(query.id)
                missing += prediction is None or not prediction.videos
                rows.append(
                    self._judged(_empty(query.id) if prediction is None else prediction, right, videos)
                )
        if not rows:
            raise UserError(
                f"protocol {self.name}: no query has a right moment in the {len(videos):,} videos of the corpus"
            )
        return self._scores(rows, len(queries) - len(rows), missing, videos, split)

    def _judged(
        self, found: CorpusPrediction, right: Sequence[tuple[str, float, float]], corpus: set[str]
    ) -> dict[str, float]:
        for video in (*found.videos, *found.video_ranking()):
            if video not in corpus:
                raise UserError(
                    f"query {quoted(found.query)}: found a moment in video {quoted(video)}, which is none of the "
                    f"{len(corpus):,} videos of the corpus (--corpus FILE names them)"
                )
        videos = found.videos[:DEPTH]
        numbers = {video: number for number, video in enumerate(dict.fromkeys(videos))}
        seen = np.array([numbers[video] for video in videos], dtype=np.int64)
        same = seen[:, None] == np.array([numbers.get(video, -1) for video, _, _ in right])
        spans = np.array([(start, end) for _, start, end in right])
        overlaps = metrics.iou(found.moments[:DEPTH, None], spans[None], "true", empty=0.0) * same
        needed = self.agreeing if len(right) >= 4 else 1
        reached = np.sort(overlaps, axis=1)[:, -needed] if len(videos) else np.zeros(0)
        values = {f"R@{n},IoU@{m:g}": float((reached[:n] >= m).any()) for m in self.thresholds for n in RANKS}
        if needed > 1:  # the moments of several annotators are one target
            overlaps, right = reached[:, None], right[:1]
        claimed = np.zeros(len(videos), dtype=bool)
        near = np.flatnonzero((overlaps >= 0.5).any(axis=1))  # few: the others claim nothing
        claimed[near] = metrics.match(overlaps[None, near], [len(right)], [0.5])[0, :, 0]
        values |= _ranked(claimed, len(right), "")
        true_videos = {video for video, _, _ in right}
        shown = np.array([name in true_videos for name in found.video_ranking()[:DEPTH]], dtype=bool)
        values |= {f"video R@{n}": float(shown[:n].any()) for n in RANKS}
        return values | _ranked(shown, len(true_videos), "video ")

    def _scores(
        self, rows: list[dict[str, float]], left_out: int, missing: int, corpus: set[str], split: str
    ) -> Scores:
        values = {
            key: float((np.median if key.endswith("rank") else np.mean)([row[key] for row in rows]))
            for key in rows[0]
        }
        return Scores(
            protocol=self.name,
            compare=f"IoU >= m in a right video, {len(corpus):,} videos",
            split=split,
            num_queries=len(rows),
            num_missing=missing,
            values=values,
            num_left_out=left_out,
        )

    def chance(
        self,
        queries: Sequence[Query],
        truth: Truth,
        corpus: Iterable[str],
        durations: Mapping[str, float],
        *,
        split: str = "",
    ) -> Scores:
        """The expected figures of a system that knows nothing, see `score`.

        Moments: every rank is a video drawn by itself, and a window of it whose ends are uniform. Videos: in a random
        order. Of the average precision an approximation from above, which lets a true moment be claimed again.

        Args:
            queries: As for `score`.
            truth: As for `score`.
            corpus: As for `score`.
            durations: Seconds by video, at least of those with a right moment; of others the last right moment's end.
            split: Name for the header.
        """
        videos = set(corpus)
        rows = []
        for query in queries:
            right = _of_corpus(query, truth, videos)
            if not right:
                continue
            rates = dict.fromkeys(self.thresholds, 0.0) | {0.5: 0.0}
            for video in dict.fromkeys(name for name, _, _ in right):
                spans = [(start, end) for name, start, end in right if name == video]
                duration = durations.get(video, max(end for _, end in spans))
                for m, rate in _window_rates(tuple(spans), duration, tuple(rates), self.agreeing).items():
                    rates[m] += rate / len(videos)
            values = {f"R@{n},IoU@{m:g}": 1 - (1 - rates[m]) ** n for m in self.thresholds for n in RANKS}
            total = 1 if self.agreeing > 1 else len(right)
            values |= _expected(np.full(DEPTH, rates[0.5]), rates[0.5], total, "")
            good, count = len({video for video, _, _ in right}), len(videos)
            depth = min(DEPTH, count)
            missed = np.cumprod(np.maximum(1.0 - good / (count - np.arange(float(depth))), 0.0))
            values |= {f"video R@{n}": 1 - float(missed[min(n, depth) - 1]) for n in RANKS}
            further = (good - 1) / max(count - 1, 1)
            values |= _expected(np.full(depth, good / count), further, good, "video ")
            values["video median rank"] = _half(missed)
            rows.append(values)
        return self._scores(rows, len(queries) - len(rows), 0, videos, split)


PROTOCOLS = {
    rules.name: rules for rules in (CorpusProtocol(), CorpusProtocol(name="vcmr-didemo", agreeing=2))
}
"""By name: of TVR, and of Charades-STA and ActivityNet Captions as corpora; of DiDeMo, whose annotators must agree."""


def annotated(queries: Iterable[Query]) -> dict[str, list[tuple[str, float, float]]]:
    """The truth of annotations alone: the moments of each query, right in its own video only.

    Example:
        >>> annotated([Query(id="1", video="v", text="a dog runs", duration=9.0, moments=[[0, 4]])])
        {'1': [('v', 0.0, 4.0)]}
    """
    return {query.id: [(query.video, *span) for span in query.moments.tolist()] for query in queries}


def _of_corpus(query: Query, truth: Truth, videos: set[str]) -> list[tuple[str, float, float]]:
    if query.id not in truth:
        raise UserError(f"the truth has no query {quoted(query.id)}")
    return [one for one in truth[query.id] if one[0] in videos]


def _empty(query: str) -> CorpusPrediction:
    return CorpusPrediction(query=query, videos=(), moments=np.zeros((0, 2)), scores=np.zeros(0))


def _ranked(right: NDArray[np.bool_], total: int, what: str) -> dict[str, float]:
    """Average precision and rank of the first right one of a list ``(K,)`` of which `total` could be right."""
    places = np.flatnonzero(right) + 1
    precision = float((np.arange(1, len(places) + 1) / places).sum()) / min(total, DEPTH)
    return {f"{what}mAP": precision, f"{what}median rank": float(places[0]) if len(places) else np.inf}


def _expected(rates: Floats, further: float, total: int, what: str) -> dict[str, float]:
    """As `_ranked`, expected of ranks that are right at these rates, and each earlier one at `further` where one is."""
    places = np.arange(len(rates))
    precision = float((rates * (1 + places * further) / (places + 1)).sum()) / min(total, DEPTH)
    return {f"{what}mAP": min(precision, 1.0), f"{what}median rank": _half(np.cumprod(1.0 - rates))}


def _half(missed: NDArray[Any]) -> float:
    """The first rank by which half of all lists have something right, infinite where none is."""
    found = np.flatnonzero(missed <= 0.5)
    return float(found[0] + 1) if len(found) else np.inf


@lru_cache(maxsize=1 << 16)
def _window_rates(
    spans: tuple[tuple[float, float], ...], duration: float, thresholds: tuple[float, ...], agreeing: int
) -> dict[float, float]:
    """Share of the windows of a video, both ends uniform, that reach any of its true moments, by threshold."""
    edges = (np.arange(_GRID) + 0.5) / _GRID * duration
    ends = np.sort(np.stack(np.meshgrid(edges, edges), axis=-1).reshape(-1, 2), axis=1)
    overlaps = metrics.iou(ends[:, None], np.array(spans)[None], "true", empty=0.0)
    best = np.sort(overlaps, axis=1)[:, -(agreeing if len(spans) >= 4 else 1)]
    return {m: float((best >= m).mean()) for m in thresholds}
