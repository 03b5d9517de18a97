"""The second stage by any installed paper: its moments in the videos that were found, and one score of both stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted
from vmr_common.features.store import FeatureStore
from vmr_common.metrics import iou
from vmr_search.engine.moment_index import FoundVideo
from vmr_search.grounding import Grounded
from vmr_search.methods import Method, open_method

MOMENTS = 10
"""Moments of each video that the method gives."""
WEIGHT = 0.25
"""Share of the method in the fused score, see `MethodGrounder.fuse`."""
_NEAR = 0.5  # overlap at which a window speaks for a moment
Floats = NDArray[np.float64]


class MethodGrounder:
    """A trained method over the features of a corpus.

    A video of at most `context` seconds is read whole. Of a longer one the method reads a stretch of that length
    around the best window that was found, as far as it lies inside the video.

    Args:
        method: The trained method.
        store: Raw features of the corpus; None: the method's own data, where the videos have the same ids.
        weight: Share of the method in the fused score, from 0 (the retriever alone ranks) to 1.
        context: Seconds; None: every video is read whole.
        k: Moments of each video.

    Raises:
        UserError: if a number is not possible.
    """

    def __init__(
        self,
        method: Method,
        store: FeatureStore | None = None,
        *,
        weight: float = WEIGHT,
        context: float | None = None,
        k: int = MOMENTS,
    ) -> None:
        if not 0 <= weight <= 1:
            raise UserError(f"weight: found {quoted(weight)}, expected a share from 0 to 1")
        if context is not None and not context > 0:
            raise UserError(f"context: found {quoted(context)}, expected seconds above 0")
        self.method, self.store = method, store
        self.weight, self.context, self.k = weight, context, k
        self._manifest = None if store is None else store.manifest

    def ground(self, text: str, found: Sequence[FoundVideo]) -> list[Grounded | None]:
        """The moments of a sentence in each of some videos, see `Grounder.ground`.

        Raises:
            UserError: if no video has features, or as the method: it knows no word of the sentence, or the features
                are not those of its training.
        """
        store = self.method.inputs.store if self.store is None else self.store
        known = [number for number, one in enumerate(found) if one.video in store]
        if found and not known:
            raise UserError(
                f"{store.name}: none of {len(found):,} found videos has features there (first: "
                f"{quoted(found[0].video)})"
            )
        answers: list[Grounded | None] = [None] * len(found)
        if not known:
            return answers
        asked = [found[number] for number in known]
        begins = np.zeros(len(known))
        if self.store is None:
            videos: list[object] = [one.video for one in asked]
            durations = [one.duration for one in asked]
        else:
            stretches = [self._stretch(one) for one in asked]
            videos = [rows for rows, _, _ in stretches]
            begins = np.array([begin for _, begin, _ in stretches])
            durations = [seconds for _, _, seconds in stretches]
        given = self.method.predict_many(videos, text, self.k, durations=durations, manifest=self._manifest)
        for number, begin, answer in zip(known, begins.tolist(), given, strict=True):
            answers[number] = Grounded(answer.moments + begin, answer.scores, answer.presence)
        return answers

    def _stretch(self, found: FoundVideo) -> tuple[NDArray[np.float32], float, float]:
        """Rows that the method reads of a video, where they begin, and how long they are, seconds."""
        assert self.store is not None
        rows = self.store[found.video]
        if self.context is None or found.duration <= self.context:
            return rows, 0.0, found.duration
        step = found.duration / len(rows)
        count = min(max(round(self.context / step), 1), len(rows))
        middle = float(found.windows[found.scores.argmax()].mean()) / step
        first = min(max(round(middle - count / 2), 0), len(rows) - count)
        return rows[first : first + count], first * step, count * step

    def fuse(self, text: str, found: Sequence[FoundVideo], grounded: Sequence[Grounded]) -> list[Floats]:
        """The score of every moment of a sentence, ``(M,)`` by video: both stages in units of their own spread.

        It is ``(1 - weight) r + weight g``: r is the highest score of the windows found in the video that overlap the
        moment by at least half, the lowest of the video where none does; g is the method's score. Each is taken less
        its mean over all candidates of the sentence, and divided by their deviation. Form and weight were chosen on
        validation queries of Shapes (docs/metrics.md).
        """
        pairs = zip(found, grounded, strict=True)
        retrieved = _standardised([_supported(one.moments, video) for video, one in pairs])
        method = _standardised([one.scores for one in grounded])
        return [
            (1 - self.weight) * first + self.weight * second
            for first, second in zip(retrieved, method, strict=True)
        ]


def _supported(moments: Floats, video: FoundVideo) -> Floats:
    """The highest score of the windows that overlap each moment by at least half, ``(M,)``; else the lowest of all."""
    near = iou(moments[:, None], video.windows[None], "true", empty=0.0) >= _NEAR
    found: Floats = np.where(near, video.scores[None].astype(np.float64), video.scores.min()).max(axis=1)
    return found


def _standardised(parts: Sequence[Floats]) -> list[Floats]:
    """Values less their mean, divided by their deviation, over all parts; 0 where all are alike."""
    if not parts:
        return []
    every = np.concatenate(parts)
    deviation = float(every.std()) if len(every) else 0.0
    return [(part - every.mean()) / deviation if deviation > 1e-12 else np.zeros(len(part)) for part in parts]


def open_grounder(
    checkpoint: str | Path,
    features: Sequence[Path] | None = None,
    *,
    device: str = "cpu",
    weight: float = WEIGHT,
    context: float | None = None,
    data_root: str | Path | None = None,
    allow_other_features: bool = False,
) -> MethodGrounder:
    """The second stage of a checkpoint or a run folder of an installed paper.

    Args:
        checkpoint: A checkpoint file, or a run folder.
        features: Files of the features of the corpus, joined; None: the method's own data.
        device: Where it computes.
        weight: See `MethodGrounder`.
        context: See `MethodGrounder`; None: the length of the longest video that the method was trained on, where its
            training annotations are at hand, else every video is read whole.
        data_root: Folder of the method's own data; None: the one that it was trained with.
        allow_other_features: Features may be made in another way than those of its training.

    Raises:
        UserError: as `open_method` and `MethodGrounder`, or if the features cannot be opened.
    """
    method = open_method(
        checkpoint, data_root=data_root, device=device, allow_other_features=allow_other_features
    )
    store = None if features is None else FeatureStore(list(features))
    longest = method.longest_trained() if context is None else context
    return MethodGrounder(method, store, weight=weight, context=longest)
