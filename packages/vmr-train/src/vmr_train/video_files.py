"""Features of video files, made as those that a checkpoint was trained on: as the manifests in it say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vmr_common.errors import UserError
from vmr_common.features.manifest import BaseManifest, Manifest
from vmr_common.splits.load import load_split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vmr_train.checkpoint import Checkpoint
    from vmr_video.alike import VideoFeatures
    from vmr_video.decoding import Failed

Kind = TypeVar("Kind", bound=BaseManifest)
PARTS = {"features": "frame features", "objects": "object features", "queries": "query features"}
"""What a checkpoint may keep a manifest of, in words."""
LONG_FPS = 2.0
"""Frames per second of the embedded data set shapes-long; those of shapes are 4."""


@dataclass(frozen=True, kw_only=True)
class Making:
    """The choices by which features of video files and of new sentences are made.

    Attributes:
        package: The paper's package.
        checkpoint: Its manifests say how.
        root: The data root; a checkpoint without a manifest has files there that may have one.
        cache: Folder in which what was made is kept, by the content of the video; None: nowhere.
        weights: Of the networks, where they are not where the manifests say; of two networks the objects' first.
        device: A torch device; None takes the best one at hand.
        failed: Is added to for each video file that cannot be read, which is left out; None: the first is an error.
    """

    package: str
    checkpoint: Checkpoint
    root: Path
    cache: Path | None = None
    weights: Sequence[str] = ()
    device: str | None = None
    failed: list[Failed] | None = None

    def manifest(
        self,
        part: str,
        kind: type[Kind],
        open_files: Callable[[], Any],
        otherwise: str = "make them yourself and give the file of features",
    ) -> Kind:
        """The manifest of the features that the model was trained on: as the checkpoint says, else the files at hand.

        Args:
            part: One of `PARTS`.
            kind: Of manifest.
            open_files: Opens the features that the model was trained on.
            otherwise: What else can be done, in words.

        Raises:
            UserError: if nothing says it; tells what to do.
        """
        stored = stored_manifest(self.checkpoint.meta["describe"], part)
        if stored is not None:
            return kind.from_mapping(stored, f"{self.checkpoint.path}: manifest of the {PARTS[part]}")
        try:
            found = getattr(open_files(), "manifest", None)
        except UserError:  # the files need not be at hand
            found = None
        if isinstance(found, kind):
            return found
        raise UserError(
            f"{self.checkpoint.path}: nothing says how its {PARTS[part]} were made (they had no manifest), so none can "
            f"be made alike; {otherwise}, or train with files that have a manifest (vmr-extract writes it)"
        )

    def alike(self, paths: Sequence[Path], manifest: BaseManifest) -> Mapping[str, VideoFeatures]:
        """Rows of video files by id, their name without the ending, made as a manifest says.

        Raises:
            UserError: if vmr-video is not there, a file is no video (with `failed`: none is), two have one name, or
                the rows cannot be made alike; says both sides and what to do.
        """
        require_vmr_video(self.package, "a video file")
        from vmr_video.alike import features_alike
        from vmr_video.decoding import default_workers
        from vmr_video.media import video_files

        named = {path: name for name, path in video_files(paths)}
        made = features_alike(
            list(named),
            manifest,
            cache=self.cache,
            weights=self._weights(manifest),
            device=self.device,
            workers=default_workers(),
            failed=self.failed,
        )
        return {named[video.path]: video for video in made}

    def sentences(
        self, texts: Sequence[str], manifest: Manifest
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Tokens ``(n, Dt)`` and sentence vector ``(Da,)`` of each text, made as a manifest says.

        Raises:
            UserError: as `alike`.
        """
        require_vmr_video(self.package, "a new sentence")
        from vmr_video.sentences import sentences_alike

        return sentences_alike(texts, manifest, weights=self._weights(manifest), device=self.device)

    def _weights(self, manifest: BaseManifest) -> str | None:
        if self.weights:
            return self.weights[0 if hasattr(manifest, "detector") else -1]
        # an embedded data set holds the constants of its extractors, and stands where the checkpoint's data are
        if not (getattr(manifest, "source", None) or "").startswith("Shapes, "):
            return None
        name = "shapes-long" if getattr(manifest, "fps", None) == LONG_FPS else "shapes"
        if isinstance(manifest, Manifest) and not (self.root / name).exists():
            load_split(f"{name}/test", self.root)  # which makes it
        return str(self.root / name) if (self.root / name / "meta.json").is_file() else None


def stored_manifest(described: Mapping[str, Any], part: str) -> dict[str, Any] | None:
    """The manifest of a part of the inputs as the description in a checkpoint keeps it, or None."""
    manifests: dict[str, dict[str, Any] | None] = described.get("manifests", {})
    if part in manifests:
        return manifests[part]
    # checkpoints of version 0.1 keep the one of the videos' first file alone
    first: dict[str, Any] | None = described.get("features", {}).get("manifest")
    of_objects = first is not None and "detector" in first
    return first if of_objects == (part == "objects") and part != "queries" else None


def require_vmr_video(package: str, what: str) -> None:
    """Makes sure that vmr-video is installed.

    Raises:
        UserError: if not; names what to install.
    """
    if importlib.util.find_spec("vmr_video") is None:
        raise UserError(f'{what} needs the package vmr-video: pip install "vmr-{package}[video]"')
