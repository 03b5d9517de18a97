"""Where the inputs of a run come from, for models that read one kind of features and word vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr_common.features.pooling import PreparedFeatures
from vmr_common.features.store import FeatureStore


@dataclass(frozen=True)
class FeatureInputs:
    """Features of videos and word vectors; a package says how they are opened. ``sources[video] -> (n, D) float32``.

    Attributes:
        features: By video, prepared and kept in memory, before they are standardised.
        word_vectors: GloVe text file.
    """

    features: PreparedFeatures
    word_vectors: Path

    @property
    def store(self) -> FeatureStore:
        """The feature files."""
        return self.features.store

    @property
    def words(self) -> list[Path]:
        """The files behind the words of queries."""
        return [self.word_vectors]

    def __getitem__(self, video: str) -> NDArray[np.float32]:
        """The features of one video, ``(n, D)``."""
        return self.features[video]
