"""Graded truth: every moment of a corpus of Shapes videos that satisfies a sentence, not only the annotated one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.io import write_json_lines
from vmr_common.types import as_moments
from vmr_shapes.generate import read_spec
from vmr_shapes.language import Clause, Meaning, in_order, sentences
from vmr_shapes.scene import Event, Scene, make_scene
from vmr_shapes.spec import SPLITS, ShapesSpec

Moments = NDArray[np.float64]


def satisfying(scene: Scene, meaning: Meaning) -> list[Event]:
    """The events of a scene that a sentence describes, by start.

    An event fits if it does the action and its thing has every attribute that the sentence names. Where the sentence
    places it by an anchor, some event that fits the anchor's clause must be over before it starts (`after`) or start
    when it is over (`before`), and be as near as the grammar asks of its own sentences.
    """
    fitting = [event for event in scene.events if meaning.main.fits(scene, event)]
    if meaning.anchor is None or meaning.order is None:
        return fitting
    anchors = [event for event in scene.events if meaning.anchor.fits(scene, event)]
    order = meaning.order
    return [event for event in fitting if any(in_order(scene, event, order, anchor) for anchor in anchors)]


def meanings(videos: Sequence[str], spec: ShapesSpec) -> dict[str, Meaning]:
    """The meaning of every query of some videos, by query id."""
    return {
        f"{video}_{n}": sentence.meaning
        for video in videos
        for n, sentence in enumerate(sentences(make_scene(video, spec), spec))
    }


def graded_truth(
    queries: Collection[str], videos: Collection[str], spec: ShapesSpec
) -> dict[str, dict[str, Moments]]:
    """All moments of a corpus that satisfy each query, ``(M, 2)`` seconds, by query id and video, by start.

    A video without such a moment is left out; a query whose own video belongs to the corpus has at least its annotated
    moment.

    Args:
        queries: Query ids, ``<video>_<n>``, of any videos of the data set.
        videos: Video ids of the corpus.
        spec: The data set.

    Raises:
        ValueError: if the data set has no such query or video.
    """
    asked = meanings(list(dict.fromkeys(query.rpartition("_")[0] for query in queries)), spec)
    unknown = next((query for query in queries if query not in asked), None)
    if unknown is not None:
        raise ValueError(f"no query {unknown!r} in this Shapes data set")
    scenes = [make_scene(video, spec) for video in dict.fromkeys(videos)]

    @cache  # many queries ask for the same clause
    def holding(clause: Clause) -> frozenset[int]:
        """Numbers of the scenes with an event that fits a clause."""
        return frozenset(
            number for number, scene in enumerate(scenes) if any(clause.fits(scene, e) for e in scene.events)
        )

    def of_query(meaning: Meaning) -> Iterator[tuple[str, Moments]]:
        numbers = holding(meaning.main)
        if meaning.anchor is not None:
            numbers &= holding(meaning.anchor)
        for scene in (scenes[number] for number in sorted(numbers)):
            found = satisfying(scene, meaning)
            if found:
                yield scene.video, as_moments([scene.moment(event) for event in found])

    return {query: dict(of_query(asked[query])) for query in queries}


def corpus_truth(
    folder: str | Path, queries: Collection[str], videos: Collection[str]
) -> Mapping[str, Mapping[str, Moments]]:
    """Graded truth of a Shapes folder, see `graded_truth`.

    Raises:
        UserError: if the folder holds no Shapes data set, or the data set no such query or video.
    """
    spec = read_spec(folder)
    try:
        return graded_truth(queries, videos, spec)
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from None


def write_truth(path: Path, spec: ShapesSpec, split: str, corpus: Collection[str] = SPLITS) -> int:
    """Writes the graded truth of a split as JSON lines, atomically; returns the number of queries.

    A line is ``{"qid": ..., "relevant": [["video", start, end], ...]}``, seconds, as `vmr-search eval` and `vmr-score`
    read it.

    Args:
        path: The file.
        spec: The data set.
        split: Whose queries.
        corpus: Splits whose videos are searched.
    """
    videos = [video for name in SPLITS if name in corpus for video in spec.videos(name)]
    truth = graded_truth(list(meanings(spec.videos(split), spec)), videos, spec)
    write_json_lines(path, ({"qid": query, "relevant": _rows(found)} for query, found in truth.items()))
    return len(truth)


def _rows(found: Mapping[str, Moments]) -> list[list[object]]:
    return [[video, *moment] for video, moments in found.items() for moment in moments.tolist()]
