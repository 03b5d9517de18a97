"""Recall over a whole collection: an extension of the paper, which only searches inside one video."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfmr.index.video_index import QUERIES_AT_ONCE, VideoIndex
from vmr_common.errors import UserError, listed, quoted
from vmr_common.metrics import hits, iou
from vmr_common.timeline import to_seconds
from vmr_common.types import Query
from vmr_train.predict import progress_bar
from vmr_train.unknown_words import UnknownWords

logger = logging.getLogger(__name__)
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
    """Searches the whole index for every query; logs how many are left out, because it does not hold their video.

    Args:
        index: Holds videos of the queries.
        queries: With at least one moment each.
        nms: See `VideoIndex.search`.
        device: See there.
        shared: See there.

    Raises:
        UserError: before anything is searched, if the index holds no video of the queries, or the model knows no word
            of a sentence.
    """
    queries = _answerable(index, queries)
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


def _answerable(index: VideoIndex, asked: Sequence[Query]) -> list[Query]:
    missing = index.absent(query.video for query in asked)
    gone = set(missing)
    queries = [query for query in asked if query.video not in gone]
    if not queries:
        raise UserError(
            f"{index.folder}: holds none of the {len(missing)} videos that the queries ask for, for example "
            f"{quoted(missing[0])}; add them with cfmr-index --add, or measure on queries of its videos"
        )
    if missing:
        logger.warning(
            "%d of %d queries are left out, because the index does not hold their videos: %s",
            len(asked) - len(queries),
            len(asked),
            listed([quoted(video, 60) for video in missing], 3),
        )
    unknown = UnknownWords()
    for query in queries:
        if not index.encoder.knows(query.text, unknown):
            raise UserError(f"query {quoted(query.id)}: the model knows no word of {quoted(query.text)}")
    unknown.warn()
    return queries


def _overlaps(moment: np.ndarray, query: Query) -> bool:
    return bool(hits(iou(query.moments, moment), THRESHOLD).any())


def _first(right: Sequence[bool]) -> int:
    return right.index(True) if True in right else 1 << 30


def _share(ranks: Sequence[int], limit: int) -> float:
    return float(np.mean([rank < limit for rank in ranks]))
