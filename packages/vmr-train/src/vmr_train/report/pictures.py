"""Pictures of frames and video files of one's own, which reports show."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vmr_common.boundary import boundary, open_regular, require_size
from vmr_common.errors import UserError
from vmr_common.timeline import clip_centres

Frame: TypeAlias = "NDArray[np.uint8]"
FloatArray: TypeAlias = "NDArray[np.float64]"

SUFFIXES = (".png", ".jpg", ".jpeg")
VIDEO_SUFFIXES = (".mp4", ".webm", ".m4v", ".mov", ".mkv", ".ogv")
_SECONDS = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")
_NUMBER = re.compile("([0-9]+)")


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of a folder in the order of their names, numbers in them by size; each is read when asked for."""

    paths: list[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: NDArray[np.int64]) -> Frame:
        """The pictures of these rows, ``(n, H, W, 3)`` uint8.

        Raises:
            UserError: if one cannot be read, or they differ in size.
        """
        found = [read_picture(self.paths[row]) for row in rows]
        if len({picture.shape for picture in found}) > 1:
            raise UserError(f"{self.paths[0].parent}: the pictures differ in size")
        return np.stack(found)

    def times(self, duration: float) -> FloatArray:
        """The time of each, seconds: its name, where all names are such as ``12.50``, else evenly spread."""
        stems = [path.stem for path in self.paths]
        if all(map(_SECONDS.fullmatch, stems)):
            return np.array([float(stem) for stem in stems])
        return clip_centres(len(stems), duration)


def picture_folder(folder: Path) -> PictureFolder:
    """The PNG and JPEG files of a folder.

    Raises:
        UserError: if it holds none.
    """
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise UserError(f"{folder}: holds no picture ({', '.join(SUFFIXES)})")
    return PictureFolder(sorted(paths, key=_natural))


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    parts = _NUMBER.split(path.stem)
    return [(part.isdecimal(), int(part[:18]) if part.isdecimal() else 0, part) for part in parts]


def read_picture(path: Path) -> Frame:
    """A PNG or JPEG file, ``(H, W, 3)`` uint8.

    Raises:
        UserError: if it is something else, damaged, or larger than its bytes can justify.
    """
    from PIL import Image

    with boundary(f"{path}: a picture that cannot be read"), open_regular(path) as file:
        # these alone: for others Pillow starts programs (Ghostscript for PostScript, whatever the name says)
        picture = Image.open(file, formats=("PNG", "JPEG"))
        width, height = picture.size
        require_size((height, width, 3), np.dtype(np.uint8), path.stat().st_size, str(path))
        return np.asarray(picture.convert("RGB"))


@dataclass(frozen=True)
class OwnFrames:
    """Frames of videos from ``FOLDER/<video id>/*.png`` (or ``.jpg``); see `PictureFolder.times` for their times.

    Attributes:
        folder: Holds a folder for each video.
        durations: Seconds, by video id.
    """

    folder: Path
    durations: Mapping[str, float]

    def __call__(self, video: str) -> tuple[PictureFolder, FloatArray] | None:
        """The frames of a video and their times ``(F,)``, seconds; None where it has no folder."""
        place = inside(self.folder, video)
        if place is None or not place.is_dir():
            return None
        found = picture_folder(place)
        return found, found.times(self.durations[video])

    def require(self, videos: Iterable[str]) -> None:
        """Makes sure that there are frames of at least one of these videos.

        Raises:
            UserError: if not.
        """
        _require(self.folder, [place for video in videos if (place := inside(self.folder, video))], "/")


def video_addresses(folder: Path, videos: Iterable[str], page: Path) -> dict[str, str]:
    """Addresses of the files ``FOLDER/<video id>.mp4`` (and the like) relative to a page, by video id.

    Raises:
        UserError: if there is a file for none of the videos.
    """
    found, wanted = {}, []
    for video in videos:
        place = inside(folder, video)
        files = [] if place is None else [place.with_name(place.name + end) for end in VIDEO_SUFFIXES]
        wanted += files[:1]
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            found[video] = _address(file, page)
    if not found:
        _require(folder, wanted, f" (or {', '.join(VIDEO_SUFFIXES[1:])})")
    return found


def _address(file: Path, page: Path) -> str:
    try:
        relative = os.path.relpath(file.absolute(), page.absolute().parent)
    except ValueError:  # another drive of Windows
        return file.absolute().as_uri()
    return urllib.parse.quote(PurePath(relative).as_posix())


def inside(folder: Path, name: str) -> Path | None:
    """The place of a video in a folder; None for a name that leads out of it."""
    parts = PurePath(name).parts
    if not parts or PurePath(name).is_absolute() or ".." in parts or "\0" in name:
        return None
    return folder / name


def _require(folder: Path, places: list[Path], ending: str) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if not any(place.exists() for place in places):
        example = f", for example no {places[0]}{ending}" if places else ""
        raise UserError(
            f"{folder}: holds nothing for any of the {len(places)} videos that the page shows{example}"
        )
