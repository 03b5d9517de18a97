"""Feature files of any layout into one HDF5 file without compression, resumable after a crash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from vmr_common.errors import UserError
from vmr_common.feature_checks import Features
from vmr_common.features import FeatureStore, write_features
from vmr_common.files import write_text
from vmr_common.manifest import Manifest

PART_SIZE = 64  # videos between two points from which a conversion can go on


def convert_features(
    store: FeatureStore,
    out: str | Path,
    manifest: Manifest,
    *,
    dtype: str = "float32",
    videos: Sequence[str] | None = None,
    step: Callable[[int], object] | None = None,
) -> int:
    """Writes the features of a store into one HDF5 file (see `write_features`), streaming.

    Finished parts of 64 videos are kept in a hidden folder beside `out` until the file is whole: a conversion
    that was killed goes on from there when it is called again with the same arguments and unchanged sources.

    Args:
        store: Where features come from, of any layout or joined.
        out: The file.
        manifest: What made the features.
        dtype: ``float32`` or ``float16``.
        videos: Which videos, by default all.
        step: Called with the number of videos that were just finished.

    Returns:
        The number of videos written.

    Raises:
        UserError: if there is no video, one cannot be read, or the file cannot be written.
    """
    out = Path(out)
    wanted = list(dict.fromkeys(store.videos() if videos is None else videos))
    if not wanted:
        raise UserError(f"{store.name}: no video to convert")
    if any(path.resolve() == out.resolve() for path in store.paths):
        raise UserError(f"{out}: the conversion would overwrite its own source")
    step = step or (lambda count: None)
    if len(wanted) <= PART_SIZE:
        return write_features(out, _counted(store, wanted, step), manifest, dtype)
    folder = _parts_folder(out, _plan(store, wanted, manifest, dtype))
    parts = []
    for start in range(0, len(wanted), PART_SIZE):
        chosen = wanted[start : start + PART_SIZE]
        parts.append((folder / f"{start // PART_SIZE:06d}.h5", chosen))
        if parts[-1][0].exists():
            step(len(chosen))
        else:
            write_features(parts[-1][0], _counted(store, chosen, step), manifest, dtype)
    count = write_features(out, _joined(parts), manifest, dtype)
    shutil.rmtree(folder)
    return count


def _counted(
    store: FeatureStore, videos: Iterable[str], step: Callable[[int], object]
) -> Iterator[tuple[str, Features]]:
    for video in videos:
        yield video, store[video]
        step(1)


def _joined(parts: Iterable[tuple[Path, list[str]]]) -> Iterator[tuple[str, Features]]:
    for path, videos in parts:
        with FeatureStore(path) as part:
            for video in videos:
                yield video, part[video]


def _plan(store: FeatureStore, videos: Sequence[str], manifest: Manifest, dtype: str) -> str:
    """What a conversion consists of, as text: parts of another one are of no use."""
    stats = [(str(path.resolve()), *_state(path)) for path in store.paths]
    digest = hashlib.sha256("\n".join(videos).encode()).hexdigest()
    return json.dumps([stats, store.keys, digest, dataclasses.asdict(manifest), dtype, PART_SIZE])


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change of a source, over all files of a folder."""
    files = [path]
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix in (".npy", ".npz", ".mdb")]
    stats = [file.stat() for file in files]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def _parts_folder(out: Path, plan: str) -> Path:
    folder = out.with_name(f".{out.name}.parts")
    note = folder / "plan.json"
    if not (note.is_file() and note.read_text(encoding="utf-8") == plan):
        shutil.rmtree(folder, ignore_errors=True)
        write_text(note, plan)
    return folder
