"""Queries and features as CFMR's tensors: kept clips, words and their masks, glances."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfmr.config import Config
from cfmr.model import Clips, Words
from vmr_common.features import pooling
from vmr_common.text.tokens import tokenize
from vmr_common.text.vectors import Vocabulary
from vmr_common.types import Query
from vmr_train import prepared
from vmr_train.caches import distinct_videos
from vmr_train.content_words import content_scores
from vmr_train.feature_files import FeatureSource, open_features
from vmr_train.method import warn_of_left_out
from vmr_train.preprocessing import Preprocessor
from vmr_train.rng import rng_for
from vmr_train.unknown_words import UnknownWords


@dataclass(frozen=True)
class Batch:
    """B queries and their V videos on their way to the model; a video is there once, however many queries it has."""

    query_ids: tuple[str, ...]
    queries: tuple[Query, ...]
    videos: tuple[str, ...]
    clips: Clips
    video_of: Tensor
    """``(B,)`` int64 row of each query's video."""
    words: Words
    masked: Tensor
    """``(B, W + 2)`` bool, True where a word is hidden from the reconstructor."""
    targets: Tensor
    """``(B, W)`` int64 word classes, 0 after the last word."""
    glance: Tensor
    """``(B,)`` float32 glance / duration; NaN where a query has none."""
    sentence_key: Tensor
    """``(B,)`` int64, the same for queries whose known words are the same, in any batch and process."""
    video_key: Tensor
    """``(V,)`` int64, likewise for the videos."""


# Same as rgn.data.MaskableWords
@dataclass(frozen=True, eq=False)
class MaskableWords:
    """The l words of a query that the vocabulary knows; l may be 0."""

    ids: NDArray[np.int64]
    """``(l,)`` word classes, from 1."""
    weights: NDArray[np.float32]
    """``(l,)`` probability of being masked, summing to 1."""

    def __len__(self) -> int:
        return len(self.ids)


def maskable_words(text: str, vocabulary: Vocabulary, max_words: int) -> MaskableWords:
    """The words of a sentence that the vocabulary knows; may be none at all."""
    tokens = tokenize(text)
    return known_words(tokens, content_scores(tokens), vocabulary, max_words)


# Same as rgn.data.known_words
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


# Same as rgn.data.word_mask
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
        features: Kept clips by video, ``(L, F)`` float32 each, all of one shape.
        preprocessor: The vocabulary and its word vectors.
        max_words: Words kept per query.
        end_token: Whether the longest query of a batch has an end token as well, where it has fewer than `max_words`
            words. Without, what is told of a query depends on its batch.
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
        self._max_words, self._end_token, self._seed = max_words, end_token, seed
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
        return collate(
            queries,
            words,
            masks,
            self._features,
            self._preprocessor.word_vectors,
            self._max_words,
            end_token=self._end_token,
        )

    def _mask(self, query: Query, words: MaskableWords, epoch: int | None) -> NDArray[np.bool_]:
        if epoch is None:
            return word_mask(words, "evaluation", query.video, query.text)
        return word_mask(words, self._seed, epoch, query.id)


def kept_clips(clips: int) -> NDArray[np.int64]:
    """The ``clips // 4`` clip numbers that the model sees, first and last included, ``(L,)`` int64.

    ``floor(r (T - 1) / (L - 1))`` in whole numbers. The released code cuts a float32 ``linspace``, whose
    rounding differs between frameworks for some T; for the lengths of its configurations (200, 512) both agree.

    Example:
        >>> kept_clips(16).tolist()
        [0, 5, 10, 15]
    """
    kept = clips // 4
    return np.arange(kept, dtype=np.int64) * (clips - 1) // max(kept - 1, 1)


def keep(features: NDArray[np.float32], clips: int) -> NDArray[np.float32]:
    """The kept clips ``(L, F)`` of a video's raw features ``(n, F)`` pooled to `clips`."""
    return pooling.pool(features, clips)[kept_clips(clips)]


def open_clips(config: Config, root: Path, store: FeatureSource | None = None) -> prepared.PreparedFeatures:
    """Kept clips by video, ``(L, F)`` float32 each: feature rows pooled to T clips and thinned out, held in memory.

    They come from `store`, or from the files of the configuration.
    """
    store = store or open_features(config.data.features, root)
    return prepared.PreparedFeatures(store, functools.partial(keep, clips=config.data.clips))


def build_dataset(
    config: Config, preprocessor: Preprocessor, clips: prepared.FeaturesByVideo, queries: Sequence[Query]
) -> Dataset:
    """Queries of a run as batches; those without a known word are left out with a warning."""
    return Dataset(
        queries,
        preprocessor.normalise(clips),
        preprocessor,
        max_words=config.data.max_words,
        end_token=config.quirks != "released-torch",
        seed=config.train.seed,
    )


def collate(
    queries: Sequence[Query],
    words: Sequence[MaskableWords],
    masks: Sequence[NDArray[np.bool_]],
    features: prepared.FeaturesByVideo,
    word_vectors: NDArray[np.float32],
    max_words: int,
    *,
    end_token: bool,
) -> Batch:
    """Pads B queries to the longest one and, with `end_token`, to its end token, see `Batch`.

    Each query comes with its known words (at least one) and which of them are masked ``(l,)`` bool; `word_vectors`
    ``(V, E)`` are by word class, row 0 zeros. A query of `max_words` words has no end token as a target, whatever else
    is in its batch (as released).
    """
    longest = max(len(known) for known in words)
    padded, targets = pad_words(words, word_vectors, min(longest + int(end_token), max_words))
    masked = torch.zeros(padded.vectors.shape[:2], dtype=torch.bool)
    for row, mask in enumerate(masks):
        masked[row, 1 : len(mask) + 1] = torch.from_numpy(mask)
    videos, video_of = distinct_videos(queries)
    glances = [math.nan if query.glance is None else query.glance / query.duration for query in queries]
    return Batch(
        query_ids=tuple(query.id for query in queries),
        queries=tuple(queries),
        videos=videos,
        clips=stack_clips([features[video] for video in videos]),
        video_of=torch.tensor(video_of),
        words=padded,
        masked=masked,
        targets=targets,
        glance=torch.tensor(glances, dtype=torch.float32),
        sentence_key=torch.tensor([_key(known.ids.astype("<i8").tobytes()) for known in words]),
        video_key=torch.tensor([_key(video.encode("utf-8", "surrogatepass")) for video in videos]),
    )


def _key(content: bytes) -> int:
    """63 bits that stand for a content."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) >> 1


def pad_words(
    words: Sequence[MaskableWords], word_vectors: NDArray[np.float32], length: int
) -> tuple[Words, Tensor]:
    """The words of B queries, padded to W = `length` places, and their classes ``(B, W)`` int64."""
    targets = np.zeros((len(words), length), dtype=np.int64)
    for row, known in enumerate(words):
        targets[row, : len(known)] = known.ids
    vectors = np.zeros((len(words), length + 2, word_vectors.shape[1]), dtype=np.float32)
    vectors[:, 1:-1] = word_vectors[targets]  # row 0 of the table is zeros, as is the padding
    lengths = torch.tensor([len(known) for known in words])
    return Words(torch.from_numpy(vectors), lengths), torch.from_numpy(targets)


def stack_clips(videos: Sequence[NDArray[np.float32]]) -> Clips:
    """Kept clips ``(L, F)`` of several videos as one input; pooled videos are valid throughout."""
    features = torch.from_numpy(np.stack(videos))
    return Clips(features, torch.ones(features.shape[:2], dtype=torch.bool))
