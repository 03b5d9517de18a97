"""`Search`: a sentence to ranked moments of a corpus, by retrieval alone or with a method that grounds them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vmr_common.errors import UserError, quoted
from vmr_common.metrics import nms as suppress
from vmr_search.engine.moment_index import EVERYTHING, Filter, FoundVideo, MomentIndex
from vmr_search.grounding import Grounded, Grounder
from vmr_search.hits import Hit, Results
from vmr_search.retriever import Retriever

MOST_LETTERS = 1000
"""Of a sentence."""
MOST_HITS = 1000
"""Of an answer."""
VIDEOS = 20
"""Videos that are grounded, unless said otherwise."""


class Search:
    """Finds moments of a corpus by a sentence.

    Args:
        engine: Vectors of the corpus.
        retriever: The model that made them.
        files: The video file of each id, where known.
        grounder: Grounds the moment in the retrieved videos; None: the retriever's windows are the answer.

    Example:
        >>> import vmr_search
        >>> search = vmr_search.open("index/mine")  # doctest: +SKIP
        >>> search("a person opens the door", k=3)  # doctest: +SKIP
    """

    def __init__(
        self,
        engine: MomentIndex,
        retriever: Retriever,
        *,
        files: Mapping[str, Path] | None = None,
        grounder: Grounder | None = None,
    ) -> None:
        self.engine, self.retriever, self.grounder = engine, retriever, grounder
        self.files: Mapping[str, Path] = files or {}

    def __call__(
        self,
        text: str,
        k: int = 10,
        *,
        where: Filter = EVERYTHING,
        least_score: float | None = None,
        videos: int = VIDEOS,
        nms: float = 0.5,
        exact: bool = False,
    ) -> Results:
        """The k best moments of a sentence.

        Args:
            text: The sentence.
            k: Moments at the most.
            where: Which videos and windows are searched.
            least_score: Moments of a lower score are left out.
            videos: With a grounder, how many of the retrieved videos it looks into.
            nms: Largest overlap (IoU) of two moments of one video.
            exact: See `MomentIndex.search`.

        Raises:
            UserError: if a number is not possible, or the model knows no word of the sentence.
        """
        return self.many(
            [text], k, where=where, least_score=least_score, videos=videos, nms=nms, exact=exact
        )[0]

    def many(
        self,
        texts: Sequence[str],
        k: int = 10,
        *,
        where: Filter = EVERYTHING,
        least_score: float | None = None,
        videos: int = VIDEOS,
        nms: float = 0.5,
        exact: bool = False,
    ) -> list[Results]:
        """As for one sentence, for several at once, which shares the scan."""
        _require_possible(texts, k, videos, nms)
        if not texts:
            return []
        start = time.perf_counter()
        vectors = self.retriever.sentences(texts)
        encoded = time.perf_counter()
        wanted = k if self.grounder is None else videos
        found = self.engine.search(vectors, wanted, where, exact=exact)
        share = len(texts)
        seconds = {"sentence": (encoded - start) / share, "retrieve": (time.perf_counter() - encoded) / share}
        return [
            self._ranked(text, videos_found, k, where, least_score, nms, dict(seconds))
            for text, videos_found in zip(texts, found, strict=True)
        ]

    def _ranked(
        self,
        text: str,
        found: list[FoundVideo],
        k: int,
        where: Filter,
        least_score: float | None,
        nms: float,
        seconds: dict[str, float],
    ) -> Results:
        if self.grounder is None:
            hits = [hit for video in found for hit in _windows_of(video, k, nms)]
        else:
            start = time.perf_counter()
            hits = self._grounded(text, found, where, k, nms)
            seconds["ground"] = time.perf_counter() - start
        hits.sort(key=lambda hit: -hit.score)  # stable: of equal ones the video found first
        if least_score is not None:
            hits = [hit for hit in hits if hit.score >= least_score]
        named = tuple(replace(hit, file=self.files.get(hit.video)) for hit in hits[:k])
        return Results(text=text, hits=named, videos=len(self.engine), seconds=seconds)

    def _grounded(self, text: str, found: list[FoundVideo], where: Filter, k: int, nms: float) -> list[Hit]:
        assert self.grounder is not None
        pairs = zip(found, self.grounder.ground(text, found), strict=True)
        known: list[tuple[FoundVideo, Grounded]] = [(video, one) for video, one in pairs if one is not None]
        scores = self.grounder.fuse(text, [video for video, _ in known], [one for _, one in known])
        hits = []
        for (video, one), fused in zip(known, scores, strict=True):
            order = np.flatnonzero(where.keeps(one.moments))
            kept = (
                order[suppress(one.moments[order], nms, limit=k, scores=fused[order])]
                if len(order)
                else order
            )
            hits += [
                Hit(
                    video=video.video,
                    start=float(one.moments[row, 0]),
                    end=float(one.moments[row, 1]),
                    score=float(fused[row]),
                    duration=video.duration,
                    retrieval=video.best,
                    grounding=float(one.scores[row]),
                    presence=one.presence,
                )
                for row in kept.tolist()
            ]
        return hits


def _windows_of(video: FoundVideo, k: int, nms: float) -> list[Hit]:
    """The best windows of a video as hits, after suppression."""
    kept = suppress(video.windows, nms, limit=k, scores=video.scores)
    return [
        Hit(
            video=video.video,
            start=float(video.windows[row, 0]),
            end=float(video.windows[row, 1]),
            score=float(video.scores[row]),
            duration=video.duration,
            retrieval=float(video.scores[row]),
        )
        for row in kept.tolist()
    ]


def _require_possible(texts: Sequence[str], k: int, videos: int, nms: float) -> None:
    if not 1 <= k <= MOST_HITS:
        raise UserError(f"k: found {quoted(k)}, expected 1 to {MOST_HITS:,}")
    if not 1 <= videos <= MOST_HITS:
        raise UserError(f"videos: found {quoted(videos)}, expected 1 to {MOST_HITS:,}")
    if not 0 <= nms <= 1:
        raise UserError(f"nms: found {quoted(nms)}, expected an overlap from 0 to 1")
    for text in texts:
        if not text.strip():
            raise UserError("the sentence is empty")
        if len(text) > MOST_LETTERS:
            raise UserError(f"the sentence has {len(text):,} letters, expected at most {MOST_LETTERS:,}")
