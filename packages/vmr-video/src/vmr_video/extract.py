"""Features of many videos into one file: resumable, bad videos told at the end, an earlier file added to."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vmr_common.boundary import reason
from vmr_common.errors import UserError, listed
from vmr_common.features.manifest import BaseManifest, Manifest
from vmr_common.features.store import FeatureStore, write_features
from vmr_common.features.writing import check_dtype
from vmr_video.cache import identity
from vmr_video.decoding import Failed
from vmr_video.extractor import FEATURES, Extractor, ExtractorKind, ExtractorOptions, Rows
from vmr_video.networks.weights import lasting
from vmr_video.parts import Parts, key_of, parts_beside
from vmr_video.pipeline import BATCH, TIME_LIMIT, extract
from vmr_video.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The end of an extraction.

    Attributes:
        added: Videos whose rows are new in the file.
        kept: Videos that the file held before.
        failed: Videos without rows, with the reasons.
    """

    added: int
    kept: int
    failed: Sequence[Failed]


def extract_file(
    out: Path,
    kind: ExtractorKind | None,
    extractor: Extractor,
    videos: Sequence[tuple[str, Path]],
    *,
    workers: int = 1,
    batch: int = BATCH,
    across: bool = False,
    dtype: str | None = None,
    source: str | None = None,
    strict: bool = False,
    overwrite: bool = False,
    anew: bool = False,
    time_limit: float = TIME_LIMIT,
) -> Outcome:
    """Writes the rows of all videos, in the order of their ids, atomically; killed, it goes on when called again.

    A file that is there already is added to, if its manifest agrees; its videos are not read again.

    Args:
        out: The file.
        kind: The extractor's kind, which says how its rows are written; None: as features of frames.
        extractor: Makes the rows.
        videos: Pairs of id and path.
        workers: Processes that decode.
        batch: Frames in one call of the extractor.
        across: See `extract`.
        dtype: Of the stored numbers; None: float32, or as the file has.
        source: Of the manifest.
        strict: Stop at the first video that fails.
        overwrite: Replace what is at `out`.
        anew: Make the rows of these videos again where the file holds them.
        time_limit: See `extract`.

    Raises:
        UserError: if no video can be read, `strict` and one fails, the file at `out` is of another making, or it cannot
            be written.
    """
    manifest = dataclasses.replace(extractor.manifest(), **({"source": source} if source else {}))
    write = None if kind is None else kind.write
    earlier = None if overwrite else _Earlier.at(out, own_form=write is not None)
    if earlier is not None:
        manifest, dtype = earlier.agreed(manifest, dtype)
    dtype = dtype or "float32"
    check_dtype(out, dtype)
    held = set() if earlier is None else earlier.videos
    new = [video for video in videos if anew or video[0] not in held]
    kept = held - {video for video, _ in new}
    if not new:
        return Outcome(0, len(kept), [])
    with parts_beside(out) as parts:
        made = identity(extractor.manifest(), batch=batch)
        keys, lost = _keys(new, made)
        if strict and lost:
            raise UserError(lost[0].reason)
        there = {video for video, key in keys.items() if parts.get(key) is not None}
        if there:
            logger.info(
                "%d of %d videos are finished already; going on with the others", len(there), len(new)
            )
        left = [video for video in new if video[0] in keys and video[0] not in there]
        options = {"workers": workers, "batch": batch, "across": across, "time_limit": time_limit}
        failed = sorted(
            [*lost, *_made(extractor, left, parts, keys, strict, options)], key=lambda failure: failure.video
        )
        done = sorted(set(keys) - {failure.video for failure in failed})
        kept = held - set(done)  # of those that fail now, the rows before stay
        if not done and earlier is not None:
            return Outcome(0, len(kept), failed)
        if not done:
            raise UserError(f"of {len(new)} videos none could be read; the first: {failed[0].reason}")

        def items() -> Iterator[tuple[str, Rows]]:
            for video in sorted([*done, *kept]):
                rows = parts.get(keys[video]) if video not in kept else None
                if rows is None and video not in kept:
                    raise UserError(
                        f"{out}: the finished rows of {video} are gone; run the same command again"
                    )
                yield video, rows if rows is not None else earlier.rows(video)  # type: ignore[union-attr]

        with contextlib.ExitStack() as stack:
            if earlier is not None:
                stack.enter_context(contextlib.closing(earlier))
            if write is not None:
                write(out, items(), manifest, dtype)
            else:
                assert isinstance(manifest, Manifest)
                write_features(out, ((video, rows[FEATURES]) for video, rows in items()), manifest, dtype)
    return Outcome(len(done), len(kept), failed)


def held_already(
    out: Path,
    kind: ExtractorKind,
    options: ExtractorOptions,
    videos: Sequence[tuple[str, Path]],
    dtype: str | None,
) -> int:
    """Number of videos in a file that holds all of these, made as the options say; else 0. No network is loaded.

    Raises:
        UserError: if the file is none of features.
    """
    if kind.write is not None or not out.is_file():
        return 0
    with FeatureStore(out) as store:
        held, manifest = set(store.videos()), store.manifest
    made = None if manifest is None else kind.like(manifest)
    if manifest is None or made is None or dtype not in (None, manifest.dtype):
        return 0
    given = dataclasses.asdict(options) | {
        "weights": options.weights and lasting(options.weights),
        "device": None,
    }
    same = all(value in (None, getattr(made, name)) for name, value in given.items())
    return len(held) if same and all(video in held for video, _ in videos) else 0


def _made(
    extractor: Extractor,
    videos: Sequence[tuple[str, Path]],
    parts: Parts,
    keys: Mapping[str, str],
    strict: bool,
    options: Mapping[str, Any],
) -> list[Failed]:
    """Makes and keeps the rows of videos; returns what failed."""
    failed: list[Failed] = []
    with contextlib.closing(Progress({video: _size(path) for video, path in videos})) as progress:
        for found in extract(extractor, videos, seen=progress.see, **options):
            if isinstance(found, Failed):
                if strict:
                    raise UserError(found.reason)
                failed.append(found)
            else:
                parts.put(keys[found.video], found.rows)
            progress.done(found.video)
    return failed


def _keys(videos: Sequence[tuple[str, Path]], made: str) -> tuple[dict[str, str], list[Failed]]:
    """The keys of the rows of videos, and those that are not there: a link to nothing, a file deleted meanwhile."""
    keys, lost = {}, []
    for video, path in videos:
        try:
            keys[video] = key_of(video, path, made)
        except OSError as error:
            lost.append(Failed(video, f"cannot read {path}: {reason(error)}"))
    return keys, lost


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):  # what is gone fails when it is opened
        return path.stat().st_size
    return 0


class _Earlier:
    """A file of features that is added to."""

    def __init__(self, path: Path) -> None:
        self._path, self._store = path, FeatureStore(path)
        self.videos = set(self._store.videos())

    @staticmethod
    def at(path: Path, *, own_form: bool) -> _Earlier | None:
        """The file at `path`, or None where nothing is."""
        if not os.path.lexists(path) or (path.exists() and not path.is_file() and not path.is_dir()):
            return None
        if path.is_dir():
            raise UserError(f"{path}: expected the name of a file to write, found a folder")
        if own_form:
            raise UserError(f"{path}: is there already; --overwrite replaces it, or name another --out")
        return _Earlier(path)

    def agreed(self, made: BaseManifest, dtype: str | None) -> tuple[BaseManifest, str | None]:
        """The manifest and type of the file, if rows made now belong beside its own.

        Raises:
            UserError: naming the first field that differs, with both sides.
        """
        found = self._store.manifest
        other = "--overwrite replaces it, or name another --out"
        if found is None:
            raise UserError(
                f"{self._path}: is there already, without a manifest that says what made it; {other}"
            )
        for field in dataclasses.fields(made):
            there, here = getattr(found, field.name), getattr(made, field.name)
            if field.name not in ("source", "creator", "dim", "dtype", "network") and there != here:
                raise UserError(
                    f"{self._path}: its rows were made with {field.name} {there}, new ones would be with {here}; "
                    f"{other}"
                )
        if dtype is not None and found.dtype != dtype:
            raise UserError(f"{self._path}: holds {found.dtype}, found --dtype {dtype}; {other}")
        return found, found.dtype

    def rows(self, video: str) -> dict[str, NDArray[Any]]:
        """The rows of one of its videos."""
        return {FEATURES: self._store[video]}

    def close(self) -> None:
        """Closes the file."""
        self._store.close()


def of_shard(videos: Sequence[tuple[str, Path]], number: int, count: int) -> list[tuple[str, Path]]:
    """The `number`-th (from 1) of `count` parts of videos; told by their ids alone, so that machines need not talk.

    Example:
        >>> videos = [(name, Path(name + ".mp4")) for name in ("a", "b", "c", "d")]
        >>> [[video for video, _ in of_shard(videos, number, 3)] for number in (1, 2, 3)]
        [[], ['a', 'b'], ['c', 'd']]
    """

    def part_of(video: str) -> int:
        return int.from_bytes(hashlib.sha256(video.encode()).digest()[:8], "big") % count

    return [video for video in videos if part_of(video[0]) == number - 1]


def sources_of(paths: Sequence[Path]) -> str:
    """A manifest's `source`, of the files and folders that were named."""
    return listed([str(path) for path in paths], 3)
