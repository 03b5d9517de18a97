"""Queries and features as RGN's tensors (paper section 4.1): words and their masks, pooled clips, glances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgn.config import Config
from rgn.model import Inputs
from vmr_common.text.tokens import tokenize
from vmr_common.text.vectors import Vocabulary
from vmr_common.types import Query
from vmr_train import prepared
from vmr_train.content_words import content_scores
from vmr_train.feature_files import FeatureSource, open_features
from vmr_train.method import warn_of_left_out
from vmr_train.preprocessing import Preprocessor
from vmr_train.rng import rng_for
from vmr_train.unknown_words import UnknownWords


@dataclass(frozen=True)
class Batch:
    """B queries with their videos: the input of the network, and the targets."""

    query_ids: tuple[str, ...]
    queries: tuple[Query, ...]
    inputs: Inputs
    targets: Tensor
    """``(B, L)`` int64 word classes, 0 after the last word."""
    glance: Tensor
    """``(B,)`` float32 glance / duration; NaN where a query has none."""


@dataclass(frozen=True, eq=False)
class MaskableWords:
    """The l words of a query that the vocabulary knows; l may be 0."""

    ids: NDArray[np.int64]
    """``(l,)`` word classes, from 1."""
    weights: NDArray[np.float32]
    """``(l,)`` probability of being masked, summing to 1."""

    def __len__(self) -> int:
        return len(self.ids)


def known_words(
    tokens: Sequence[str], scores: Sequence[int], vocabulary: Vocabulary, max_words: int
) -> MaskableWords:
    """The tokens that the vocabulary knows (lower-cased), at most the first `max_words`.

    The weights are a softmax over the kept tokens' scores (2 for content words, 1 for function words).

    Example:
        >>> words = known_words(["The", "zzz", "door"], [1, 2, 2], Vocabulary(("door", "the")), 20)
        >>> words.ids.tolist(), [f"{weight:.3f}" for weight in words.weights]
        ([2, 1], ['0.269', '0.731'])
    """
    numbered = [(vocabulary.id(token.lower()), score) for token, score in zip(tokens, scores, strict=True)]
    kept = [(number, score) for number, score in numbered if number][:max_words]  # 0: not in the vocabulary
    weights = np.exp(np.array([score for _, score in kept], dtype=np.float32))
    return MaskableWords(
        np.array([number for number, _ in kept], dtype=np.int64),
        weights / max(weights.sum(), np.float32(1e-30)),
    )


def word_mask(words: MaskableWords, *key: object) -> NDArray[np.bool_]:
    """Random mask of the l words of a query, ``(l,)`` bool: ``max(l // 3, 1)`` True, drawn without replacement.

    The draw depends on `key` alone, so it is the same in every process, batch and repetition. Taking the
    largest of log-probability plus Gumbel noise has the distribution of drawing one after another.

    Args:
        words: At least one.
        key: What the draw is for, e.g. the seed, the epoch and the query's id.
    """
    noise = rng_for(*key).gumbel(size=len(words))
    count = max(len(words) // 3, 1)
    mask = np.zeros(len(words), dtype=np.bool_)
    mask[np.argsort(-(np.log(words.weights.astype(np.float64)) + noise))[:count]] = True
    return mask


class Dataset:
    """Queries with at least one known word, as batches.

    Args:
        queries: The queries.
        features: Pooled clip features by video, ``(N, F)`` float32 each, all of one shape.
        preprocessor: The vocabulary and its word vectors.
        max_words: Words kept per query.
        end_token: Whether every query predicts an end token. The released code lets all but the longest
            query of a batch do so, and the score then depends on the batch.
        seed: Seed of the word masks in training.

    Attributes:
        queries: Those with a known word.
        unknown: Words of all queries that the vocabulary lacks.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        features: prepared.FeaturesByVideo,
        preprocessor: Preprocessor,
        *,
        max_words: int,
        end_token: bool,
        seed: int,
    ) -> None:
        tokens = [tokenize(query.text) for query in queries]
        words = [known_words(t, content_scores(t), preprocessor.vocabulary, max_words) for t in tokens]
        self.queries = [query for query, known in zip(queries, words, strict=True) if len(known)]
        self._words = [known for known in words if len(known)]
        self._features, self._preprocessor = features, preprocessor
        self._end_token, self._seed = end_token, seed
        left_out = [query for query, known in zip(queries, words, strict=True) if not len(known)]
        warn_of_left_out(left_out, len(self), "no word that the model knows")
        self.unknown = UnknownWords()
        for sentence in tokens:
            self.unknown.add(map(str.lower, sentence), preprocessor.vocabulary)

    def __len__(self) -> int:
        return len(self.queries)

    def batch(self, indices: Sequence[int], epoch: int | None) -> Batch:
        """The batch of some queries; word masks are drawn per (seed, epoch, query), in evaluation per query alone."""
        queries = [self.queries[i] for i in indices]
        words = [self._words[i] for i in indices]
        masks = [self._mask(query, known, epoch) for query, known in zip(queries, words, strict=True)]
        features = [self._features[query.video] for query in queries]
        return collate(
            queries, words, masks, features, self._preprocessor.word_vectors, end_token=self._end_token
        )

    def _mask(self, query: Query, words: MaskableWords, epoch: int | None) -> NDArray[np.bool_]:
        if epoch is None:
            return word_mask(words, "evaluation", query.video, query.text)
        return word_mask(words, self._seed, epoch, query.id)


def open_clips(config: Config, root: Path, store: FeatureSource | None = None) -> prepared.PreparedFeatures:
    """Clip features by video, ``(N, F)`` float32, kept in memory: a clip is the mean of its feature rows.

    They come from `store`, or from the files of the configuration.
    """
    return prepared.pooled_features(store or open_features(config.data.features, root), config.data.clips)


def build_dataset(
    config: Config, preprocessor: Preprocessor, clips: prepared.FeaturesByVideo, queries: Sequence[Query]
) -> Dataset:
    """Queries of a run as batches; those without a known word are left out with a warning."""
    return Dataset(
        queries,
        preprocessor.normalise(clips),  # as they are unless `data.standardise`
        preprocessor,
        max_words=config.data.max_words,
        end_token=config.quirks == "fixed",
        seed=config.train.seed,
    )


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

    Each query comes with its known words (at least one), which of them are masked ``(l,)`` bool and the clip features
    ``(N, F)`` of its video; `word_vectors` ``(V, E)`` are by word class, row 0 zeros.
    """
    length = max(len(known) for known in words) + int(end_token)
    targets = np.zeros((len(words), length), dtype=np.int64)
    masked = np.zeros((len(words), length + 1), dtype=np.bool_)
    for row, (known, mask) in enumerate(zip(words, masks, strict=True)):
        targets[row, : len(known)] = known.ids
        masked[row, 1 : len(known) + 1] = mask
    vectors = np.zeros((len(words), length + 1, word_vectors.shape[1]), dtype=np.float32)
    vectors[:, 1:] = word_vectors[targets]  # row 0 of the table is zeros, as is the padding
    clips = torch.from_numpy(np.stack(features))  # (B, N, F)
    glances = [math.nan if query.glance is None else query.glance / query.duration for query in queries]
    return Batch(
        query_ids=tuple(query.id for query in queries),
        queries=tuple(queries),
        inputs=Inputs(
            clips=clips,
            clips_len=torch.full((len(words),), clips.shape[1]),
            words=torch.from_numpy(vectors),
            words_len=torch.tensor([len(known) for known in words]),
            masked=torch.from_numpy(masked),
        ),
        targets=torch.from_numpy(targets),
        glance=torch.tensor(glances, dtype=torch.float32),
    )
