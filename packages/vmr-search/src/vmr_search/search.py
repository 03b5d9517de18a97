"""`Search`: a sentence to ranked moments of a corpus, by retrieval alone or with a method that grounds them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted
from vmr_common.metrics import nms as suppress
from vmr_search.engine.moment_index import EVERYTHING, Filter, FoundVideo, MomentIndex
from vmr_search.grounding import Grounded, Grounder
from vmr_search.hits import Hit, Results
from vmr_search.ordered import Reading, in_order, reading_of
from vmr_search.retriever import Retriever

MOST_LETTERS = 1000
"""Of a sentence."""
MOST_HITS = 1000
"""Of an answer."""
VIDEOS = 20
"""Videos that are grounded, unless said otherwise."""
LEAST_PRESENCE = 1 / 3
"""Probability of the best answer up to which it is said that there is probably no such moment."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A sentence as an engine is asked for it.

    Attributes:
        vector: ``(size,)`` of the sentence, or of its main part.
        reading: Its two parts; None: it is searched as a whole.
        anchor: ``(size,)`` of the other part, or None.
    """

    vector: NDArray[np.float32]
    reading: Reading | None
    anchor: NDArray[np.float32] | None


class Search:
    """Finds moments of a corpus by a sentence.

    Args:
        engine: Vectors of the corpus.
        retriever: The model that made them.
        files: The video file of each id, where known.
        grounder: Grounds the moment in the retrieved videos; None: the retriever's windows are the answer.
        ordered: Sentences like "B after A" are searched as two parts in this order, see `ordered`; else as a whole.

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
        ordered: bool = True,
    ) -> None:
        self.engine, self.retriever, self.grounder = engine, retriever, grounder
        self.ordered = ordered
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
        per_video: int | None = None,
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
            per_video: Moments of one video at the most; None: all that are among the k best.
            exact: See `MomentIndex.search`.

        Raises:
            UserError: if a number is not possible, or the model knows no word of the sentence.
        """
        settings: dict[str, Any] = {"nms": nms, "per_video": per_video, "exact": exact}
        return self.many([text], k, where=where, least_score=least_score, videos=videos, **settings)[0]

    def many(
        self,
        texts: Sequence[str],
        k: int = 10,
        *,
        where: Filter = EVERYTHING,
        least_score: float | None = None,
        videos: int = VIDEOS,
        nms: float = 0.5,
        per_video: int | None = None,
        exact: bool = False,
    ) -> list[Results]:
        """As for one sentence, for several at once, which shares the scan."""
        _require_possible(texts, k, videos, per_video, nms)
        if not texts:
            return []
        start = time.perf_counter()
        asked = self.encoded(texts)
        encoded = time.perf_counter()
        found = self.retrieved(asked, k if self.grounder is None else videos, where, exact=exact)
        share = len(texts)
        seconds = {"sentence": (encoded - start) / share, "retrieve": (time.perf_counter() - encoded) / share}
        rules: dict[str, Any] = {
            "where": where,
            "least_score": least_score,
            "nms": nms,
            "per_video": per_video,
        }
        ranked = (
            self.ranked(text, videos_found, k, seconds=seconds, **rules)
            for text, videos_found in zip(texts, found, strict=True)
        )
        return [_read_as(one, results) for one, results in zip(asked, ranked, strict=True)]

    def encoded(self, texts: Sequence[str]) -> list[Asked]:
        """Sentences as vectors; of those in two parts, if the model knows a word of each, the vectors of both.

        Raises:
            UserError: naming the first sentence that cannot be searched for.
        """
        readings = [reading_of(text) if self.ordered else None for text in texts]
        parts = [part for one in readings if one is not None for part in (one.main, one.anchor)]
        unknown = {
            part
            for part, why in zip(parts, self.retriever.unsearchable(parts), strict=True)
            if why is not None
        }
        readings = [None if one and {one.main, one.anchor} & unknown else one for one in readings]
        phrases = [text if one is None else one.main for text, one in zip(texts, readings, strict=True)]
        anchors = [one.anchor for one in readings if one is not None]
        vectors = self.retriever.sentences([*phrases, *anchors])
        behind = iter(vectors[len(texts) :])
        return [
            Asked(vector, one, None if one is None else next(behind))
            for vector, one in zip(vectors[: len(texts)], readings, strict=True)
        ]

    def retrieved(
        self, asked: Sequence[Asked], n: int, where: Filter = EVERYTHING, *, exact: bool = False
    ) -> list[list[FoundVideo]]:
        """For each sentence the n best videos of the corpus, best first; see `MomentIndex.search`."""
        whole = [one.vector for one in asked if one.anchor is None]
        scanned = iter(self.engine.search(np.stack(whole), n, where, exact=exact) if whole else [])
        return [
            next(scanned)
            if one.anchor is None or one.reading is None
            else in_order(self.engine, one.vector, one.anchor, one.reading.order, n, where, exact=exact)
            for one in asked
        ]

    def ranked(
        self,
        text: str,
        found: Sequence[FoundVideo],
        k: int,
        *,
        where: Filter = EVERYTHING,
        least_score: float | None = None,
        nms: float = 0.5,
        per_video: int | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> Results:
        """The k best moments of a sentence in the videos that the engine found for it, see `__call__`.

        Args:
            text: The sentence.
            found: Videos, best first.
            k: Moments at the most.
            where: The windows among which the engine searched.
            least_score: Moments of a lower score are left out.
            nms: Largest overlap (IoU) of two moments of one video.
            per_video: Moments of one video at the most; None: any number.
            seconds: What the parts before took.
        """
        times, note = dict(seconds or {}), ""
        if self.grounder is None:
            grounded = None
            videos, moments = list(found), [video.windows for video in found]
            scores: list[NDArray[Any]] = [video.scores for video in found]
        else:
            start = time.perf_counter()
            pairs = zip(found, self.grounder.ground(text, found), strict=True)
            videos, grounded = _looked_into([(video, one) for video, one in pairs if one is not None], where)
            moments = [one.moments for one in grounded]
            scores = list(self.grounder.fuse(text, videos, grounded))
            times["ground"] = time.perf_counter() - start
        rows = _best(moments, scores, k, nms, k if per_video is None else min(per_video, k), least_score)
        hits = tuple(
            Hit(
                video=videos[video].video,
                start=float(moments[video][row, 0]),
                end=float(moments[video][row, 1]),
                score=float(scores[video][row]),
                duration=videos[video].duration,
                retrieval=float(scores[video][row]) if grounded is None else videos[video].best,
                grounding=None if grounded is None else float(grounded[video].scores[row]),
                presence=None if grounded is None else grounded[video].presence,
                file=self.files.get(videos[video].video),
            )
            for video, row in rows
        )
        if hits and hits[0].presence is not None and hits[0].presence <= LEAST_PRESENCE:
            note = f"probably no such moment (presence {100 * hits[0].presence:.0f} % in the best answer)"
        return Results(text=text, hits=hits, videos=len(self.engine), note=note, seconds=times)


def _read_as(asked: Asked, results: Results) -> Results:
    """The results with a remark where the sentence was searched in two parts."""
    if asked.reading is None:
        return results
    return replace(results, note="; ".join(filter(None, [f"searched as {asked.reading}", results.note])))


def _looked_into(
    pairs: Sequence[tuple[FoundVideo, Grounded]], where: Filter
) -> tuple[list[FoundVideo], list[Grounded]]:
    """Videos with the moments in them that a filter lets pass; those without any are left out."""
    videos, answers = [], []
    for video, one in pairs:
        keep = where.keeps(one.moments)
        if keep.any():
            videos.append(video)
            answers.append(replace(one, moments=one.moments[keep], scores=one.scores[keep]))
    return videos, answers


def _best(
    moments: Sequence[NDArray[np.float64]],
    scores: Sequence[NDArray[Any]],
    k: int,
    nms: float,
    per_video: int,
    least: float | None,
) -> list[tuple[int, int]]:
    """Video and row of the k best moments of several videos, of equal ones that of the video before.

    Args:
        moments: ``(M, 2)`` of each video.
        scores: ``(M,)`` of each.
        k: Moments at the most.
        nms: Largest overlap of two of one video.
        per_video: Moments of one video at the most.
        least: Score; None: any.
    """
    counts = np.array([len(part) for part in scores], dtype=np.int64)
    if not counts.sum():
        return []
    table, values = np.zeros((len(counts), counts.max(), 2)), np.full((len(counts), counts.max()), -np.inf)
    for number, (part, ranked) in enumerate(zip(moments, scores, strict=True)):
        table[number, : len(part)], values[number, : len(part)] = part, ranked
    kept = suppress(table, nms, limit=per_video, scores=values, counts=counts)  # (V, L), all videos at once
    videos, places = np.nonzero(kept >= 0)
    rows = kept[videos, places]
    found = values[videos, rows]
    order = np.argsort(-found, kind="stable")[:k]
    if least is not None:
        order = order[found[order] >= least]
    return list(zip(videos[order].tolist(), rows[order].tolist(), strict=True))


def _require_possible(texts: Sequence[str], k: int, videos: int, per_video: int | None, nms: float) -> None:
    for name, count in (("k", k), ("videos", videos), ("per_video", per_video)):
        if count is not None and not 1 <= count <= MOST_HITS:
            raise UserError(f"{name}: found {quoted(count)}, expected 1 to {MOST_HITS:,}")
    if not 0 <= nms <= 1:
        raise UserError(f"nms: found {quoted(nms)}, expected an overlap from 0 to 1")
    for text in texts:
        if not text.strip():
            raise UserError("the sentence is empty")
        if len(text) > MOST_LETTERS:
            raise UserError(f"the sentence has {len(text):,} letters, expected at most {MOST_LETTERS:,}")
