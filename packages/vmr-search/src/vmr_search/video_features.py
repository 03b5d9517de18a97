"""Features of the video files of an index, kept beside it: made as its retriever needs them, gone on with if killed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_common.features.store import FeatureStore, write_features
from vmr_common.io import no_links

if TYPE_CHECKING:
    from vmr_video.decoding import Failed
    from vmr_video.extractor import Extractor

FEATURES = "features.h5"
"""File in the folder of an index: rows of the videos that were indexed from their files."""


def manifest_of(extractor: Extractor) -> Manifest:
    """The manifest of an extractor, with the width of its rows.

    Raises:
        UserError: if its rows are not one array of numbers per moment, or it wants a whole video at once.
    """
    from vmr_video.extractor import row_width

    manifest = extractor.manifest()
    if extractor.context is None or not isinstance(manifest, Manifest):
        raise UserError("extractor: an index is made of rows of frames, and this one makes something else")
    return dataclasses.replace(manifest, dim=row_width(extractor))


def extend_features(
    folder: Path,
    extractor: Extractor,
    videos: Sequence[tuple[str, Path]],
    *,
    failed: list[Failed],
    anew: bool = False,
    dtype: str | None = None,
    workers: int | None = None,
) -> tuple[FeatureStore, dict[str, float]]:
    """Makes the rows that the file of an index lacks; the file, and seconds of each video that can be read.

    Args:
        folder: Of the index.
        extractor: Makes the rows.
        videos: Pairs of id and path.
        failed: Is added to for each video that cannot be read.
        anew: Make rows again where the file holds them.
        dtype: Of the stored numbers; None: float32, or as the file has.
        workers: Processes that decode; None: by the number of processors.

    Raises:
        UserError: if no video can be read; as `vmr_video.extract.extract_file`.
    """
    from vmr_video.alike import readable
    from vmr_video.decoding import default_workers
    from vmr_video.extract import extract_file, sources_of

    names = {path: video for video, path in videos}
    infos = readable(list(names), failed)
    out = folder / FEATURES
    no_links(folder, [FEATURES])
    outcome = extract_file(
        out,
        None,
        extractor,
        [(names[path], path) for path in infos],
        workers=default_workers() if workers is None else workers,
        dtype=dtype,
        source=sources_of(sorted({path.parent for path in infos})),
        anew=anew,
    )
    failed += outcome.failed
    lost = {failure.video for failure in outcome.failed}
    if len(lost) == len(infos):
        raise UserError(outcome.failed[0].reason)
    seconds = {names[path]: info.duration for path, info in infos.items() if names[path] not in lost}
    return FeatureStore(out), seconds


def drop_features(folder: Path, videos: Collection[str]) -> None:
    """Takes the rows of videos out of the file of an index, where it has one: such ids may come back as other videos.

    A link in its place is somebody else's, and left alone.

    Raises:
        UserError: if the file cannot be written.
    """
    out = folder / FEATURES
    if out.is_symlink() or not out.exists():
        return
    with FeatureStore(out) as store:
        left = [video for video in store.videos() if video not in videos]
        if len(left) == len(store.videos()):
            return
        manifest = store.manifest or Manifest()
        if left:
            write_features(
                out, ((video, store[video]) for video in left), manifest, manifest.dtype or "float32"
            )
    if not left:
        out.unlink()


def seconds_of(store: FeatureStore, videos: Sequence[str], known: Mapping[str, float]) -> dict[str, float]:
    """Seconds by video: as known, else its rows times the stride that the manifest says; without those of neither."""
    manifest = store.manifest
    stride = None if manifest is None else manifest.stride_s
    found = {video: known[video] for video in videos if video in known}
    if stride:
        found |= {
            video: store.length(video) * stride for video in videos if video not in found and video in store
        }
    return found
