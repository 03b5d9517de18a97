"""Videos and queries as LEORN's tensors, as the released loaders make them.

Shapes: B queries, V videos, L words of the longest query, E word vector size, F frames, O objects of a frame, D object
feature size, C clip feature size, N clips of the map.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leorn.config import Config
from leorn.inputs import InputFeatures, VideoArrays
from vmr_common.errors import UserError
from vmr_common.text.vectors import WordVectors
from vmr_common.types import Query
from vmr_train import map_proposals, prepared, preprocessing
from vmr_train.caches import distinct_videos
from vmr_train.checkpoint import Checkpoint
from vmr_train.unknown_words import UnknownWords
from vmr_train.word_lookup import WordLookup, plain_words

logger = logging.getLogger(__name__)


# Same as cdn.data.Preprocessor
@dataclass(frozen=True, eq=False)
class Preprocessor:
    """Word vectors and feature normalisation, fixed before the first update; part of every checkpoint.

    Attributes:
        words: The training queries' words that have a vector; other words are looked up when a query has them.
        scale: Of the feature columns, where features are standardised.
    """

    words: WordVectors
    scale: prepared.FeatureNormalizer | None = None

    @classmethod
    def learn(
        cls,
        queries: Sequence[Query],
        word_vectors: Path,
        words_of: Callable[[str], list[str]],
        features: prepared.FeaturesByVideo | None,
    ) -> Preprocessor:
        """From training queries, a GloVe text file and, where columns are to be standardised, their videos' features.

        Raises:
            UserError: if the word vectors cannot be read or know no word.
        """
        words = {word for query in queries for word in words_of(query.text)}
        scale = None if features is None else preprocessing.measured_scale(features, queries)
        return cls(WordVectors.read(word_vectors, keep=words), scale)

    @classmethod
    def restore(cls, checkpoint: Checkpoint, columns: int | None) -> Preprocessor:
        """From a checkpoint of ours; `columns` of the features where they are standardised.

        Raises:
            UserError: as `stored_words` and `stored_scale`.
        """
        words, vectors = preprocessing.stored_words(checkpoint)
        return cls(
            WordVectors(words, vectors, str(checkpoint.path)), preprocessing.stored_scale(checkpoint, columns)
        )

    @classmethod
    def from_released(cls, weights: Mapping[str, Tensor], tensor: str, path: str | Path) -> Preprocessor:
        """For released weights by our names: no word is kept, all are looked up in the vector file when needed.

        The text encoder's first `tensor`, ``(..., E)``, tells the width of a word vector.

        Raises:
            UserError: naming `path`, if there is no such tensor.
        """
        first = weights.get(tensor)
        if first is None or first.ndim < 2:
            raise UserError(f"{path}: holds no text encoder (textual_encoding...)")
        return cls(WordVectors((), np.zeros((0, first.shape[1]), dtype=np.float32)))

    def normalise(self, features: prepared.FeaturesByVideo) -> prepared.FeaturesByVideo:
        """The features as the model reads them: standardised where it was trained on such."""
        return preprocessing.scaled(features, self.scale)

    def state(self) -> dict[str, list[str]]:
        """The words, for a checkpoint (see `preprocessing.WordsState`)."""
        return {"words": list(self.words.words)}

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors ``(V, E)`` and, where features are standardised, their constants ``(D,)``."""
        return {
            "word_vectors": torch.from_numpy(self.words.vectors),
            **preprocessing.scale_tensors(self.scale),
        }


# Same as cdn.data.QueryWords
@dataclass(frozen=True)
class QueryWords:
    """The words of B queries, padded to the longest.

    Attributes:
        vectors: ``(B, L, E)`` float32, zeros for unknown words and padding.
        lengths: ``(B,)`` int64, at least 1.
    """

    vectors: Tensor
    lengths: Tensor


# Same as cdn.data.collate_words
def collate_words(words: Sequence[NDArray[np.float32]]) -> QueryWords:
    """Pads the word vectors ``(l, E)`` of B queries to the longest one."""
    longest = max(len(rows) for rows in words)
    vectors = np.zeros((len(words), longest, words[0].shape[1]), dtype=np.float32)
    for padded, rows in zip(vectors, words, strict=True):
        padded[: len(rows)] = rows
    return QueryWords(torch.from_numpy(vectors), torch.tensor([len(rows) for rows in words]))


# Same as cdn.data.prepared_words
def prepared_words(
    queries: Sequence[Query], words: WordLookup, words_of: Callable[[str], list[str]]
) -> tuple[list[list[str]], UnknownWords]:
    """The words of each query, their vectors read, and those that have none."""
    tokens, unknown = [words_of(query.text) for query in queries], UnknownWords()
    unasked = words.prepare(word for sentence in tokens for word in sentence)
    if unasked:
        logger.warning("no %s: only words that training met are known (%d are not)", words.path, unasked)
    for sentence in tokens:
        unknown.add(sentence, words)
    return tokens, unknown


@dataclass(frozen=True)
class Objects:
    """Objects of V videos, see `leorn.object_features.prepare.ObjectInputs`.

    Attributes:
        features: ``(V, F, O, D)`` float32.
        mask: ``(V, F, O)`` bool.
        boxes: ``(V, F, O, 4)`` float32.
    """

    features: Tensor
    mask: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class Videos:
    """The inputs of V videos.

    Attributes:
        objects: Theirs.
        clips: ``(V, F, C)`` float32 clip features; None: objects alone.
    """

    objects: Objects
    clips: Tensor | None = None

    def rows(self, index: Tensor) -> Videos:
        """Some of the videos."""
        objects = Objects(self.objects.features[index], self.objects.mask[index], self.objects.boxes[index])
        return Videos(objects, None if self.clips is None else self.clips[index])


def stack_videos(videos: Sequence[VideoArrays]) -> Videos:
    """The arrays of V videos as tensors."""
    clips: list[Any] = [video.clips for video in videos if video.clips is not None]
    objects = [video.objects for video in videos]
    return Videos(
        objects=Objects(
            features=torch.from_numpy(np.stack([one.features for one in objects])),
            mask=torch.from_numpy(np.stack([one.mask for one in objects])),
            boxes=torch.from_numpy(np.stack([one.boxes for one in objects])),
        ),
        clips=torch.from_numpy(np.stack(clips)) if clips else None,
    )


@dataclass(frozen=True)
class Batch:
    """Queries and their videos. Every video is there once, however many queries it has.

    Attributes:
        query_ids: ``B`` ids.
        queries: The ``B`` queries.
        videos: ``V`` ids.
        features: Theirs.
        video_of: ``(B,)`` int64 row of each query's video.
        words: The queries' words.
        overlaps: ``(B, N, N)`` float32 temporal IoU of every cell with each query's moment.
    """

    query_ids: tuple[str, ...]
    queries: tuple[Query, ...]
    videos: tuple[str, ...]
    features: Videos
    video_of: Tensor
    words: QueryWords
    overlaps: Tensor


class Dataset:
    """Queries with the objects and clip features of their videos, as batches; nothing is drawn.

    Args:
        queries: The queries.
        features: By video, all of one shape.
        words: Word vectors; what the queries need is read at once.
        words_of: A sentence's words.
        clips: Clips N of the map.

    Attributes:
        queries: All of them.
        unknown: Their words without a vector.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        features: Mapping[str, VideoArrays] | InputFeatures,
        words: WordLookup,
        words_of: Callable[[str], list[str]] = plain_words,
        *,
        clips: int,
    ) -> None:
        self.queries = list(queries)
        self._features, self._words, self._clips = features, words, clips
        self._tokens, self.unknown = prepared_words(queries, words, words_of)

    def __len__(self) -> int:
        return len(self.queries)

    def batch(self, indices: Sequence[int], epoch: int | None) -> Batch:
        """The batch of some queries; `epoch` changes nothing."""
        queries = [self.queries[i] for i in indices]
        videos, video_of = distinct_videos(queries)
        return Batch(
            query_ids=tuple(query.id for query in queries),
            queries=tuple(queries),
            videos=videos,
            features=stack_videos([self._features[video] for video in videos]),
            video_of=torch.tensor(video_of),
            words=collate_words([self._words[self._tokens[i]] for i in indices]),
            overlaps=torch.from_numpy(
                np.stack([map_proposals.map_overlaps(q.moments, q.duration, self._clips) for q in queries])
            ),
        )


def build_dataset(
    config: Config, preprocessor: Preprocessor, videos: InputFeatures, glove: Path, queries: Sequence[Query]
) -> Dataset:
    """Queries of a run as batches; the vectors of words that training did not meet are read now from `glove`."""
    clips = None if videos.clips is None else preprocessor.normalise(videos.clips)
    return Dataset(
        queries,
        dataclasses.replace(videos, clips=clips),
        WordLookup(preprocessor.words, glove),
        config.words_of,
        clips=config.model.clips,
    )
