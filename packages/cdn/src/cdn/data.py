"""Features and queries as CDN's tensors (spec of the data: released loaders).

Batches are those of `vmr_common.training.map_supervised`, which LEORN makes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cdn.config import Config
from vmr_common.experiment import open_features
from vmr_common.features import FeatureStore
from vmr_common.pooling import PreparedFeatures, pooled_features
from vmr_common.records import Query
from vmr_common.text import WordLookup
from vmr_common.training.map_supervised import MapBatch, MapExamples, MapInputs

Batch = MapBatch[Tensor]
QueryExamples = MapExamples[Tensor]


@dataclass(frozen=True)
class Sources:
    """Where the inputs of a run come from.

    Attributes:
        frames: Frame features by video, pooled to F rows and kept in memory.
        word_vectors: GloVe text file.
    """

    frames: PreparedFeatures
    word_vectors: Path

    @classmethod
    def open(cls, config: Config, data_root: Path) -> Sources:
        """The files that a configuration names under a data root.

        Raises:
            UserError: as `open_features`.
        """
        data = config.data
        store = open_features(data.features, data_root)
        frames = pooled_features(store, data.frames, unit=data.unit)
        return cls(frames, data_root / data.word_vectors)

    @property
    def store(self) -> FeatureStore:
        """The feature files."""
        return self.frames.store

    def __getitem__(self, video: str) -> NDArray[np.float32]:
        """The pooled features of one video, ``(F, D)``, before they are standardised."""
        return self.frames[video]


def make_examples(
    config: Config, learned: MapInputs, sources: Sources, queries: Sequence[Query]
) -> QueryExamples:
    """Queries as batches; the vectors of words that training did not meet are read now."""
    return QueryExamples(
        queries,
        learned.apply_scale(sources.frames),
        WordLookup(learned.words, sources.word_vectors),
        config.data.words_of,
        clips=config.model.clips,
    )
