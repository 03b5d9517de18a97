"""Features of a new video, made as a manifest says that others were."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, one_line, quoted
from vmr_common.features.manifest import BaseManifest
from vmr_common.io import sha256
from vmr_video.cache import Cache, identity
from vmr_video.decoding import Failed
from vmr_video.extractor import FEATURES, Extractor, ExtractorOptions, kinds
from vmr_video.media import VideoInfo, probe
from vmr_video.pipeline import BATCH, extract
from vmr_video.progress import Progress

logger = logging.getLogger(__name__)

_BY_HAND = (
    "sampling",
    "resize",
    "crop",
    "value_range",
    "fps",
    "stride_s",
    "window_s",
    "normalised",
    "weights_hash",
)
"""Fields of a manifest in which two files that are alike agree, where both state them."""


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """The rows of a video.

    Attributes:
        id: ``<stem>-<first 12 of its content's SHA-256>``.
        path: The video.
        rows: Arrays of one length by name; ``{"features": (T, D) float32}`` of most extractors.
        manifest: What made them.
        duration: Seconds of the video's pictures.
    """

    id: str
    path: Path
    rows: Mapping[str, NDArray[Any]]
    manifest: BaseManifest
    duration: float

    @property
    def features(self) -> NDArray[np.float32]:
        """``(T, D)``, of an extractor that has one array alone."""
        return self.rows[FEATURES]


def extractor_like(
    manifest: BaseManifest | None, *, weights: str | None = None, device: str | None = None
) -> Extractor:
    """The extractor that makes rows as those were made that a manifest describes.

    Args:
        manifest: Of the features that are to be matched.
        weights: Where its weights are here; by default where the manifest says.
        device: See `ExtractorOptions`.

    Raises:
        UserError: if no extractor at hand makes such rows, or its weights are others; says both sides and what to do.
    """
    options, load = _matching(manifest)
    assert manifest is not None
    changed: dict[str, Any] = {"device": device} | ({} if weights is None else {"weights": weights})
    extractor = load(dataclasses.replace(options, **changed))
    require_alike(manifest, extractor.manifest(), options)
    return extractor


def _matching(
    manifest: BaseManifest | None,
) -> tuple[ExtractorOptions, Callable[[ExtractorOptions], Extractor]]:
    if manifest is None:
        raise UserError(
            "these features have no manifest that says what made them, so those of a new video cannot be made alike; "
            "tell what they are with: vmr-extract VIDEOS --verify FILE"
        )
    for kind in kinds().values():
        options = kind.like(manifest)
        if options is not None:
            return options, kind.load
    found = getattr(manifest, "extractor", None) or getattr(manifest, "detector", None)
    raise UserError(
        f"the features were made by {quoted(found, 80) if found else 'what their manifest does not name'}, "
        f"and those of a new video can be made by {', '.join(sorted(kinds()))} (some packages add others); train on "
        "features of one of these, made by vmr-extract"
    )


def require_alike(
    wanted: BaseManifest,
    made: BaseManifest,
    known: ExtractorOptions = ExtractorOptions(),  # noqa: B008 - frozen
) -> None:
    """Makes sure that two manifests describe rows of one making; another decoder's version is logged.

    Args:
        wanted: Of the features that are to be matched.
        made: Of the extractor.
        known: What the extractor's kind knows of features of its own that their manifest does not say.

    Raises:
        UserError: naming the field and both sides.
    """
    for field in _BY_HAND:
        there, here = getattr(wanted, field, None), getattr(made, field, None)
        if there is None or here is None or there == here or _close(there, here):
            continue
        do = {"weights_hash": "; give the same weights by --weights (a folder, a file or a name on a hub)"}
        raise UserError(
            f"features of a new video would differ in {field}: the model's were made with {there}, here they would be "
            f"with {here}{do.get(field, '')}"
        )
    settled = {
        "weights_hash": getattr(made, "weights_hash", None) is None,
        "sampling": known.sampling is not None,
        "fps": known.fps is not None,
        "normalised": known.normalise is not None,
    }
    unsaid = [name for name, sure in settled.items() if getattr(wanted, name, 0) is None and not sure]
    if unsaid:
        assumed = ", ".join(f"{name} {getattr(made, name)}" for name in unsaid)
        logger.warning("the manifest of the model's features does not say all; assumed: %s", assumed)
    for field in ("decoder", "precision"):
        there, here = getattr(wanted, field, None), getattr(made, field, None)
        if there is not None and here is not None and there != here:
            logger.info("%s: the model's features were made with %s, these with %s", field, there, here)


def _close(left: object, right: object) -> bool:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        return False
    return abs(left - right) <= 1e-6 * abs(left)


def features_alike(
    paths: Sequence[Path],
    manifest: BaseManifest | None,
    *,
    cache: Path | None = None,
    weights: str | None = None,
    device: str | None = None,
    workers: int = 1,
    batch: int = BATCH,
    failed: list[Failed] | None = None,
) -> list[VideoFeatures]:
    """The features of videos, made as a manifest says, in the order of the paths.

    A video whose content was encoded before in this way is taken from the cache.

    Args:
        paths: Videos.
        manifest: Of the features that are to be matched.
        cache: Folder of the cache; None for `default_folder`.
        weights: See `extractor_like`.
        device: See `ExtractorOptions`.
        workers: Processes that decode.
        batch: Frames in one call of the network.
        failed: Is added to for each video that cannot be read, which is left out; None: the first one is an error.

    Raises:
        UserError: as `extractor_like`; if a file is no video, or its rows cannot be made (names it), and with `failed`
            if none can be read.
    """
    infos = readable(paths, failed)  # before a network is loaded
    extractor = extractor_like(manifest, weights=weights, device=device)
    good = [path for path in paths if path in infos]
    return features_by(
        extractor, good, like=manifest, cache=cache, workers=workers, batch=batch, failed=failed
    )


def readable(paths: Sequence[Path], failed: list[Failed] | None = None) -> dict[Path, VideoInfo]:
    """The facts of videos that can be read, by path; of `failed` and the errors see `features_alike`."""
    infos = {}
    for path in dict.fromkeys(paths):
        try:
            infos[path] = probe(path)
        except UserError as error:
            if failed is None:
                raise
            failed.append(Failed(path.stem, str(error)))
    if failed and not infos:
        raise UserError(failed[0].reason)
    return infos


def require_all_read(failed: Sequence[Failed], total: int) -> None:
    """Ends a command that answered about all videos but those in `failed`: logs a line for each.

    Args:
        failed: Videos that could not be read.
        total: How many were to be read.

    Raises:
        UserError: if there is one; counts them.
    """
    for failure in failed:
        logger.error("failed: %s", one_line(failure.reason))
    if failed:
        raise UserError(f"{len(failed):,} of {total:,} videos could not be read, see above")


def features_by(
    extractor: Extractor,
    paths: Sequence[Path],
    *,
    like: BaseManifest | None = None,
    cache: Path | None = None,
    workers: int = 1,
    batch: int = BATCH,
    failed: list[Failed] | None = None,
) -> list[VideoFeatures]:
    """The features of videos by one extractor, rounded as those are that `like` describes; see `features_alike`."""
    made, kept = extractor.manifest(), Cache(cache)
    key = identity(made, batch=batch)
    contents = {path: sha256(path) for path in dict.fromkeys(paths)}
    found: dict[str, tuple[Mapping[str, NDArray[Any]], float]] = {}
    missing: dict[str, Path] = {}
    lost: dict[str, str] = {}
    for path, content in contents.items():
        entry = kept.get(content, key)
        if entry is None:
            missing.setdefault(content, path)
        else:
            found[content] = entry[0], float(entry[1]["duration"])
    if missing:
        count, others = len(missing), len(contents) - len(missing)
        known = f" ({others} more kept from before)" if others else ""
        logger.info("encoding %d video%s%s", count, "s" * (count != 1), known)
        progress = Progress({content: path.stat().st_size for content, path in missing.items()})
        with contextlib.closing(progress):
            videos = list(missing.items())
            for video in extract(extractor, videos, workers=workers, batch=batch, seen=progress.see):
                if isinstance(video, Failed):
                    if failed is None:
                        raise UserError(video.reason)
                    lost[video.video] = video.reason
                    progress.done(video.video)
                    continue
                kept.put(video.video, key, video.rows, {"duration": repr(video.info.duration)})
                found[video.video] = video.rows, video.info.duration
                progress.done(video.video)
    if failed is not None:
        for path, content in contents.items():
            if content in lost:  # perhaps of a copy, by its name
                failed.append(Failed(path.stem, lost[content].replace(str(missing[content]), str(path))))
    if lost and not found:
        raise UserError(next(iter(lost.values())))
    good = [path for path in paths if contents[path] in found]
    return [_features(path, contents[path], found[contents[path]], like, made) for path in good]


def _features(
    path: Path,
    content: str,
    found: tuple[Mapping[str, NDArray[Any]], float],
    wanted: BaseManifest | None,
    made: BaseManifest,
) -> VideoFeatures:
    rows, duration = dict(found[0]), found[1]
    stored: dict[str, Any] = {}
    if FEATURES in rows:
        # what a file holds was rounded on its way there
        dtype = getattr(wanted, "dtype", None)
        if dtype == "float16":
            rows[FEATURES] = rows[FEATURES].astype(np.float16).astype(np.float32)
        stored = {"dim": rows[FEATURES].shape[-1], "dtype": dtype or "float32"}
    return VideoFeatures(
        f"{path.stem}-{content[:12]}", path, rows, dataclasses.replace(made, **stored), duration
    )
