"""Feature files: one ``(T, D)`` float32 array per video, from HDF5 files, folders of npy or npz files, and LMDB.

A `FeatureStore` opens its files on first use, once per process, and can be pickled into workers (only paths
travel). Nothing is ever unpickled: arrays load with ``allow_pickle=False``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.features import writing as h5_writing
from vmr_common.features.backends import FeatureBackend, open_backend
from vmr_common.features.checks import Features
from vmr_common.features.manifest import Manifest, merge_manifests, parse_facts

Paths = str | Path | Sequence[str | Path]


class FeatureStore:
    """Features of many videos, ``store[video] -> (T, D) float32``.

    Sources are HDF5 files (one data set per video, or one group per video with a named data set), folders
    of ``<video>.npy`` or ``<video>.npz``, and LMDB environments whose values are npz archives (extra ``lmdb``).
    Several sources are joined along the feature axis; where their lengths differ by at most `tolerance` rows,
    all are cut to the shortest at the end (rows keep their times only if the sources share one rate), and a
    larger difference is an error. Text features are read alike: the id is then that of the query.

    Args:
        paths: One source, or several to join.
        key: Name of the data set inside a video's group, or of the array in an npz archive (default: the first
            of `npz.DEFAULT_KEYS`, else the only array); with several sources one key for all, or a sequence
            with one per source (None: none).
        dim: Expected width D after joining; a different width is an error.
        tolerance: See above, rows.

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
    ) -> None:
        self.paths = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
        if not self.paths:
            raise UserError("no feature file was given")
        keys = [key] * len(self.paths) if key is None or isinstance(key, str) else list(key)
        if len(keys) != len(self.paths):
            raise UserError(
                f"{len(self.paths)} feature sources but {len(keys)} keys: give one key, or one per source"
            )
        self.keys = keys
        self._sources: list[FeatureBackend] = [
            open_backend(path, name) for path, name in zip(self.paths, keys, strict=True)
        ]
        self._dim = dim
        self._expected_dim = dim
        self.tolerance = tolerance

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
        parts = [source.read(video) for source in self._sources]
        features = parts[0] if len(parts) == 1 else self._join(video, parts)
        if self._expected_dim is not None and features.shape[1] != self._expected_dim:
            raise UserError(
                f"{self.name}: video {video!r} has width {features.shape[1]}, expected {self._expected_dim}"
            )
        return features

    def _join(self, video: str, parts: Sequence[Features]) -> Features:
        lengths = [len(part) for part in parts]
        shortest = min(lengths)
        if max(lengths) - shortest > self.tolerance:
            raise UserError(
                f"{self.name}: video {video!r} has {', '.join(map(str, lengths))} rows, "
                f"expected at most {self.tolerance} rows of difference between joined sources"
            )
        return np.concatenate([part[:shortest] for part in parts], axis=1)

    def __contains__(self, video: str) -> bool:
        return all(source.has(video) for source in self._sources)

    def length(self, video: str) -> int:
        """Number of rows T of a video, without reading the features where the file format allows it.

        Raises `UserError` as ``store[video]`` for a missing or unreadable video.
        """
        return min(source.shape(video)[0] for source in self._sources)

    def videos(self) -> list[str]:
        """The ids of all videos that every source has, sorted."""
        names = set(self._sources[0].names())
        for source in self._sources[1:]:
            names &= set(source.names())
        return sorted(names)

    @property
    def dim(self) -> int:
        """Width D: the expected one if given, else that of the first video.

        Raises `UserError` if the store is empty.
        """
        if self._dim is None:
            first = next(iter(self.videos()), None)
            if first is None:
                raise UserError(f"{self.name}: holds no video, expected one (T, D) array per video")
            self._dim = sum(source.shape(first)[1] for source in self._sources)
        return self._dim

    @property
    def manifest(self) -> Manifest | None:
        """The manifest, or None where a source has none.

        Joined sources give one whose `dim` is the sum, whose extractor names all, and whose other fields stand where
        all agree. Raises `UserError` if a manifest is not readable.
        """
        manifests = [
            None if (text := source.manifest_text()) is None else parse_facts(text, str(path), Manifest)
            for source, path in zip(self._sources, self.paths, strict=True)
        ]
        return merge_manifests(manifests)

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


def _checked_width(shape: tuple[int, ...], width: int | None, where: str) -> int:
    if len(shape) != 2 or 0 in shape:
        raise UserError(f"{where} has shape {shape}, expected (T, D) with rows and columns")
    if width is not None and shape[1] != width:
        raise UserError(f"{where} has width {shape[1]}, the others have {width}")
    return shape[1]


def check_store(
    store: FeatureStore, videos: Iterable[str], dim: int | None = None, min_rows: int = 1
) -> list[str]:
    """Reads every one of `videos`, each once, and returns all problems, one line each; empty when all is well.

    A width other than `dim` is one, and fewer than `min_rows` rows.
    """
    problems = []
    for video in dict.fromkeys(videos):
        try:
            rows, width = store[video].shape
        except UserError as error:
            problems.append(str(error))
            continue
        if dim is not None and width != dim:
            problems.append(f"{store.name}: video {video!r} has width {width}, expected {dim}")
        if rows < min_rows:
            problems.append(f"{store.name}: video {video!r} has {rows} rows, expected at least {min_rows}")
    return problems
