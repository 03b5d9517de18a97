"""Queries and features as RGN's tensors (paper section 4.1, released loaders)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgn.config import Config
from rgn.model import Inputs
from vmr_common.features.config import open_features
from vmr_common.features.pooling import FeaturesByVideo, pooled_features
from vmr_common.text.vectors import Vocabulary
from vmr_common.types import Query
from vmr_train.learned_inputs import Preprocessor
from vmr_train.method import warn_of_left_out
from vmr_train.point_supervised import PointExamples, collate_words, relative_glances
from vmr_train.sources import FeatureInputs
from vmr_train.word_masking import MaskableWords


@dataclass(frozen=True)
class Batch:
    """One batch on its way to the model.

    Attributes:
        query_ids: ``B`` ids.
        queries: The ``B`` queries.
        inputs: What the model reads.
        targets: ``(B, L)`` int64 word classes, 0 after the last word.
        glance: ``(B,)`` float32 glance / duration; NaN where a query has none.
    """

    query_ids: tuple[str, ...]
    queries: tuple[Query, ...]
    inputs: Inputs
    targets: Tensor
    glance: Tensor


class QueryExamples(PointExamples[Batch]):
    """Queries with at least one known word, as batches.

    Args:
        queries: The queries.
        features: Pooled clip features by video, ``(N, F)`` float32 each, all of one shape.
        vocabulary: The words that the model knows.
        word_vectors: ``(V, E)`` float32 by word class, row 0 zeros.
        max_words: Words kept per query.
        end_token: Whether every query predicts an end token. The released code lets all but the longest
            query of a batch do so, and the score then depends on the batch.
        seed: Seed of the word masks in training.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        features: FeaturesByVideo,
        vocabulary: Vocabulary,
        word_vectors: NDArray[np.float32],
        *,
        max_words: int,
        end_token: bool,
        seed: int,
    ) -> None:
        super().__init__(queries, vocabulary, max_words=max_words, seed=seed)
        self._features = features
        self._word_vectors = word_vectors
        self._end_token = end_token

    def _collate(
        self, queries: Sequence[Query], words: Sequence[MaskableWords], masks: Sequence[NDArray[np.bool_]]
    ) -> Batch:
        features = [self._features[query.video] for query in queries]
        return collate(queries, words, masks, features, self._word_vectors, end_token=self._end_token)


class InputFeatures(FeatureInputs):
    """Clip features by video, pooled to N clips, and word vectors."""

    @classmethod
    def open(cls, config: Config, data_root: Path) -> InputFeatures:
        """The files that a configuration names under a data root.

        Raises:
            UserError: as `open_features`.
        """
        data = config.data
        clips = pooled_features(open_features(data.features, data_root), data.clips)
        return cls(clips, data_root / data.word_vectors)


def make_examples(
    config: Config, learned: Preprocessor, sources: InputFeatures, queries: Sequence[Query]
) -> QueryExamples:
    """Queries as batches; those without a known word are left out with a warning."""
    found = QueryExamples(
        queries,
        learned.apply_scale(sources.features),
        learned.vocabulary,
        learned.word_vectors,
        max_words=config.data.max_words,
        end_token=config.quirks == "fixed",
        seed=config.train.seed,
    )
    warn_of_left_out(found.unknown, len(found), "have no word that the model knows")
    return found


def collate(
    queries: Sequence[Query],
    words: Sequence[MaskableWords],
    masks: Sequence[NDArray[np.bool_]],
    features: Sequence[NDArray[np.float32]],
    word_vectors: NDArray[np.float32],
    *,
    end_token: bool,
) -> Batch:
    """Pads B queries to the longest one (plus one position with `end_token`), see `Batch`.

    Args:
        queries: B queries.
        words: Their known words, at least one each.
        masks: Their hidden words, ``(l,)`` bool each.
        features: Their pooled clip features, ``(N, F)`` each.
        word_vectors: ``(V, E)``.
        end_token: See `QueryExamples`.
    """
    length = max(len(known) for known in words) + int(end_token)
    padded = collate_words(words, masks, word_vectors, length)
    frames = torch.from_numpy(np.stack(features))
    return Batch(
        query_ids=tuple(query.id for query in queries),
        queries=tuple(queries),
        inputs=Inputs(
            frames=frames,
            frames_len=torch.full((len(words),), frames.shape[1]),
            words=padded.vectors,
            words_len=padded.lengths,
            masked=padded.masked,
        ),
        targets=padded.targets,
        glance=relative_glances(queries),
    )
