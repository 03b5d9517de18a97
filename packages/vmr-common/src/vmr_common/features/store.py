"""Feature files: one ``(T, D)`` float32 array per video, from HDF5 files, folders of files, and LMDB.

A `FeatureStore` opens its files on first use, once per process, and can be pickled into workers (only paths
travel). Nothing is ever unpickled: arrays load with ``allow_pickle=False``, tensors with ``weights_only=True``.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.features import writing as h5_writing
from vmr_common.features.backends import FeatureBackend, open_backend
from vmr_common.features.checks import Features
from vmr_common.features.folder import SUFFIXES, FolderBackend
from vmr_common.features.joining import Joining
from vmr_common.features.manifest import Manifest, merge_manifests, parse_facts

logger = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]


class FeatureStore:
    """Features of many videos, ``store[video] -> (T, D) float32``.

    Sources are HDF5 files (one data set per video, or one group per video with a named data set), folders with a file
    per video (``.npy``, ``.npz``, ``.h5``, ``.pt``, see `folder.KINDS`), and LMDB environments whose values are npz
    archives (extra ``lmdb``). Several sources are joined along the feature axis: where their lengths differ by at most
    `tolerance` rows, all are cut to the shortest at the end (logged once), a larger difference is an error, and so are
    strides of their manifests that differ, unless they are to be resampled. Text features are read alike: the id is
    then that of the query.

    Args:
        paths: One source, or several to join.
        key: Name of the data set inside a video's group, or of the array in an npz archive (default: the first
            of `npz.DEFAULT_KEYS`, else the only array); with several sources one key for all, or a sequence
            with one per source (None: none).
        dim: Expected width D after joining; a different width is an error.
        tolerance: See above, rows.
        ending: What follows the id in the names of a source, such as ``_clip``; as `key` for several. By default none,
            but in a folder where an extractor left ``<video>_fps.npy`` or ``<video>_timestamps_ms.npy`` beside one kind
            of array, what follows the id there.
        resample: Whether joined sources are brought to the stride of the first: row k of the result takes of each
            source the row whose span holds the middle of row k.

    Raises:
        UserError: at once if a path does not exist or is of no known kind.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "kitchen.npy", np.ones((40, 512), np.float32))
        >>> store = FeatureStore(folder, dim=512)
        >>> store.videos(), store["kitchen"].shape, "garden" in store
        (['kitchen'], (40, 512), False)
    """

    def __init__(
        self,
        paths: Paths,
        *,
        key: str | Sequence[str | None] | None = None,
        dim: int | None = None,
        tolerance: int = 2,
        ending: str | Sequence[str | None] | None = None,
        resample: bool = False,
    ) -> None:
        self.paths = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
        if not self.paths:
            raise UserError("no feature file was given")
        self.keys = self._each(key, "key")
        self._sources: list[FeatureBackend] = [
            open_backend(path, name) for path, name in zip(self.paths, self.keys, strict=True)
        ]
        self.endings = [
            _seen_ending(source) if ending is None else ending
            for source, ending in zip(self._sources, self._each(ending, "ending"), strict=True)
        ]
        self._dim = dim
        self._expected_dim = dim
        self.tolerance = tolerance
        self.resample = resample
        self._cut_said = False

    def _each(self, given: str | Sequence[str | None] | None, what: str) -> list[str | None]:
        """One value per source."""
        values = [given] * len(self.paths) if given is None or isinstance(given, str) else list(given)
        if len(values) != len(self.paths):
            raise UserError(
                f"{len(self.paths)} feature sources but {len(values)} {what}s: give one {what}, or one per source"
            )
        return values

    def __repr__(self) -> str:
        return f"FeatureStore({', '.join(map(str, self.paths))})"

    @property
    def name(self) -> str:
        """The paths, for messages."""
        return " + ".join(map(str, self.paths))

    def __getitem__(self, video: str) -> Features:
        """The features of a video, ``(T, D)`` float32 (float16 and float64 files are converted).

        Raises `UserError` if the video is missing, unreadable, empty, not two-dimensional, of another width than
        expected, of lengths that do not fit together, or holds NaN or infinity; names file and video.
        """
        parts = [source.read(name) for source, name in self._named(video)]
        features = parts[0] if len(parts) == 1 else self._joining.join(video, parts)
        if len({len(part) for part in parts}) > 1:
            self._say_cut()
        if self._expected_dim is not None and features.shape[1] != self._expected_dim:
            swapped = "; rows and columns look swapped" if len(features) == self._expected_dim else ""
            raise UserError(
                f"{self.name}: video {video!r} has width {features.shape[1]}, expected {self._expected_dim}{swapped}"
            )
        return features

    def _named(self, video: str) -> Iterator[tuple[FeatureBackend, str]]:
        """Every source, and what the video is called there."""
        for source, ending in zip(self._sources, self.endings, strict=True):
            yield source, video + ending

    @functools.cached_property
    def _joining(self) -> Joining:
        strides = [None if manifest is None else manifest.stride_s for manifest in self._manifests()]
        return Joining(self.name, strides, self.resample, self.tolerance)

    def _say_cut(self) -> None:
        """Says once how many videos are cut, or brought to which stride; the workers of a process are silent."""
        if self._cut_said or multiprocessing.parent_process() is not None:
            return
        self._cut_said = True
        lengths = [[source.shape(name)[0] for source, name in self._named(video)] for video in self.videos()]
        differing = sum(len(set(each)) > 1 for each in lengths)
        what = (
            f"resampled to {self._joining.stride:g} s a row, that of the first source"
            if self.resample
            else "cut to the shorter one at the end"
        )
        logger.info(
            "%s: the sources have different numbers of rows of %d of %d videos, which are %s",
            self.name,
            differing,
            len(lengths),
            what,
        )

    def __contains__(self, video: str) -> bool:
        return all(source.has(name) for source, name in self._named(video))

    def instead(self, video: str) -> str:
        """What is there instead of a video that is missing, and what to do about it, in words; "" if it is there."""
        lacking = (source.instead(name) for source, name in self._named(video) if not source.has(name))
        return next(lacking, "")

    def length(self, video: str) -> int:
        """Number of rows T of a video, without reading the features where the file format allows it.

        Raises `UserError` as ``store[video]`` for a missing or unreadable video.
        """
        return self.shape(video)[0]

    def shape(self, video: str) -> tuple[int, int]:
        """(T, D) of a video as `length` finds T; the width is not compared with the expected one."""
        shapes = [source.shape(name) for source, name in self._named(video)]
        lengths = [rows for rows, _ in shapes]
        rows = lengths[0] if len(shapes) == 1 else self._joining.rows(video, lengths)
        if len(set(lengths)) > 1:
            self._say_cut()
        return rows, sum(width for _, width in shapes)

    def videos(self) -> list[str]:
        """The ids of all videos that every source has, sorted."""
        each = [
            {name.removesuffix(ending) for name in source.names() if name.endswith(ending)}
            for source, ending in zip(self._sources, self.endings, strict=True)
        ]
        return sorted(set.intersection(*each) - {""})

    @property
    def dim(self) -> int:
        """Width D: the expected one if given, else that of the first video.

        Raises `UserError` if the store is empty.
        """
        if self._dim is None:
            first = next(iter(self.videos()), None)
            if first is None:
                raise self.empty()
            self._dim = sum(source.shape(name)[1] for source, name in self._named(first))
        return self._dim

    def empty(self) -> UserError:
        """The error for a store without a video, which says what is there."""
        folders = [source for source in self._sources if isinstance(source, FolderBackend)]
        found = "".join(f"; {source.path} holds {source.contents()}" for source in folders)
        ending = f" of the ending {', '.join(self.endings)}" if any(self.endings) else ""
        return UserError(
            f"{self.name}: holds no video{ending}, expected one (T, D) array per video"
            + (f" ({', '.join(SUFFIXES)}){found}" if folders else "")
        )

    def side_problems(self, video: str, duration: float | None = None) -> Iterator[str]:
        """What the files beside a video's features say against its rows, a manifest, each other, in every source."""
        for (source, name), manifest in zip(self._named(video), self._stated, strict=True):
            if isinstance(source, FolderBackend) and source.side.videos:
                yield from source.side.problems(video, source.shape(name)[0], manifest, duration)

    @functools.cached_property
    def _stated(self) -> list[Manifest | None]:
        """The manifests; as if there were none where one is not readable, which is said elsewhere."""
        try:
            return self._manifests()
        except UserError:
            return [None] * len(self.paths)

    def side_disagreements(self) -> Iterator[tuple[str, bool]]:
        """What the files beside the features do not agree on, as `SideFiles.disagreements` of every source."""
        for source in self._sources:
            if isinstance(source, FolderBackend):
                yield from source.side.disagreements()

    def _manifests(self) -> list[Manifest | None]:
        return [
            None if (text := source.manifest_text()) is None else parse_facts(text, str(path), Manifest)
            for source, path in zip(self._sources, self.paths, strict=True)
        ]

    @property
    def manifest(self) -> Manifest | None:
        """The manifest, or None where nothing is stated.

        Joined sources give one whose `dim` is the sum, whose extractor names all, whose stride is that of the joined
        rows, and whose other fields stand where all agree. Raises `UserError` if a manifest is not readable.
        """
        manifests = self._manifests()
        if len(manifests) == 1:
            return manifests[0]
        return merge_manifests(manifests, self._joining.stride)

    def close(self) -> None:
        """Closes the files of this process; a later access opens them again."""
        for source in self._sources:
            source.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def write_features(
    path: str | Path,
    items: Iterable[tuple[str, NDArray[Any]]],
    manifest: Manifest,
    dtype: str = "float32",
) -> int:
    """Writes one HDF5 file with a ``(T, D)`` data set per video and the manifest, atomically; returns their number.

    Data sets are contiguous and not compressed: reading is one system call per video. Of `items`, pairs of a video and
    its features, one is held at a time. The manifest's `dim` and `dtype` (float32 or float16) are filled in.

    Raises `UserError` if the file cannot be written, a video occurs twice, widths differ, an array is not
    two-dimensional and finite, or a value does not fit into float16.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/features.h5"
        >>> write_features(path, [("kitchen", np.ones((40, 512)))], Manifest(stride_s=0.5))
        1
        >>> FeatureStore(path).manifest.stride_s
        0.5
    """
    count, width = 0, None
    with h5_writing.new_file(path, dtype) as file:
        for video, array in items:
            where = f"{path}: video {video!r}"
            h5_writing.check_name(file, video, where)
            width = _checked_width(np.shape(array), width, where)
            file.create_dataset(video, data=h5_writing.cast(array, dtype, where))
            count += 1
        h5_writing.write_manifest(file, manifest, dim=width, dtype=dtype)
    return count


def _seen_ending(source: FeatureBackend) -> str:
    """What follows the ids in a folder of an extractor's output, see `FeatureStore`."""
    if not isinstance(source, FolderBackend) or "" in (endings := source.side.endings) or not endings:
        return ""
    if len(endings) > 1:
        raise UserError(
            f"{source.path}: holds arrays of several endings ({', '.join(endings)}) beside the extractor's "
            "_fps.npy and _timestamps_ms.npy; say which with --ending (data.features.ending)"
        )
    return endings[0]


def _checked_width(shape: tuple[int, ...], width: int | None, where: str) -> int:
    if len(shape) != 2 or 0 in shape:
        raise UserError(f"{where} has shape {shape}, expected (T, D) with rows and columns")
    if width is not None and shape[1] != width:
        raise UserError(f"{where} has width {shape[1]}, the others have {width}")
    return shape[1]
