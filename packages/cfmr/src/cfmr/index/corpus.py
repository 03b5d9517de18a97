"""Recall over a whole collection: an extension of the paper, which only searches inside one video."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfmr.index.encoder import Encoder
from vmr_common.errors import UserError, listed, quoted
from vmr_common.evaluation import measurable
from vmr_common.metrics import hits, iou
from vmr_common.timeline import to_seconds
from vmr_common.types import Query
from vmr_search.building import absent
from vmr_search.folder import CorpusIndex
from vmr_search.search import Search
from vmr_train.predict import progress_bar
from vmr_train.unknown_words import NAMED

logger = logging.getLogger(__name__)
QUERIES_AT_ONCE = 32
RANKS = (1, 5, 10)
THRESHOLD = 0.5
_NEVER = 1 << 30  # the rank of what is not found


@dataclass(frozen=True)
class CorpusScores:
    """Recall over a collection of `videos` videos for `queries` sentences, fractions by rank.

    Attributes:
        queries: Number of sentences.
        videos: Number of videos.
        video: Share of sentences whose video is among the first n.
        video_chance: The same for a random order.
        moment: Share with a right moment of the right video among the first n; empty where no sentence has a target.
        moment_chance: The same for proposals drawn at random.
        right: A right moment in words: by its overlap with annotated moments, or holding the glance where no sentence
            has any of these.
        located: Sentences with a target; `moment` counts these alone.
    """

    queries: int
    videos: int
    video: dict[int, float]
    video_chance: dict[int, float]
    moment: dict[int, float]
    moment_chance: dict[int, float]
    right: str
    located: int

    def text(self) -> str:
        """A table for the terminal."""
        rows = [("video", self.video), ("video, chance", self.video_chance)]
        if self.moment:
            rows += [(f"moment, {self.right}", self.moment), ("moment, chance", self.moment_chance)]
        width = max(20, *(len(name) + 2 for name, _ in rows))
        head = f"{'recall in %':<{width}}" + "".join(f"{'R@' + str(rank):>8}" for rank in RANKS)
        lines = [
            f"{name:<{width}}" + "".join(f"{100 * values[rank]:>8.2f}" for rank in RANKS)
            for name, values in rows
        ]
        about = f"whole collection: {self.queries:,} sentences, {self.videos:,} videos"
        if not self.moment:
            lines.append("no row of moments: the annotations hold neither moments nor glances")
        elif self.located < self.queries:
            lines.append(f"rows of moments: {self.located:,} of the sentences, those with a target")
        return "\n".join([about, head, *lines])


def measure(
    index: CorpusIndex, encoder: Encoder, queries: Sequence[Query], *, nms: float = 0.5
) -> CorpusScores:
    """Searches the whole index for every query; logs how many are left out, because it does not hold their video.

    A query without a word that the model knows finds nothing: it is named in the log, and a miss.

    Args:
        index: Holds videos of the queries.
        encoder: Its model.
        queries: Those to search for.
        nms: Largest overlap (IoU) of two moments of one video.

    Raises:
        UserError: before anything is searched, if the index holds no video of the queries, or the model knows no word
            of any.
    """
    asked, unheard = _asked(index, encoder, queries)
    by = measurable([*asked, *unheard])
    size, search = len(index.engine), Search(index.engine, index.retriever, ordered=False)
    video_rank = [_NEVER] * len(unheard)
    moment_rank = [_NEVER for query in unheard if _has_target(query, by)]
    batches = [asked[start : start + QUERIES_AT_ONCE] for start in range(0, len(asked), QUERIES_AT_ONCE)]
    for batch in progress_bar(batches, title="search", total=len(batches), unit="batch"):
        texts = [query.text for query in batch]
        ranked = index.engine.search(index.retriever.sentences(texts), max(RANKS))
        found = search.many(texts, max(RANKS), nms=nms)
        for query, videos, moments in zip(batch, ranked, found, strict=True):
            video_rank.append(_first([one.video == query.video for one in videos]))
            if _has_target(query, by):
                right = [
                    one.video == query.video and _is_right((one.start, one.end), query) for one in moments
                ]
                moment_rank.append(_first(right))
    located = [query for query in [*unheard, *asked] if _has_target(query, by)]
    chance = [_chance(encoder.moments, size, query) for query in located]
    p = np.array(chance)
    return CorpusScores(
        queries=len(asked) + len(unheard),
        videos=size,
        video={rank: _share(video_rank, rank) for rank in RANKS},
        video_chance={rank: min(rank / size, 1.0) for rank in RANKS},
        moment={rank: _share(moment_rank, rank) for rank in RANKS} if by else {},
        moment_chance={rank: float((1 - (1 - p) ** rank).mean()) for rank in RANKS} if by else {},
        right="holds the glance" if by == "glance" else f"IoU >= {THRESHOLD}",
        located=len(moment_rank),
    )


def _asked(index: CorpusIndex, encoder: Encoder, queries: Sequence[Query]) -> tuple[list[Query], list[Query]]:
    """The queries about videos of the index: those that the model can read, and the others."""
    missing = absent(index, [query.video for query in queries])
    gone = set(missing)
    held = [query for query in queries if query.video not in gone]
    if not held:
        raise UserError(
            f"{index.folder}: holds none of the {len(missing)} videos that the queries ask for, for example "
            f"{quoted(missing[0])}; add them with cfmr-index --add, or measure on queries of its videos"
        )
    if missing:
        logger.warning(
            "%d of %d queries are left out, because the index does not hold their videos: %s",
            len(queries) - len(held),
            len(queries),
            listed([quoted(video, 60) for video in missing], 3),
        )
    unknown = encoder.unknown_words(query.text for query in held)
    unheard = [held[number] for number in unknown.without]
    named = listed([f"{query.id} ({quoted(query.text, 60)})" for query in unheard], NAMED)
    if not unknown.answerable:
        raise UserError(f"the model knows no word of any query: {named}")
    if unheard:
        logger.warning(
            "no word that the model knows in %d of %d queries, which are misses: %s",
            *(len(unheard), len(held), named),
        )
    unknown.warn()
    left = set(unknown.without)
    return [query for number, query in enumerate(held) if number not in left], unheard


def _has_target(query: Query, by: str | None) -> bool:
    return len(query.moments) > 0 if by == "moments" else by == "glance" and query.glance is not None


def _is_right(moment: Sequence[float] | NDArray[np.float64], query: Query) -> bool:
    start, end = moment
    if not len(query.moments):
        return query.glance is not None and bool(start <= query.glance <= end)
    return bool(hits(iou(query.moments, np.array([start, end])), THRESHOLD).any())


def _chance(proposals: NDArray[np.float64], videos: int, query: Query) -> float:
    """The share of all proposals of an index that are right moments of a query."""
    fits = [_is_right(to_seconds(moment, query.duration), query) for moment in proposals]
    return float(np.mean(fits)) / videos


def _first(right: Sequence[bool]) -> int:
    return right.index(True) if True in right else _NEVER


def _share(ranks: Sequence[int], limit: int) -> float:
    return float(np.mean([rank < limit for rank in ranks]))
