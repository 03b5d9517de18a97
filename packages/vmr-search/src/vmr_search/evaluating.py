"""Measures how well a corpus search finds the moments of annotated queries, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.evaluation.corpus import DEPTH, CorpusPrediction
from vmr_common.types import Query
from vmr_search.engine.moment_index import FoundVideo
from vmr_search.grounding import Grounded
from vmr_search.hits import Results
from vmr_search.search import Search

TRUTHS = "vmr_common.corpus_truth"
"""Entry points: name of a data set -> a function of its folder, query ids and video ids."""
TIMED = 100
"""Queries whose time is measured, one after the other."""
_AT_ONCE = 32  # queries that share a scan

Found = list[FoundVideo]
Truth = dict[str, list[tuple[str, float, float]]]


class _Known:
    """The answers of a grounder that were found before, of as many videos as are asked for."""

    def __init__(self, grounder: Any, answers: Sequence[Grounded | None]) -> None:
        self._grounder, self._answers = grounder, answers

    def ground(self, text: str, found: Sequence[FoundVideo]) -> list[Grounded | None]:
        return list(self._answers[: len(found)])

    def fuse(
        self, text: str, found: Sequence[FoundVideo], grounded: Sequence[Grounded]
    ) -> list[NDArray[np.float64]]:
        fused: list[NDArray[np.float64]] = self._grounder.fuse(text, found, grounded)
        return fused


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of a search to queries.

    Attributes:
        retrieved: Of the retriever alone.
        grounded: Of both stages, by the number of videos that the second looked into; empty without one.
        unsearchable: Why a query could not be searched for, by id; its prediction is empty.
    """

    retrieved: list[CorpusPrediction]
    grounded: dict[int, list[CorpusPrediction]]
    unsearchable: dict[str, str]


def answers_of(
    search: Search,
    queries: Sequence[Query],
    looked_into: Sequence[int] = (),
    *,
    nms: float = 0.5,
    exact: bool = False,
    progress: Callable[[int], object] = lambda count: None,
) -> Answers:
    """The first `DEPTH` moments of every query, by the retriever alone and by both stages.

    Videos are ranked by the retriever; those that a method looked into come first, by their best fused moment.
    A method is asked once, of the largest number of videos; what it says of a video does not hang on the others.

    Args:
        search: With or without a second stage.
        queries: Of any videos.
        looked_into: Numbers of videos that the second stage looks into; none without one.
        nms: Largest overlap of two moments of a video.
        exact: See `MomentIndex.search`.
        progress: Called with the number of queries that are done.
    """
    alone = Search(search.engine, search.retriever, ordered=search.ordered)
    most, numbers = max(looked_into, default=0), sorted(set(looked_into))
    why = search.retriever.unsearchable([query.text for query in queries])
    silent = {query.id: reason for query, reason in zip(queries, why, strict=True) if reason is not None}
    retrieved: list[CorpusPrediction] = []
    grounded: dict[int, list[CorpusPrediction]] = {number: [] for number in numbers}
    asked = [query for query in queries if query.id not in silent]
    for batch in (asked[start : start + _AT_ONCE] for start in range(0, len(asked), _AT_ONCE)):
        vectors = search.encoded([query.text for query in batch])
        for query, found in zip(batch, search.retrieved(vectors, max(DEPTH, most), exact=exact), strict=True):
            results = alone.ranked(query.text, found[:DEPTH], DEPTH, nms=nms)
            order = [video.video for video in found]
            retrieved.append(_prediction(query, results, order))
            if search.grounder is not None and numbers:
                known = _Known(search.grounder, search.grounder.ground(query.text, found[:most]))
                second = Search(search.engine, search.retriever, grounder=known)
                for number in numbers:
                    results = second.ranked(query.text, found[:number], DEPTH, nms=nms)
                    first = [hit.video for hit in results]
                    grounded[number].append(_prediction(query, results, [*first, *order]))
        progress(len(batch))
    return Answers(retrieved=retrieved, grounded=grounded, unsearchable=silent)


def _prediction(query: Query, results: Results, order: Sequence[str]) -> CorpusPrediction:
    return CorpusPrediction(
        query=query.id,
        videos=tuple(hit.video for hit in results),
        moments=np.array([(hit.start, hit.end) for hit in results]).reshape(-1, 2),
        scores=np.array([hit.score for hit in results]),
        text=query.text,
        ranked_videos=tuple(dict.fromkeys(order))[:DEPTH],
    )


@dataclass(frozen=True)
class Times:
    """Seconds of a query, ``(Q,)`` each: of the processor, and on the wall."""

    processor: NDArray[np.float64]
    wall: NDArray[np.float64]

    def quantiles(self) -> dict[str, float]:
        """Half, and 95 of 100, of the queries take at most this."""
        return {
            f"{name} p{share}": float(np.percentile(getattr(self, name), share))
            for name in ("processor", "wall")
            for share in (50, 95)
        }


def times_of(
    search: Search, queries: Sequence[Query], *, k: int = 10, videos: int = 20, exact: bool = False
) -> Times:
    """The time that whole requests take: the sentence, the scan, the second stage; one query after the other.

    At most `TIMED` queries are asked, spread evenly; one more is asked first, and does not count.
    """
    why = search.retriever.unsearchable([query.text for query in queries])
    asked = [query.text for query, reason in zip(queries, why, strict=True) if reason is None]
    asked = [asked[place] for place in np.linspace(0, len(asked) - 1, min(TIMED, len(asked))).astype(int)]
    rows = []
    for text in asked[:1] + asked:
        processor, wall = time.process_time(), time.perf_counter()
        search(text, k, videos=videos, exact=exact)
        rows.append((time.process_time() - processor, time.perf_counter() - wall))
    table = np.array(rows[1:]).reshape(-1, 2)
    return Times(table[:, 0], table[:, 1])


def against_exact(
    search: Search, queries: Sequence[Query], n: int = 10, nms: float = 0.5
) -> dict[str, float]:
    """The share of the exact first `n` videos, and of the exact first `n` moments, that an approximate search finds."""
    alone = Search(search.engine, search.retriever)
    why = search.retriever.unsearchable([query.text for query in queries])
    asked = [query.text for query, reason in zip(queries, why, strict=True) if reason is None]
    shares: dict[str, list[float]] = {"videos": [], "moments": []}
    for batch in (asked[start : start + _AT_ONCE] for start in range(0, len(asked), _AT_ONCE)):
        vectors = search.encoded(batch)
        both = [search.retrieved(vectors, n, exact=exact) for exact in (True, False)]
        for text, exact, found in zip(batch, *both, strict=True):
            for name, sets in (
                ("videos", [{video.video for video in one} for one in (exact, found)]),
                ("moments", [_moments(alone.ranked(text, one, n, nms=nms)) for one in (exact, found)]),
            ):
                shares[name].append(len(sets[0] & sets[1]) / max(len(sets[0]), 1))
    return {name: float(np.mean(values)) if values else float("nan") for name, values in shares.items()}


def _moments(results: Results) -> set[Any]:
    return {(hit.video, hit.start, hit.end) for hit in results}


def known_truth(split: str, root: Path, queries: Collection[str], videos: Collection[str]) -> Truth | None:
    """Graded truth of a registered split whose data set knows it, None where none does.

    Args:
        split: Its name, such as shapes/test.
        root: The data root, which holds a folder of the data set's name.
        queries: Query ids.
        videos: Ids of the videos of the corpus.

    Raises:
        UserError: as the data set, for example if a video is not its own.
    """
    data_set = split.partition("/")[0]
    for point in entry_points(group=TRUTHS):
        if point.name == data_set:
            truth: Mapping[str, Mapping[str, NDArray[np.float64]]] = point.load()(
                root / data_set, queries, videos
            )
            return {
                query: [(video, *span) for video, spans in found.items() for span in spans.tolist()]
                for query, found in truth.items()
            }
    return None
