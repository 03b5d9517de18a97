"""Recall over a whole collection: an extension of the paper, which only searches inside one video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfmr.index.video_index import QUERIES_AT_ONCE, VideoIndex
from vmr_common.errors import UserError, quoted
from vmr_common.metrics import hits, iou
from vmr_common.timeline import to_seconds
from vmr_common.types import Query
from vmr_train.predict import progress_bar
from vmr_train.unknown_words import UnknownWords

RANKS = (1, 5, 10)
THRESHOLD = 0.5


@dataclass(frozen=True)
class CorpusScores:
    """Recall over a collection of `videos` videos for `queries` sentences, fractions by rank.

    Attributes:
        queries: Number of sentences.
        videos: Number of videos.
        video: Share of sentences whose video is among the first n.
        video_chance: The same for a random order.
        moment: Share with a moment of the right video at IoU >= 0.5 among the first n.
        moment_chance: The same for proposals drawn at random.
    """

    queries: int
    videos: int
    video: dict[int, float]
    video_chance: dict[int, float]
    moment: dict[int, float]
    moment_chance: dict[int, float]

    def text(self) -> str:
        """A table for the terminal."""
        rows = (
            ("video", self.video),
            ("video, chance", self.video_chance),
            (f"moment, IoU >= {THRESHOLD}", self.moment),
            ("moment, chance", self.moment_chance),
        )
        head = f"{'recall in %':<20}" + "".join(f"{'R@' + str(rank):>8}" for rank in RANKS)
        lines = [
            f"{name:<20}" + "".join(f"{100 * values[rank]:>8.2f}" for rank in RANKS) for name, values in rows
        ]
        about = f"whole collection: {self.queries:,} sentences, {self.videos:,} videos"
        return "\n".join([about, head, *lines])


def measure(
    index: VideoIndex,
    queries: Sequence[Query],
    *,
    nms: float = 0.5,
    device: str = "cpu",
    shared: bool = False,
) -> CorpusScores:
    """Searches the whole index for every query.

    Args:
        index: Must hold the queries' videos.
        queries: With at least one moment each.
        nms: See `VideoIndex.search`.
        device: See there.
        shared: See there.

    Raises:
        UserError: before anything is searched, if a query's video is not in the index, or the model knows no word of
            a sentence.
    """
    _require_answerable(index, queries)
    video_rank, moment_rank, chance = [], [], []
    size = len(index)
    batches = [queries[start : start + QUERIES_AT_ONCE] for start in range(0, len(queries), QUERIES_AT_ONCE)]
    for batch in progress_bar(batches, title="search", total=len(batches), unit="batch"):
        texts = [query.text for query in batch]
        ranked = index.rank_videos(texts, max(RANKS), device=device, shared=shared)
        vectors = index.encoder.encode_queries(texts)
        found = index.search_vectors(vectors, max(RANKS), nms=nms, device=device, shared=shared)
        for query, videos, moments in zip(batch, ranked, found, strict=True):
            video_rank.append(_first([video == query.video for video, _ in videos]))
            right = [
                moment.video == query.video and _overlaps(np.array([moment.start, moment.end]), query)
                for moment in moments
            ]
            moment_rank.append(_first(right))
            fits = [_overlaps(to_seconds(moment, query.duration), query) for moment in index.moments]
            chance.append(float(np.mean(fits)) / size)
    p = np.array(chance)
    return CorpusScores(
        queries=len(queries),
        videos=size,
        video={rank: _share(video_rank, rank) for rank in RANKS},
        video_chance={rank: min(rank / size, 1.0) for rank in RANKS},
        moment={rank: _share(moment_rank, rank) for rank in RANKS},
        moment_chance={rank: float((1 - (1 - p) ** rank).mean()) for rank in RANKS},
    )


def _require_answerable(index: VideoIndex, queries: Sequence[Query]) -> None:
    missing = index.absent(query.video for query in queries)
    if missing:
        raise UserError(
            f"{index.folder}: holds no video {quoted(missing[0])}, which the queries ask for ({len(missing)} are "
            "missing); add them with cfmr-index --add, or measure on queries of its videos"
        )
    unknown = UnknownWords()
    for query in queries:
        if not index.encoder.knows(query.text, unknown):
            raise UserError(f"query {quoted(query.id)}: the model knows no word of {quoted(query.text)}")
    unknown.warn()


def _overlaps(moment: np.ndarray, query: Query) -> bool:
    return bool(hits(iou(query.moments, moment), THRESHOLD).any())


def _first(right: Sequence[bool]) -> int:
    return right.index(True) if True in right else 1 << 30


def _share(ranks: Sequence[int], limit: int) -> float:
    return float(np.mean([rank < limit for rank in ranks]))
