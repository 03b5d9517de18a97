"""Options of ``<name>-predict`` on video files: what they ask for, and the pages, files and markers that answer."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.cli.entrypoint import echo
from vmr_common.errors import UserError, counted, listed
from vmr_common.splits.sources import found_path
from vmr_common.types import Prediction, Query
from vmr_train.splits import SplitConfig, load
from vmr_train.video_files import Making, require_vmr_video

if TYPE_CHECKING:
    from vmr_train.checkpoint import Checkpoint
    from vmr_train.config import RunConfig
    from vmr_train.given_features import GivenFeatures
    from vmr_video.answers import Answer
    from vmr_video.media import VideoInfo

_OF_FILES = ("cache", "page", "cut", "cut_exact", "export")
_INSTEAD = ("video", "duration", "query_id")


def add_options(parser: ArgumentParser) -> None:
    """The options of this module."""
    add = parser.add_argument_group("video files").add_argument
    about = "videos, or folders of them, instead of --video: their features are made as the checkpoint's were"
    add("--video-file", type=str, nargs="+", default=None, metavar="FILE", help=about)
    add("--cache", type=str, default=None, metavar="DIR", help="keep the features that are made here")
    about = "weights of the extractor, where they are not where they were (of two extractors twice)"
    add("--weights", type=str, action="append", default=None, metavar="PATH", help=about)
    add("--page", type=str, default=None, metavar="HTML", help="write a page that plays the moments")
    add("--cut", type=str, default=None, metavar="DIR", help="write the moments as files of their own")
    about = "encode the cuts anew, to the frame, instead of copying from a key frame on"
    add("--cut-exact", action="store_true", help=about)
    add("--export", type=str, default=None, metavar="KIND", help="markers: edl, fcpxml, csv, or a path")
    parser.set_defaults(failed=[])  # files that could not be read, see `require_all_read`


def check(package: str, given: Namespace) -> None:
    """Makes sure that the options fit together.

    Raises:
        UserError: if not; names them.
    """
    if given.video_file is None:
        for name in _OF_FILES:
            if getattr(given, name):
                raise UserError(f"--{name.replace('_', '-')} is for videos that --video-file names")
        return
    for name in _INSTEAD:
        if getattr(given, name, None) is not None:
            raise UserError(f"give either --video-file or --{name.replace('_', '-')}")
    if (given.query is None) == (given.queries is None):
        raise UserError("--video-file needs --query, once or several times, or --queries with a file")
    if not all(text.strip() for text in given.query or ()):
        raise UserError("--query is empty, expected a sentence")
    require_vmr_video(package, "--video-file")
    from vmr_video.answers import files

    files.check(given)


def making(config: RunConfig, given: Namespace, checkpoint: Checkpoint) -> Making:
    """The making of features, as the options say."""
    device = config.train.device
    return Making(
        package=checkpoint.meta["package"],
        checkpoint=checkpoint,
        root=given.root,
        cache=None if given.cache is None else Path(given.cache),
        weights=given.weights or (),
        device=None if device == "auto" else device,
        failed=given.failed,
    )


def frame_features(config: Any, given: Namespace, checkpoint: Checkpoint) -> GivenFeatures | None:
    """The frame features of ``--video-file``, by file name without ending; None without the option.

    Raises:
        UserError: as `given_features.frame_features`.
    """
    if given.video_file is None:
        return None
    from vmr_train.given_features import frame_features as made

    return made(paths(given), config.data.features, making(config, given, checkpoint))


def paths(given: Namespace) -> list[Path]:
    """The files and folders of ``--video-file``."""
    return [Path(name) for name in given.video_file]


def sentences(path: Path) -> list[str]:
    """The sentences of a text file, one a line; empty lines are passed over.

    Raises:
        UserError: if it is no text, or holds none.
    """
    from vmr_common.text_input import opened

    with opened(path) as file:
        found = [line.strip() for _, line in file.lines()]
    if not found:
        raise UserError(f"{path}: holds no sentence, expected one a line")
    return found


def queries(given: Namespace, store: Any, root: Path) -> list[Query]:
    """The queries about video files: every sentence in each of them, or those of an annotation file.

    Args:
        given: The options.
        store: The features, with `durations` by video.
        root: The data root.

    Raises:
        UserError: if a sentence is empty, or no annotation is about a file.
    """
    if given.queries is not None and not _is_list(given.queries):
        annotated = load(SplitConfig(annotations=given.queries), root).queries
        found = [
            dataclasses.replace(query, duration=store.durations[query.video])
            for query in annotated
            if query.video in store.durations
        ]
        if not found:
            require_all_read(given)
            known = listed([query.video for query in annotated], 3)
            raise UserError(
                f"{given.queries}: no query is about {listed(list(store.durations), 3)}; a video's id is its file's "
                f"name without the ending, found {known}"
            )
        return found
    texts = given.query if given.queries is None else sentences(found_path(given.queries, root))
    several = len(store.durations) + len(given.failed) > 1
    return [
        Query(id=f"{video}/{number}" if several else str(number), video=video, text=text, duration=seconds)
        for video, seconds in store.durations.items()
        for number, text in enumerate(texts)
    ]


def _is_list(name: str) -> bool:
    """True for a text file that is no annotation file by its name."""
    return Path(name).suffix.lower() == ".txt"


def write_answers(given: Namespace, found: Sequence[Prediction]) -> None:
    """Writes the page, the cuts and the markers that the options ask for; without ``--video-file`` nothing.

    Raises:
        UserError: if one cannot be written, or a moment cannot be cut.
    """
    if given.video_file is None or not (given.page or given.cut or given.export):
        return
    from vmr_video.answers import files
    from vmr_video.media import probe, video_files

    answered = {one.video for one in found}
    infos = {video: probe(path) for video, path in video_files(paths(given)) if video in answered}
    told = [answer_of(one, infos[one.video]) for one in found]
    title = ", ".join(infos) if len(infos) == 1 else counted(len(infos), "video")
    lines = files.write(given, told, title=title, k=given.k)
    if not given.json:
        echo("", *lines)


def require_all_read(given: Namespace) -> None:
    """Logs why files of ``--video-file`` could not be read, and raises `UserError` if there are any; see vmr_video."""
    if given.video_file is not None and given.failed:
        from vmr_video.alike import require_all_read as require
        from vmr_video.media import video_files

        require(given.failed, len(video_files(paths(given))))


def answer_of(found: Prediction, info: VideoInfo) -> Answer:
    """A prediction as pages, cuts and markers are made of it."""
    from vmr_train.presence import presence_text
    from vmr_video.answers import Answer

    return Answer(info, found.text, found.moments, found.scores, note=presence_text(found))
