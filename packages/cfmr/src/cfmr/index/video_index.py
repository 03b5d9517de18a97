"""`VideoIndex`: encode every video of a collection once, then find moments in all of them by a sentence."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfmr.index import scan
from cfmr.index.building import extend
from cfmr.index.encoder import Encoder
from cfmr.index.manifest import NAME, SHARD_VIDEOS, Manifest, fingerprint, read_manifest, require_possible
from cfmr.index.shards import MissingShard, Shard
from cfmr.index.writer import MODEL, SHARDS, Writer, compact, remove
from vmr_common.errors import UserError, quoted
from vmr_common.features.manifest import Manifest as FeatureManifest
from vmr_common.features.nearby import instead_of
from vmr_common.features.sameness import require_same_features
from vmr_common.features.store import FeatureStore
from vmr_common.features.writing import check_dtype
from vmr_common.io import sha256
from vmr_common.values import duration_of, identifier
from vmr_train import distributed
from vmr_train.checkpoint import load_checkpoint
from vmr_train.device import select_device
from vmr_train.known_features import require_known
from vmr_train.video_files import stored_manifest

logger = logging.getLogger(__name__)
QUERIES_AT_ONCE = 32
_ENCODED_AT_ONCE = 8


@dataclass(frozen=True)
class Hit:
    """A found moment: `start` and `end` in seconds of `video`; `score` is the sum of K cosines, at most K."""

    video: str
    start: float
    end: float
    score: float


class VideoIndex:
    """An index on disk, opened for reading. What a writer does later is seen after `reopen`.

    Scores of different videos were never trained against each other: ranking a whole collection is an
    extension of the paper.

    Args:
        folder: The index.
        encoder: The model, to avoid reading the index's own copy; must be the one that built it.

    Raises:
        UserError: if the folder is no index, a file is damaged, cut short or missing, or the model differs.
    """

    def __init__(self, folder: str | Path, encoder: Encoder | None = None) -> None:
        self.folder = Path(folder)
        self._encoder = encoder
        self._shards: list[Shard] = []
        self.manifest = read_manifest(self.folder)
        self.moments: NDArray[np.float64] = np.array(self.manifest.moments, dtype=np.float64).reshape(-1, 2)
        self.reopen()
        if encoder is not None:
            _require_model(self.folder, self.manifest, encoder)

    # ---- opening -------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, folder: str | Path, encoder: Encoder | None = None) -> VideoIndex:
        """Opens an index; see the class."""
        return cls(folder, encoder)

    def reopen(self) -> None:
        """Looks at the index as it is now; what earlier searches found stays valid. Opens only what is new.

        Raises:
            UserError: as the constructor, or if the folder holds an index of another model or type now.
        """
        opened = {shard.entry: shard for shard in self._shards}
        while True:
            manifest = read_manifest(self.folder)
            if dataclasses.replace(manifest, shards=self.manifest.shards) != self.manifest:
                raise UserError(f"{self.folder}: was replaced by an index of another kind, open it anew")
            try:
                for entry in manifest.shards:
                    if entry not in opened:
                        opened[entry] = Shard(self.folder / SHARDS, entry, manifest)
                break
            except MissingShard:
                # replaced by a writer between our two looks, unless the manifest is still the same
                if read_manifest(self.folder) == manifest:
                    raise
        self.manifest, self._shards = manifest, [opened[entry] for entry in manifest.shards]

    @property
    def encoder(self) -> Encoder:
        """The model; by default the index's own copy, read and checked on first use."""
        if self._encoder is None:
            path = self.folder / MODEL
            if not self.manifest.model_sha256:
                raise UserError(f"{self.folder}: holds no model, give one to open()")
            if sha256(path) != self.manifest.model_sha256:
                raise UserError(f"{path}: damaged, its checksum does not fit the index")
            self._encoder = Encoder(load_checkpoint(path, package="cfmr"), "cpu")
        return self._encoder

    def __len__(self) -> int:
        """Number of videos."""
        return sum(entry.live for entry in self.manifest.shards)

    def __contains__(self, video: object) -> bool:
        return any(video in shard.rows for shard in self._shards)

    def absent(self, videos: Iterable[str]) -> list[str]:
        """Those videos that the index does not hold, each once, in their order."""
        left = dict.fromkeys(videos)
        for rows in (shard.rows for shard in self._shards):
            fewer, more = (left, rows) if len(left) < len(rows) else (rows, left)
            for video in [video for video in fewer if video in more]:
                del left[video]
        return list(left)

    def videos(self) -> list[str]:
        """The ids of all videos, in the order of the index."""
        return [video for shard in self._shards for video in shard.rows]

    def verify(self) -> None:
        """Reads every byte of the index; raises `UserError` for the first damage."""
        for shard in self._shards:
            shard.verify()
        if self.manifest.model_sha256 and sha256(self.folder / MODEL) != self.manifest.model_sha256:
            raise UserError(f"{self.folder / MODEL}: damaged, its checksum does not fit the index")

    # ---- writing -------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        model: str,
        moments: Iterable[tuple[float, float]],
        size: int,
        dtype: str = "float16",
        features: FeatureManifest | None = None,
        encoder: Encoder | None = None,
    ) -> VideoIndex:
        """An empty index; `build` is what you want unless the vectors come from elsewhere.

        Args:
            folder: Must not hold an index yet.
            model: What identifies the model (`Encoder.hash`).
            moments: The P proposals of every video, fractions of its duration.
            size: Length of a vector.
            dtype: ``float16`` (half the size and time, scores change by at most 1e-4 or so) or ``float32``.
            features: What the feature files must have been made by.
            encoder: The model; a copy is kept in the index, so that searching needs nothing else.

        Raises:
            UserError: if there is an index already, the folder holds anything else or cannot be written, or the
                moments or sizes are not possible.
        """
        folder = Path(folder)
        check_dtype(folder, dtype)
        manifest = Manifest(
            model=model,
            model_sha256="",
            dtype=dtype,
            moments=tuple((float(start), float(end)) for start, end in moments),
            size=size,
            features=None if features is None else dataclasses.asdict(features),
        )
        require_possible(manifest, str(folder))
        with Writer(folder) as writer:
            if (folder / NAME).exists():
                raise UserError(f"{folder}: holds an index already")
            if encoder is not None:
                encoder.save(folder / MODEL)
                manifest = dataclasses.replace(manifest, model_sha256=sha256(folder / MODEL))
            writer.commit(manifest)
        return cls(folder, encoder)

    @classmethod
    def build(
        cls,
        folder: str | Path,
        encoder: Encoder,
        features: FeatureStore,
        durations: Mapping[str, float],
        *,
        videos: Sequence[str] | None = None,
        dtype: str = "float16",
        shard_videos: int = SHARD_VIDEOS,
        report: Callable[[int], None] | None = None,
        allow_other_features: bool = False,
    ) -> VideoIndex:
        """An index of all videos of the feature files; a build that was killed goes on where it stopped.

        Under torchrun every process calls this and encodes its share.

        Args:
            folder: The index.
            encoder: The model.
            features: Raw clip features.
            durations: Seconds by video.
            videos: Which ones; all of `features` by default.
            dtype: See `create`.
            shard_videos: Videos per shard, and between two moments from which a killed build goes on.
            report: See `add`.
            allow_other_features: See `add`.

        Raises:
            UserError: if the index there is of another model or dtype, the features do not fit or are made in another
                way than the model's, or a video's duration is not known.
        """
        folder = Path(folder)

        def create() -> bool:
            new = not (folder / NAME).exists()
            if new:
                trained = encoder.checkpoint.meta["describe"]
                require_known(encoder.config, features, trained, allow=allow_other_features)
                _require_usable(features.videos() if videos is None else videos, durations)
                proposals = [(start, end) for start, end in encoder.moments.tolist()]
                cls.create(
                    folder,
                    model=encoder.hash(),
                    moments=proposals,
                    size=encoder.size,
                    dtype=dtype,
                    features=features.manifest,
                    encoder=encoder,
                )
            return new

        new = distributed.from_rank_zero(create)
        index = cls(folder, encoder)
        if index.manifest.dtype != dtype:
            raise UserError(f"{folder}: holds {index.manifest.dtype} vectors, asked for {dtype}")
        if not new:
            index._require_same(features, allow=allow_other_features)
        index._add(features, durations, videos, False, shard_videos, report)
        return index

    def add(
        self,
        features: FeatureStore,
        durations: Mapping[str, float],
        *,
        videos: Sequence[str] | None = None,
        replace: bool = False,
        shard_videos: int = SHARD_VIDEOS,
        report: Callable[[int], None] | None = None,
        allow_other_features: bool = False,
    ) -> int:
        """Encodes and adds videos; those that the index holds already are kept as they are, or replaced.

        A video that is replaced is found by its old vectors until the new ones are safely in the index, also where the
        process is killed in between.

        Args:
            features: Raw clip features, made as those of the index.
            durations: Seconds by video.
            videos: Which ones; all of `features` by default.
            replace: Encode those anew that the index holds already.
            shard_videos: See `build`.
            report: Called with the number of videos added so far, each time they are safely in the index.
            allow_other_features: Say where features are made in another way than those of the index, and go on.

        Returns:
            How many were encoded: added, or replaced.

        Raises:
            UserError: as `build`; what had been added before stays.
        """
        self._require_same(features, allow=allow_other_features)
        return self._add(features, durations, videos, replace, shard_videos, report)

    def _require_same(self, features: FeatureStore, *, allow: bool) -> None:
        known, of = self.manifest.features, "the index is made of"
        if known is None:
            trained = self.encoder.checkpoint.meta["describe"]
            known, of = stored_manifest(trained, "features"), "the model was trained on"
        warn = logger.warning if distributed.rank() == 0 else logger.debug
        require_same_features(known, features, allow=allow, of=of, warn=warn)

    def _add(
        self,
        features: FeatureStore,
        durations: Mapping[str, float],
        videos: Sequence[str] | None,
        replace: bool,
        shard_videos: int,
        report: Callable[[int], None] | None,
    ) -> int:
        encoder = self.encoder
        self.reopen()
        given = list(dict.fromkeys(features.videos() if videos is None else videos))
        new = set(self.absent(given))
        wanted = given if replace else [video for video in given if video in new]
        _require_usable(wanted, durations)

        def encoded(part: Sequence[str]) -> NDArray[np.float32]:
            vectors = []
            for start in range(0, len(part), _ENCODED_AT_ONCE):
                raw = [features[video] for video in part[start : start + _ENCODED_AT_ONCE]]
                vectors.append(encoder.encode_videos(raw).numpy())
            return np.concatenate(vectors)

        old = [video for video in wanted if video not in new]
        added = extend(self.folder, self.manifest, wanted, durations, encoded, shard_videos, report, old)
        self.reopen()
        return added

    def add_vectors(
        self, videos: Sequence[str], durations: Mapping[str, float], vectors: NDArray[Any]
    ) -> int:
        """Adds videos by vectors ``(n, P, size)`` from elsewhere, as one shard; returns how many.

        Raises:
            UserError: if a video is in the index already or given twice, or the shape does not fit.
        """
        shape = (len(videos), len(self.moments), self.manifest.size)
        if vectors.shape != shape:
            raise UserError(f"{self.folder}: vectors of shape {vectors.shape}, expected {shape}")
        self.reopen()
        new = self.absent(videos)
        if len(new) < len(videos):
            twice = next(video for video, other in zip(videos, [*new, None], strict=False) if video != other)
            raise UserError(f"{self.folder}: holds video {quoted(twice)} already, or it is given twice")
        _require_usable(videos, durations)
        added = extend(
            self.folder, self.manifest, videos, durations, lambda part: vectors, max(len(videos), 1), None
        )
        self.reopen()
        return added

    def remove(self, videos: Sequence[str]) -> int:
        """Takes videos out of the index; `compact` gives their space back.

        Raises:
            UserError: naming the first video that is not in the index; none is removed then.
        """
        remove(self.folder, videos)
        self.reopen()
        return len(set(videos))

    def compact(self, shard_videos: int = SHARD_VIDEOS) -> None:
        """Rewrites the index in full shards, without what was removed. Open readers are not disturbed."""
        compact(self.folder, shard_videos)
        self.reopen()

    # ---- searching -----------------------------------------------------------------------------------------

    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        videos: Sequence[str] | None = None,
        nms: float = 0.5,
        device: str = "cpu",
        shared: bool = False,
    ) -> list[list[Hit]]:
        """The k best moments for every sentence, best first; logs which of their words the model does not know.

        Args:
            queries: Sentences.
            k: Moments per sentence, from all videos together.
            videos: Search in these only.
            nms: Largest overlap (IoU) of two moments of one video.
            device: Where to multiply, e.g. ``cuda``.
            shared: See `search_vectors`.

        Raises:
            UserError: if the model knows no word of a sentence, a video is not in the index, or data that is
                read turns out to be damaged.
        """
        vectors = [
            self.encoder.encode_queries(queries[start : start + QUERIES_AT_ONCE])
            for start in range(0, len(queries), QUERIES_AT_ONCE)
        ]
        if not vectors:
            return []
        self.encoder.unknown_words(queries).warn()
        return self.search_vectors(
            torch.cat(vectors), k, videos=videos, nms=nms, device=device, shared=shared
        )

    def search_vectors(
        self,
        queries: Tensor,
        k: int = 10,
        *,
        videos: Sequence[str] | None = None,
        nms: float = 0.5,
        device: str = "cpu",
        shared: bool = False,
    ) -> list[list[Hit]]:
        """As `search`, for queries as vectors ``(Q, size)`` float32.

        With `shared` every process of a torchrun group calls this with the same queries, scans its part of
        the shards (which may lie on several hosts that see the same folder), and gets the whole answer.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, found {k}")
        if not 0 <= nms <= 1:
            raise UserError(f"nms must be an overlap from 0 to 1, found {nms}")
        answers = []
        for part in queries.split(QUERIES_AT_ONCE):
            for found in self._candidates(part, k, videos, device, shared):
                best = scan.best_moments(found, self.moments, k, nms)
                answers.append([self._hit(found, *one) for one in best])
        return answers

    def rank_videos(
        self, queries: Sequence[str], k: int = 10, *, device: str = "cpu", shared: bool = False
    ) -> list[list[tuple[str, float]]]:
        """The k videos with the best moment for every sentence, with its score; arguments as of `search`."""
        ranked = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            vectors = self.encoder.encode_queries(queries[start : start + QUERIES_AT_ONCE])
            for found in self._best_videos(vectors, k, device, shared):
                best = found.scores.max(axis=1)
                order = np.argsort(-best, kind="stable")[:k]
                names = [
                    self._shards[shard].table["videos"][row] for shard, row in found.places[order].tolist()
                ]
                ranked.append(list(zip(names, best[order].tolist(), strict=True)))
        return ranked

    def _candidates(
        self, queries: Tensor, k: int, videos: Sequence[str] | None, device: str, shared: bool
    ) -> Iterator[scan.Candidates]:
        """One query after the other, so that only one query's candidates are held."""
        if videos is None:
            yield from self._best_videos(queries, k, device, shared)
            return
        places, opened = self._places(videos), dict(enumerate(self._shards))
        for query in queries:
            yield scan.rescore(opened, places, query)

    def _best_videos(self, queries: Tensor, k: int, device: str, shared: bool) -> Iterator[scan.Candidates]:
        numbered = list(enumerate(self._shards))
        if not shared:
            for one in scan.best_videos(numbered, queries, k, select_device(device)):
                yield scan.merge([one], k)
            return
        # else places would not mean the same videos
        if len(set(distributed.gather(fingerprint(self.manifest)))) > 1:
            raise UserError(f"{self.folder}: changed while the processes opened it, try again")
        numbered = numbered[distributed.rank() :: distributed.world()]
        mine = list(scan.best_videos(numbered, queries, k, select_device(device)))
        for parts in zip(*distributed.gather(mine), strict=True):
            yield scan.merge(parts, k)

    def _places(self, videos: Sequence[str]) -> NDArray[np.int64]:
        places = []
        for video in dict.fromkeys(videos):
            numbers = [number for number, shard in enumerate(self._shards) if video in shard.rows]
            if not numbers:
                raise UserError(
                    f"{self.folder}: holds no video {quoted(video)} ({instead_of(video, self.videos())})"
                )
            self._shards[numbers[0]].recheck_if_touched()
            places.append((numbers[0], self._shards[numbers[0]].rows[video]))
        return np.array(places, dtype=np.int64).reshape(-1, 2)

    def _hit(self, found: scan.Candidates, row: int, proposal: int, score: float) -> Hit:
        shard, place = found.places[row].tolist()
        table = self._shards[shard].table
        start, end = (self.moments[proposal] * table["durations"][place]).tolist()
        return Hit(table["videos"][place], start, end, score)


def _require_model(folder: Path, manifest: Manifest, encoder: Encoder) -> None:
    found = encoder.hash()
    if found != manifest.model:
        raise UserError(
            f"{folder}: built by model {manifest.model[:12]}, but {encoder.checkpoint.path} is {found[:12]}"
        )


def _require_usable(videos: Sequence[str], durations: Mapping[str, float]) -> None:
    """Raises `UserError` unless the ids are text and the lengths of the videos are known and possible."""
    unknown = [video for video in videos if video not in durations]
    if unknown:
        raise UserError(
            f"the duration of {len(unknown):,} {'video' if len(unknown) == 1 else 'videos'} is not known, for example "
            f"{quoted(unknown[0])}; a table of seconds by video says it (--durations), or stride_s in the manifest of "
            "the features (vmr-data convert --stride-s)"
        )
    for video in videos:
        identifier(video, "video", quoted(video))
        duration_of(durations[video], f"video {quoted(video)}")
