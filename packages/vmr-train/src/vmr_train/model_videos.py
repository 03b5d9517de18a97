"""The videos that a model is asked about: those of its own data, given features, and video files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.errors import UserError, quoted
from vmr_train.caches import LRUCache
from vmr_train.cli import requests
from vmr_train.given_features import FEATURE_FILES, is_video_file, several_features

if TYPE_CHECKING:
    from vmr_common.features.manifest import Manifest
    from vmr_train.api import Opened
    from vmr_train.feature_files import VideoStore
    from vmr_train.video_files import Making

FILES = 4
"""Video files whose features a model keeps."""


class ModelVideos:
    """Inputs and lengths of the videos that a model is asked about.

    Args:
        opened: The checkpoint, which knows the features of the training.
        method: Is told to forget what it keeps by id where an id comes to stand for another video.
        open_own: Opens the inputs of the configuration; called when a video is first asked for by its id.
        given: Inputs for a video that is not in them, and the id that they have it under.
    """

    def __init__(
        self,
        opened: Opened[Any],
        method: Any,
        open_own: Callable[[], Any],
        given: Callable[[Any, Making], tuple[str, Any]],
    ) -> None:
        self._opened, self._method, self._open_own, self._given = opened, method, open_own, given
        self._own: Any = None
        self._durations: dict[str, float] = {}
        self._files: LRUCache[tuple[str, int, int], tuple[str, Any]] = LRUCache(FILES)
        self._met: dict[str, object] = {}

    @property
    def own(self) -> Any:
        """The inputs of the model's own videos by id; opened on first use.

        Raises:
            UserError: if they cannot be opened, or are made in another way than those of the training.
        """
        if self._own is None:
            own = self._open_own()
            self._opened.require_known(own.store)
            self._own = own
        return self._own

    def one(self, video: Any, duration: float | None, making: Making) -> tuple[str, Any, float | None]:
        """The id of a video, inputs that hold it, and its length in seconds, None where nothing tells it.

        Args:
            video: As for `Model.predict`.
            duration: Its length, where it is known.
            making: How features of a video file are made.

        Raises:
            UserError: if there is no such video, or its features do not fit.
        """
        if is_video_file(video):
            name, inputs = self._of_file(Path(video), making)
            return name, inputs, inputs.store.durations[name] if duration is None else duration
        if isinstance(video, str) and not _is_feature_file(video):
            self._require_own(video)
            self._meet(video, None)
            return video, self.own, self._known([video])[0] if duration is None else duration
        name, inputs = self._given(video, making)
        self._opened.require_known(inputs.store)
        return name, inputs, self._rows_times_stride(inputs.store, name) if duration is None else duration

    def several(
        self,
        videos: Sequence[Any],
        durations: Sequence[float | None],
        manifest: Manifest | None,
        making: Making,
    ) -> tuple[list[str], Any, list[float | None]]:
        """As `one`, for ids of own videos or for arrays of features, which `manifest` describes.

        Raises:
            UserError: as `one`.
        """
        if all(isinstance(video, str) for video in videos):
            names = list(videos)
            for name in names:
                self._require_own(name)
                self._meet(name, None)
            self._known([name for name, one in zip(names, durations, strict=True) if one is None])
            inputs, lengths = self.own, [self._durations.get(name) for name in names]
        else:
            names, store = several_features(videos, self._opened.config.data.features, manifest)
            _, inputs = self._given(store, making)
            self._opened.require_known(inputs.store)
            lengths = [self._rows_times_stride(store, name) for name in names]
        known = [length if one is None else one for length, one in zip(lengths, durations, strict=True)]
        return names, inputs, known

    def _of_file(self, path: Path, making: Making) -> tuple[str, Any]:
        """The inputs of a video file and its id there; those of the last few files are kept."""
        status = path.stat()
        key = (str(path.absolute()), status.st_mtime_ns, status.st_size)
        found = self._files.get(key)
        if found is None:
            found = self._files[key] = self._given(path, making)
        self._meet(found[0], key)
        return found

    def _meet(self, name: str, origin: object) -> None:
        """Lets the method forget what it keeps by id where an id stands for another video than before."""
        if self._met.setdefault(name, origin) != origin:
            self._met[name] = origin
            self._method.forget()

    def _require_own(self, name: str) -> None:
        try:
            store = self.own.store
        except UserError as error:
            if not Path(name).suffix:
                raise
            raise UserError(
                f"video: no such file {quoted(name, 60)}, nor data of the model's own: {error}"
            ) from None
        if name not in store:
            some: list[str] = getattr(store, "videos", list)()
            example = f" ({len(some):,} videos, for example {some[0]!r})" if some else ""
            raise UserError(
                f"video: found {quoted(name, 60)}, expected an id in {store.name}{example}, an array of features, or "
                "a file of them or of a video"
            )

    def _known(self, names: Sequence[str]) -> list[float | None]:
        """The durations of own videos, None where nothing tells them; those of new ones are looked up together."""
        new = [name for name in names if name not in self._durations]
        if new:
            store, data = self.own.store, self._opened.config.data
            stride = getattr(data, "feature_stride", None)
            self._durations |= requests.known_durations(data.splits, store, self._opened.root, new, stride)
        return [self._durations.get(name) for name in names]

    def _rows_times_stride(self, store: VideoStore, name: str) -> float | None:
        """Seconds by the stride of the given features, or of those that the model was trained on."""
        described = self._opened.checkpoint.meta["describe"]
        trained: Any = described.get("features", {}).get("manifest") or {}
        stride = (
            getattr(store.manifest, "stride_s", None)
            or trained.get("stride_s")
            or getattr(self._opened.config.data, "feature_stride", None)
        )
        return None if not stride else store.length(name) * float(stride)


def _is_feature_file(name: str) -> bool:
    return Path(name).suffix.lower() in FEATURE_FILES and os.path.isfile(name)
