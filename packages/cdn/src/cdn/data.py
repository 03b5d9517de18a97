"""Features and queries as CDN's tensors (as the released loaders make them).

Batches are those of `vmr_train.map_supervised`, which LEORN makes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from cdn.config import Config
from vmr_common.features.config import open_features
from vmr_common.features.pooling import pooled_features
from vmr_common.text.vectors import WordLookup
from vmr_common.types import Query
from vmr_train.map_supervised import MapBatch, MapExamples, MapInputs
from vmr_train.sources import FeatureInputs

Batch = MapBatch[Tensor]
QueryExamples = MapExamples[Tensor]


class InputFeatures(FeatureInputs):
    """Frame features by video, pooled to F rows, and word vectors."""

    @classmethod
    def open(cls, config: Config, data_root: Path) -> InputFeatures:
        """The files that a configuration names under a data root.

        Raises:
            UserError: as `open_features`.
        """
        data = config.data
        store = open_features(data.features, data_root)
        frames = pooled_features(store, data.frames, unit=data.unit)
        return cls(frames, data_root / data.word_vectors)


def make_examples(
    config: Config, learned: MapInputs, sources: InputFeatures, queries: Sequence[Query]
) -> QueryExamples:
    """Queries as batches; the vectors of words that training did not meet are read now."""
    return QueryExamples(
        queries,
        learned.apply_scale(sources.features),
        WordLookup(learned.words, sources.word_vectors),
        config.data.words_of,
        clips=config.model.clips,
    )
