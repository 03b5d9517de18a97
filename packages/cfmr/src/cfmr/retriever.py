"""CFMR as a retriever of `vmr-search`: vectors of every video's proposals, and of sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cfmr.index.encoder import Encoder
from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_train.known_features import require_known
from vmr_train.unknown_words import UNKNOWN, UnknownWords
from vmr_train.video_files import stored_manifest

if TYPE_CHECKING:
    from vmr_common.features.store import FeatureStore

NAME = "cfmr"


class CFMRRetriever:
    """A trained CFMR as `vmr_search.retriever.Retriever`; the inner product is the sum of K cosines.

    Args:
        encoder: The model.

    Attributes:
        name: ``cfmr``.
        size: Length of a vector: concepts x model width.
        facts: Nothing: the model's file says all.
        manifest: Of the features that it was trained on, where they had one.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.name, self.size = NAME, encoder.size
        self.facts: Mapping[str, Any] = {}
        self.encoder = encoder
        stored = stored_manifest(encoder.checkpoint.meta["describe"], "features")
        where = f"{encoder.checkpoint.path}: manifest of the features"
        self.manifest = None if stored is None else Manifest.from_mapping(stored, where)

    def identity(self) -> str:
        """SHA-256 over all that decides a vector, see `Encoder.hash`."""
        return self.encoder.hash()

    def save(self, path: Path) -> bool:
        """Writes the model as a checkpoint of its own, atomically; True."""
        self.encoder.save(path)
        return True

    def require_features(self, store: FeatureStore, *, allow_other: bool = False) -> None:
        """Raises `UserError` if the features are made in another way than the model's; with `allow_other` logs it."""
        trained = self.encoder.checkpoint.meta["describe"]
        require_known(self.encoder.config, store, trained, allow=allow_other)

    def windows(
        self, features: Sequence[NDArray[np.float32]], durations: Sequence[float]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float32]]]:
        """The proposals ``(P, 2)`` in seconds and their vectors ``(P, size)`` of videos by raw features ``(T, F)``."""
        if not features:
            return []
        vectors = self.encoder.encode_videos(features).numpy()  # (V, P, size)
        moments = self.encoder.moments
        return [(moments * seconds, rows) for seconds, rows in zip(durations, vectors, strict=True)]

    def unsearchable(self, texts: Sequence[str]) -> list[str | None]:
        """For each sentence None, or that the model knows no word of it."""
        return [None if self.encoder.knows(text, UnknownWords()) else UNKNOWN for text in texts]

    def sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors ``(Q, size)`` of sentences; raises `UserError` naming the first without a known word."""
        if not texts:
            return np.empty((0, self.size), dtype=np.float32)
        return self.encoder.encode_queries(texts).numpy()


def load(model: Path | None, facts: Mapping[str, Any], device: str = "auto") -> CFMRRetriever:
    """The retriever of a checkpoint or a run folder; `facts` are those of `CFMRRetriever`, which says nothing by them.

    Raises:
        UserError: if no model is given, or as `Encoder.load`.
    """
    if model is None:
        raise UserError("the retriever cfmr needs a model: a checkpoint or a run folder of cfmr-train")
    return CFMRRetriever(Encoder.load(model, device))
