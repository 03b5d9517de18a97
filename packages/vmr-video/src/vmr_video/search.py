"""Moments without any training: frames and sentences in one space, by the baseline ``zero-shot``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.evaluation.zero_shot import (
    require_shared_space,
    similarities,
    zero_shot_moments,
    zero_shot_predictions,
)
from vmr_common.features.hdf5 import Hdf5File
from vmr_common.features.manifest import Manifest, parse_facts
from vmr_common.features.npz import SENTENCE_KEYS
from vmr_common.features.store import FeatureStore
from vmr_common.types import Prediction, Query
from vmr_video.answers.answer import Answer
from vmr_video.decoding import Failed
from vmr_video.extractor import ExtractorOptions

Floats = NDArray[np.float32]
FPS = 2.0
"""Frames per second unless said otherwise: moments are told to half a second."""


def search(
    paths: Sequence[Path],
    texts: Sequence[str],
    *,
    extractor: str = "clip-vit-b32",
    options: ExtractorOptions | None = None,
    cache: Path | None = None,
    workers: int = 1,
    k: int = 5,
    failed: list[Failed] | None = None,
) -> list[Answer]:
    """The k best moments of every sentence in every video, those of one sentence together.

    Args:
        paths: Video files.
        texts: Sentences.
        extractor: Name of one that reads sentences too.
        options: Its settings.
        cache: Folder in which rows of videos are kept; None for the default one.
        workers: Processes that decode.
        k: Moments of each answer at most.
        failed: Is added to for each video that cannot be read, which is left out; None: the first one is an error.

    Raises:
        UserError: if the extractor is not known or reads no sentences, its weights cannot be loaded, or a file is no
            video (with `failed`: none is).
    """
    from vmr_video.alike import features_by, readable
    from vmr_video.extractor import kind_of
    from vmr_video.sentences import SentenceEncoder

    options = options or ExtractorOptions()
    if options.fps is None:
        options = dataclasses.replace(options, fps=FPS)
    infos = readable(paths, failed)  # before a network is loaded
    kind = kind_of(extractor)
    encoder = SentenceEncoder(kind.name, options)
    vectors = [sentence for _, sentence in encoder(texts)]
    encoder.say_cut()
    made = kind.load(options)
    good = [path for path in paths if path in infos]
    videos = features_by(made, good, cache=cache, workers=workers, failed=failed)
    answers = []
    for text, vector in zip(texts, vectors, strict=True):
        for video in videos:
            info = dataclasses.replace(infos[video.path], duration=video.duration)
            answers.append(_answer(info, text, video.features, vector, k))
    return answers


def _answer(info: Any, text: str, frames: Floats, sentence: Floats, k: int) -> Answer:
    stride = info.duration / len(frames)
    moments, scores = zero_shot_moments(frames, sentence, stride, info.duration, k)
    times = (np.arange(len(frames)) + 0.5) * stride
    return Answer(info, text, moments, scores, curve=(times, similarities(frames, sentence)))


class SentenceVectors(Protocol):
    """Vectors of sentences by query."""

    manifest: Manifest | None

    def of(self, query: Query) -> Floats:
        """``(D,)``."""


class _OfHdf5:
    """A file as ``vmr-extract --annotations`` writes it: a group for each query, with its sentence vector."""

    def __init__(self, path: Path) -> None:
        self.hdf5 = Hdf5File(path)
        text = self.hdf5.manifest_text()
        self.manifest = None if text is None else parse_facts(text, str(path), Manifest)

    def of(self, query: Query) -> Floats:
        """The sentence vector of a query, ``(D,)``."""
        where = f"{self.hdf5.path}: query {query.id!r}"
        for key in SENTENCE_KEYS:
            node = self.hdf5.find(f"{query.id}/{key}", f"{where}, {key}")
            if node is not None:
                found = self.hdf5.numbers(node, f"{where}, {key}")
                self.hdf5.check(found)
                return _vector(self.hdf5.values(found), f"{where}, {key}")
        raise UserError(f"{where} has no sentence vector ({' or '.join(SENTENCE_KEYS)})")


class _OfStore:
    """Anything else that holds features by id: a folder of npz files, LMDB."""

    def __init__(self, path: Path) -> None:
        self.store = FeatureStore(path, key=SENTENCE_KEYS[0])
        self.manifest = self.store.manifest

    def of(self, query: Query) -> Floats:
        """The sentence vector of a query, ``(D,)``."""
        return _vector(self.store[query.id], f"{self.store.name}: query {query.id!r}")


def _vector(array: NDArray[Any], where: str) -> Floats:
    row = np.asarray(array, np.float32).reshape(-1)
    if row.size != array.shape[-1] or not row.size or not np.isfinite(row).all():
        raise UserError(f"{where} has shape {array.shape}, expected (D,) finite numbers")
    return row


def sentence_vectors(path: Path) -> SentenceVectors:
    """Opens the vectors of sentences.

    Raises:
        UserError: if nothing is there, or something of another kind.
    """
    store = FeatureStore(path)  # refuses what is neither
    return _OfHdf5(path) if path.is_file() and not (path / "data.mdb").exists() else _OfStore(store.paths[0])


def search_files(
    frames: FeatureStore,
    sentences: SentenceVectors,
    queries: Sequence[Query],
    *,
    stride: float | None = None,
    k: int = 5,
) -> list[Prediction]:
    """The answers of the baseline to the queries of a data set, from files of features.

    Args:
        frames: Rows of videos.
        sentences: Vectors of the queries, in the space of the rows.
        queries: Of the data set.
        stride: Seconds from row to row; None: as the manifest says, else spread over the duration.
        k: Moments of each query at most.

    Raises:
        UserError: if the files share no space (says both sides), or lack a video or a query.
    """
    if not queries:
        raise UserError("there is no query to answer")
    require_shared_space(frames.manifest, sentences.manifest, frames.dim, len(sentences.of(queries[0])))
    known = frames.manifest
    step = stride if stride is not None or known is None else known.stride_s
    order = sorted(queries, key=lambda query: query.video)
    found = {
        one.query: one for one in zero_shot_predictions(order, frames.__getitem__, sentences.of, step, k)
    }
    return [found[query.id] for query in queries]
