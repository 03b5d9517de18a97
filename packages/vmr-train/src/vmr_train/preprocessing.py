"""Preprocessing that a run takes from its training set: vocabulary, word vectors, normalisation of the features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vmr_common.errors import UserError, quoted
from vmr_common.io import read_text
from vmr_common.schema import conform
from vmr_common.text.tokens import tokenize
from vmr_common.text.vectors import Vocabulary, WordVectors
from vmr_common.types import Query
from vmr_train.checkpoint import Checkpoint
from vmr_train.prepared import FeatureNormalizer, FeaturesByVideo, Standardised
from vmr_train.weights import require_finite

WIDTH = 65_536
"""Columns of a word vector at the most."""


class WordsState(TypedDict):
    """The words of a method in the JSON part of a checkpoint; their vectors are the tensor `word_vectors`."""

    words: list[str]


def stored_words(checkpoint: Checkpoint, rows_before: int = 0) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """The words of a checkpoint and their vectors ``(rows_before + W, E)`` float32.

    Args:
        checkpoint: Of a method with words.
        rows_before: Vectors that belong to no word, the first ones.

    Raises:
        UserError: if it holds no words, a word twice, or not one vector of finite numbers for each.
    """
    words = conform(checkpoint.state, WordsState, f"{checkpoint.path}: state")["words"]
    vectors = checkpoint.state_tensors.get("word_vectors")
    if vectors is None:
        raise UserError(f"{checkpoint.path}: holds {len(words):,} words, but no tensor state.word_vectors")
    found, rows = tuple(vectors.shape), rows_before + len(words)
    fits = len(found) == 2 and found[0] == rows and 1 <= found[1] <= WIDTH and vectors.is_floating_point()
    if not fits or vectors.dtype.itemsize != 4:
        raise UserError(
            f"{checkpoint.path}: state.word_vectors: found {str(vectors.dtype).removeprefix('torch.')} {found}, "
            f"expected one float32 vector for each of {len(words):,} words, {rows:,} rows"
        )
    if len(set(words)) < len(words):
        raise UserError(f"{checkpoint.path}: state: key words holds a word twice")
    require_finite({"word_vectors": vectors}, checkpoint.path, "tensor")
    return tuple(words), vectors.numpy()


def measured_scale(features: FeaturesByVideo, queries: Sequence[Query]) -> FeatureNormalizer:
    """The scale of the feature columns over the videos of training queries."""
    return FeatureNormalizer.measure(features, dict.fromkeys(query.video for query in queries))


def stored_scale(checkpoint: Checkpoint, columns: int | None) -> FeatureNormalizer | None:
    """The scale of the feature columns that a checkpoint holds.

    Args:
        checkpoint: Of a method.
        columns: Of the features, where they are standardised; None where they are not, and there is no scale.

    Raises:
        UserError: if it holds none, or not one number for each column (a deviation above 0).
    """
    if columns is None:
        return None
    names = ("feature_mean", "feature_std")
    found = {name: tensor for name, tensor in checkpoint.state_tensors.items() if name in names}
    if len(found) < len(names):
        raise UserError(
            f"{checkpoint.path}: data.standardise is on, but it holds no feature_mean and feature_std"
        )
    for name, tensor in found.items():
        if tensor.shape != (columns,) or tensor.dtype != torch.float32:
            raise UserError(
                f"{checkpoint.path}: state.{name}: found {tensor.dtype} {tuple(tensor.shape)}, expected one float32 "
                f"number for each of {columns:,} feature columns"
            )
    require_finite(found, checkpoint.path, "numbers of the tensor")
    mean, std = (found[name] for name in names)
    if not (std > 0).all():
        raise UserError(f"{checkpoint.path}: state.feature_std: found a deviation of 0 or less")
    return FeatureNormalizer(mean.numpy(), std.numpy())


def scale_tensors(scale: FeatureNormalizer | None) -> dict[str, Tensor]:
    """The tensors that a checkpoint keeps of a scale ``(D,)``; none where features are not standardised."""
    if scale is None:
        return {}
    return {"feature_mean": torch.from_numpy(scale.mean), "feature_std": torch.from_numpy(scale.std)}


def scaled(features: FeaturesByVideo, scale: FeatureNormalizer | None) -> FeaturesByVideo:
    """The features as a model reads them."""
    return features if scale is None else Standardised(features, scale)


@dataclass(frozen=True, eq=False)
class Preprocessor:
    """Vocabulary, word vectors and feature normalisation, fixed before the first update; part of every checkpoint.

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
        queries: Sequence[Query],
        word_vectors: Path,
        size: int,
        features: FeaturesByVideo | None,
    ) -> Preprocessor:
        """The preprocessing that training queries give.

        Args:
            queries: The training queries.
            word_vectors: GloVe text file.
            size: The most words to keep.
            features: Of their videos, where the columns are to be standardised.

        Raises:
            UserError: if the word vectors cannot be read or know no word.
        """
        tokens = [tokenize(query.text) for query in queries]
        words = dict.fromkeys(token.lower() for sentence in tokens for token in sentence)
        vectors = WordVectors.read(word_vectors, keep=words.keys())
        vocabulary = Vocabulary.build(tokens, vectors, size)
        scale = None if features is None else measured_scale(features, queries)
        return cls(vocabulary, vectors.table(vocabulary.words), scale)

    @classmethod
    def from_released(
        cls, weights: Mapping[str, Tensor], words: str | Path, word_vectors: Path
    ) -> Preprocessor:
        """The preprocessing of released weights, from a list of their words; features are not standardised.

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
        """The preprocessing that a checkpoint of ours holds.

        Args:
            checkpoint: Of a method with words.
            columns: Of the features, where they are standardised.

        Raises:
            UserError: as `stored_words` and `stored_scale`.
        """
        words, vectors = stored_words(checkpoint, rows_before=1)
        return cls(Vocabulary(words), vectors, stored_scale(checkpoint, columns))

    def normalise(self, features: FeaturesByVideo) -> FeaturesByVideo:
        """The features as the model reads them: standardised where it was trained on such."""
        return scaled(features, self.scale)

    def state(self) -> dict[str, list[str]]:
        """The words by class, for a checkpoint (see `WordsState`)."""
        return {"words": list(self.vocabulary.words)}

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors ``(V, E)`` and, where features are standardised, their constants ``(D,)``."""
        return {"word_vectors": torch.from_numpy(self.word_vectors), **scale_tensors(self.scale)}
