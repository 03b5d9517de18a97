"""The retriever ``zero-shot``: windows of frames and sentences in the space of CLIP or SigLIP, without any training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted
from vmr_common.evaluation.zero_shot import ZERO_SHOT, require_shared_space
from vmr_common.features.manifest import Manifest, same_extractor
from vmr_common.schema import conform

if TYPE_CHECKING:
    from vmr_common.features.store import FeatureStore
    from vmr_video.sentences import SentenceEncoder

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
logger = logging.getLogger(__name__)

LENGTHS = (2.0, 4.0, 8.0, 16.0)
"""Seconds of the windows; each begins half a length after the one before."""
MOST = 8192
"""Windows of a video: where there would be more (from 73 minutes on) all lengths are doubled, again and again."""
_WIDEST = 65_536  # numbers of a row


class Facts(TypedDict):
    """All that makes the retriever.

    Attributes:
        size: Length of a row of features.
        manifest: That of the features.
        weights: Folder or name on a hub of the network, where it is not the one that the manifest names.
        lengths: See `LENGTHS`.
        most: See `MOST`.
    """

    size: int
    manifest: dict[str, Any]
    weights: NotRequired[str | None]
    lengths: NotRequired[list[float]]
    most: NotRequired[int]


def facts_of(
    manifest: Manifest | None,
    size: int,
    *,
    name: str = "features",
    extractor: str | None = None,
    weights: str | None = None,
) -> Facts:
    """The facts of a retriever over features of frames.

    Args:
        manifest: Of the features.
        size: Length of their rows.
        name: What they are called in messages.
        extractor: What made them, where they have no manifest that says so.
        weights: Where its network is here.

    Raises:
        UserError: if nothing says what made them, or it reads no sentences.
    """
    manifest = manifest or Manifest()
    if manifest.extractor is None:
        if extractor is None:
            raise UserError(
                f"{name}: no manifest says which network made these features; name it by --extractor"
            )
        logger.warning("%s: no manifest says what made these features; taken for %s", name, extractor)
        manifest = dataclasses.replace(manifest, extractor=extractor)
    elif extractor is not None and not same_extractor(manifest.extractor, extractor):
        raise UserError(f"{name}: made by {quoted(manifest.extractor, 80)}, --extractor says {extractor}")
    require_sentences(str(manifest.extractor))
    known = {field: value for field, value in dataclasses.asdict(manifest).items() if value is not None}
    return {"size": size, "manifest": known, "weights": weights, "lengths": [*LENGTHS], "most": MOST}


def require_sentences(extractor: str) -> None:
    """Raises `UserError` unless sentences have vectors in the space of an extractor's rows; names those that do."""
    from vmr_video.networks.presets import PRESETS

    known = [preset.name for preset in PRESETS if preset.text]
    if not any(same_extractor(name, extractor) for name in known):
        raise UserError(
            f"extractor: {quoted(extractor, 60)} reads no sentences, expected one of {', '.join(known)}"
        )


def load(model: Path | None, facts: Mapping[str, Any], device: str = "auto") -> ZeroShot:
    """The retriever of some facts; its network is loaded when the first sentence is encoded.

    Raises:
        UserError: if there is a model's file, or the facts are not such facts.
    """
    if model is not None:
        raise UserError(f"{model}: the retriever {ZERO_SHOT} has no model of its own, expected none")
    return ZeroShot(conform(dict(facts), Facts, f"retriever {ZERO_SHOT}"), device)


class ZeroShot:
    """Windows of several lengths, each the mean of the directions of its rows, and the vector of the sentence.

    Vectors have length 1, so that a score is a cosine. Nothing is subtracted from them: vectors of CLIP have a large
    part in common, which adds the same to all scores of a sentence and moves no rank.

    Args:
        facts: See `Facts`.
        device: Of the network, as `vmr_video.extractor.ExtractorOptions` has it.

    Raises:
        UserError: if a fact is not possible.
    """

    name = ZERO_SHOT

    def __init__(self, facts: Facts, device: str = "auto") -> None:
        self.facts: Mapping[str, Any] = facts
        self.size = facts["size"]
        self.manifest = Manifest.from_mapping(facts["manifest"], f"retriever {ZERO_SHOT}: manifest")
        self._lengths = sorted(facts.get("lengths") or LENGTHS)
        self._most = facts.get("most", MOST)
        if not (0 < self.size <= _WIDEST and self._lengths[0] > 0 and self._most > 0):
            raise UserError(
                f"retriever {ZERO_SHOT}: found size {self.size}, lengths {self._lengths}, most {self._most}, expected "
                f"a size from 1 to {_WIDEST}, lengths in seconds and a number of windows"
            )
        self._device = None if device == "auto" else device
        self._encoder: SentenceEncoder | None = None
        self._loading = threading.Lock()

    def identity(self) -> str:
        """SHA-256 over all that decides a vector; where the weights lie is nothing to it."""
        free = {"network", "dim", "dtype", "source", "creator", "decoder"}
        made = {name: value for name, value in self.facts["manifest"].items() if name not in free}
        if "weights_hash" not in made:
            made["network"] = self.manifest.network
        decisive = {"size": self.size, "manifest": made, "lengths": self._lengths, "most": self._most}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> bool:
        """False: the facts say all."""
        return False

    def require_features(self, store: FeatureStore, *, allow_other: bool = False) -> None:
        """Raises `UserError` if the features lie in another space than the sentences; with `allow_other` logs it."""
        try:
            require_shared_space(store.manifest, self.manifest, store.dim, self.size)
        except UserError as error:
            if not allow_other or store.dim != self.size:
                raise UserError(f"{store.name}: {error}") from None
            logger.warning("%s: %s", store.name, error)
        there, here = getattr(store.manifest, "stride_s", None), self.manifest.stride_s
        if there is not None and here is not None and abs(there - here) > 1e-6 * here:
            raise UserError(f"{store.name}: has a row per {there:g} s, the index one per {here:g} s")

    def windows(
        self, features: Sequence[Floats], durations: Sequence[float]
    ) -> list[tuple[NDArray[np.float64], Floats]]:
        """Windows ``(W, 2)`` in seconds and their vectors ``(W, size)`` of videos by their raw features ``(T, F)``."""
        return [self._windows(rows, duration) for rows, duration in zip(features, durations, strict=True)]

    def _windows(self, rows: Floats, duration: float) -> tuple[NDArray[np.float64], Floats]:
        if rows.ndim != 2 or rows.shape[1] != self.size or not len(rows):
            raise UserError(f"features of shape {rows.shape}, expected (T, {self.size})")
        stride = self.manifest.stride_s or duration / len(rows)
        # rows may go on where the annotated duration ends
        shown = min(len(rows), max(1, math.ceil(duration / stride - 1e-6)))
        places = window_rows(shown, stride, self._lengths, self._most)
        sums = np.zeros((shown + 1, self.size))
        np.cumsum(_directions(rows[:shown].astype(np.float64)), axis=0, out=sums[1:])
        vectors = _directions(sums[places[:, 1]] - sums[places[:, 0]]).astype(np.float32)
        times = np.minimum(places * stride, duration)
        times[places[:, 1] == shown, 1] = min(duration, (shown + 1) * stride)  # a rest of less than a row
        return times, vectors

    def unsearchable(self, texts: Sequence[str]) -> list[str | None]:
        """None for each: any sentence has a vector."""
        return [None] * len(texts)

    def sentences(self, texts: Sequence[str]) -> Floats:
        """Vectors ``(Q, size)`` of sentences, of length 1.

        Raises:
            UserError: if the network cannot be loaded, or is not the one that made the features.
        """
        if not texts:
            return np.zeros((0, self.size), np.float32)
        with self._loading:
            if self._encoder is None:
                self._encoder = self._loaded()
        vectors = np.stack([vector for _, vector in self._encoder(texts)])
        if vectors.shape[1] != self.size:
            require_shared_space(None, None, self.size, vectors.shape[1])
        return _directions(vectors.astype(np.float64)).astype(np.float32)

    def _loaded(self) -> SentenceEncoder:
        from vmr_video.extractor import ExtractorOptions, precision_of
        from vmr_video.sentences import SentenceEncoder

        assert self.manifest.extractor is not None
        options = ExtractorOptions(
            weights=self.facts.get("weights") or self.manifest.network,
            device=self._device,
            precision=precision_of(self.manifest),
        )
        encoder = SentenceEncoder(self.manifest.extractor, options)
        require_shared_space(self.manifest, encoder.manifest(), self.size, self.size)
        return encoder


def window_rows(count: int, stride: float, lengths: Sequence[float], most: int) -> Rows:
    """Windows ``(W, 2)`` of a video of `count` rows, first row and the one behind the last; all rows are in one.

    Args:
        count: Rows of the video.
        stride: Seconds from one row to the next.
        lengths: Of the windows, seconds; each begins half a length after the one before.
        most: Windows at the most: all lengths are doubled until there are no more.

    Example:
        >>> window_rows(4, 1.0, [2.0, 4.0], 10).tolist()
        [[0, 2], [1, 3], [2, 4], [0, 4]]
        >>> window_rows(4, 1.0, [2.0, 4.0], 2).tolist()
        [[0, 4]]
    """
    widths = [max(round(length / stride), 1) for length in lengths]
    while True:
        kept = list(dict.fromkeys(min(width, count) for width in widths))
        if len(kept) == 1 and kept[0] == count:
            return np.array([[0, count]])
        if sum(count / width for width in kept) <= most:  # before millions are made
            found = [_of_width(count, width) for width in kept]
            if sum(map(len, found)) <= most:
                return np.concatenate(found)
        widths = [2 * width for width in widths]


def _of_width(count: int, width: int) -> Rows:
    starts = np.arange(0, count - width + 1, max(width // 2, 1))
    if starts[-1] + width < count:
        starts = np.append(starts, count - width)
    return np.stack([starts, starts + width], axis=1)


def _directions(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)
