"""What the inputs of a point-supervised model take from its training set: words, and the scale of its features."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vmr_common.errors import UserError, quoted
from vmr_common.features.pooling import FeatureNormalizer, FeaturesByVideo
from vmr_common.io import read_text
from vmr_common.text.vectors import Vocabulary, WordVectors, tokenize
from vmr_common.types import Query
from vmr_train.checkpoint import Checkpoint
from vmr_train.feature_scale import measured_scale, scale_tensors, scaled, stored_scale
from vmr_train.stored_words import stored_words

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Preprocessor:
    """Known before the first update, and part of every checkpoint.

    Attributes:
        vocabulary: The words behind the model's word classes 1, 2, ...
        word_vectors: ``(V, E)`` float32 by word class, row 0 zeros.
        scale: Of the feature columns, where features are standardised.
    """

    vocabulary: Vocabulary
    word_vectors: NDArray[np.float32]
    scale: FeatureNormalizer | None = None

    @classmethod
    def learn(
        cls,
        method: str,
        queries: Sequence[Query],
        word_vectors: Path,
        size: int,
        features: FeaturesByVideo | None,
    ) -> Preprocessor:
        """From training queries.

        Args:
            method: Its name, for the message.
            queries: The training queries, each with a glance.
            word_vectors: GloVe text file.
            size: The most words to keep.
            features: Of their videos, where the columns are to be standardised.

        Raises:
            UserError: if a query has no glance, or the word vectors cannot be read or know no word.
        """
        without = [query.id for query in queries if query.glance is None]
        if without:
            raise UserError(
                f"{method} learns from glances, but {len(without)} training queries have none, "
                f"for example {without[0]!r}"
            )
        tokens = [tokenize(query.text) for query in queries]
        words = dict.fromkeys(token.lower() for sentence in tokens for token in sentence)
        vectors = WordVectors.read(word_vectors, keep=words.keys())
        unknown = [word for word in words if word not in vectors and any(map(str.isalnum, word))]
        if unknown:
            logger.warning(
                "%d words of the training queries have no vector in %s and are left out, for example %r",
                len(unknown),
                word_vectors,
                unknown[0],
            )
        vocabulary = Vocabulary.build(tokens, vectors, size)
        scale = None if features is None else measured_scale(features, queries)
        return cls(vocabulary, vectors.table(vocabulary.words), scale)

    @classmethod
    def from_released(
        cls, weights: Mapping[str, Tensor], words: str | Path, word_vectors: Path
    ) -> Preprocessor:
        """Of released weights, from a list of their words; features are not standardised.

        Args:
            weights: By our names; the word classifier has one class per word and the end class 0.
            words: Text file, one word per line in class order from class 1 on; a tab ends the word.
            word_vectors: GloVe text file.

        Raises:
            UserError: if the list has another length, or a word occurs twice or has no vector.
        """
        classes = weights["classifier.bias"].numel() if "classifier.bias" in weights else 0
        listed = [line.split("\t")[0].rstrip("\r") for line in read_text(words).split("\n") if line.strip()]
        if len(listed) + 1 != classes:
            raise UserError(f"{words}: holds {len(listed)} words, the weights expect {classes - 1}")
        vectors = WordVectors.read(word_vectors, keep=set(listed))
        if len(set(listed)) < len(listed):
            twice = next(word for word, count in Counter(listed).items() if count > 1)
            raise UserError(f"{words}: the word {quoted(twice, 60)} occurs twice")
        missing = [word for word in listed if word not in vectors]
        if missing:
            raise UserError(
                f"{word_vectors}: no vector for {len(missing)} words, e.g. {quoted(missing[0], 60)}"
            )
        return cls(Vocabulary(tuple(listed)), vectors.table(listed))

    @classmethod
    def restore(cls, checkpoint: Checkpoint, columns: int | None) -> Preprocessor:
        """As a checkpoint of ours holds them.

        Args:
            checkpoint: Of a task with words.
            columns: Of the features, where they are standardised.

        Raises:
            UserError: as `stored_words` and `stored_scale`.
        """
        words, vectors = stored_words(checkpoint, rows_before=1)
        return cls(Vocabulary(words), vectors, stored_scale(checkpoint, columns))

    def apply_scale(self, features: FeaturesByVideo) -> FeaturesByVideo:
        """The features as the model reads them."""
        return scaled(features, self.scale)

    def state(self) -> dict[str, list[str]]:
        """The words by class, for a checkpoint (see `WordsState`)."""
        return {"words": list(self.vocabulary.words)}

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors ``(V, E)`` and, where features are standardised, their constants ``(D,)``."""
        return {"word_vectors": torch.from_numpy(self.word_vectors), **scale_tensors(self.scale)}
