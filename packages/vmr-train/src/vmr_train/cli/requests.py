"""The queries and the run that an evaluation, a prediction or a resumed training is about."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.cli import query_options
from vmr_common.errors import UserError
from vmr_common.features.sameness import HasManifest
from vmr_common.splits.load import Split, load_split
from vmr_common.splits.outside import outside_of, said_outside
from vmr_common.types import Query
from vmr_train.cli import video_files
from vmr_train.feature_files import VideoStore, require_videos, with_features
from vmr_train.known_features import require_known
from vmr_train.run_files import CONFIG, current, unfinished
from vmr_train.splits import SplitConfig, Splits, SplitsConfig, load, load_splits

if TYPE_CHECKING:
    from vmr_train.checkpoint import Checkpoint

logger = logging.getLogger(__name__)
PARTS = ("train", "validation", "test")


def option(argv: Sequence[str], name: str, default: str) -> str:
    """The last value that a command line gives an option, before anything is parsed."""
    value = default
    for position, argument in enumerate(argv):
        if argument.startswith(f"{name}="):
            value = argument.removeprefix(f"{name}=")
        elif argument == name and position + 1 < len(argv):
            value = argv[position + 1]
    return value


def resumed_config(package: str, default: str, argv: Sequence[str]) -> list[str]:
    """The ``--cfg`` of the run that ``--resume`` alone means (of the name `default`, or as given), or nothing."""
    given = any(argument == "--cfg" or argument.startswith("--cfg=") for argument in argv)
    folder = Path(option(argv, "--runs", "runs")) / package / option(argv, "--name", default)
    file = current(unfinished(folder) or folder, CONFIG)
    return ["--cfg", str(file)] if "--resume" in argv and not given and file.is_file() else []


def requested_split(config: Any, options: Any, root: Path) -> tuple[Split, list[Query]]:
    """The split to evaluate, and the training queries for the bias row.

    Raises:
        UserError: if the split does not exist or cannot be read.
    """
    if options.annotations is not None:
        own = load(SplitConfig(annotations=options.annotations, **query_options.layout(options)), root)
        if outside := outside_of(own):
            logger.warning("%s", said_outside(own, outside))
        return own, load(config.data.splits.train, root).queries
    for name in ("fields", "subset", "strip_extension"):
        if getattr(options, name, None):
            raise UserError(f"--{name.replace('_', '-')} says how a file is read: give it with --annotations")
    if options.split in PARTS:
        splits = load_splits(config.data.splits, root)
        return _part(splits, options.split), splits.train.queries
    return load_split(options.split, root), load(config.data.splits.train, root).queries


def named_split(name: str, config: SplitsConfig, root: Path) -> Split:
    """The split that a command's user names: a part of a run (train, validation, test), or a registered one.

    Raises:
        UserError: if the split does not exist or cannot be read.
    """
    return _part(load_splits(config, root), name) if name in PARTS else load_split(name, root)


def _part(splits: Splits, name: str) -> Split:
    found: Split | None = getattr(splits, name)
    if found is None:
        raise UserError("split validation: this configuration holds no validation videos out")
    return found


def requested_queries(
    config: Any, options: Any, store: VideoStore, checkpoint: Checkpoint, **further: HasManifest | None
) -> list[Query]:
    """The queries to find moments for: of a file, or sentences in one video or in video files.

    Args:
        config: Of the checkpoint, with changes.
        options: Of the command.
        store: The features of videos.
        checkpoint: Knows what it was trained on.
        **further: Further inputs by their part (`video_files.PARTS`).

    Raises:
        UserError: if neither or both are given, the video has no features, or other ones than the model was trained
            on, or its length is not known.
    """
    trained = checkpoint.meta["describe"]
    require_known(config, store, trained, allow=options.allow_other_features, warn=logger.warning, **further)
    queries = _requested_queries(config, options, store, options.root)
    kept = with_features(config, store, "the request", queries)
    if len(kept) < len(queries):
        logger.warning(
            "%d of %d queries are left out: no features for their videos",
            len(queries) - len(kept),
            len(queries),
        )
    return kept


def _requested_queries(config: Any, options: Any, store: VideoStore, root: Path) -> list[Query]:
    if options.video_file is not None:
        return video_files.queries(options, store, root)
    if options.queries is not None:
        if any(value is not None for value in (options.video, options.query, options.duration)):
            raise UserError("give either --queries (a file), or --video and --query")
        return load(SplitConfig(annotations=options.queries), root).queries
    if not options.video or options.query is None:
        raise UserError("--video and --query are needed (or --queries with a file)")
    if not all(text.strip() for text in options.query):
        raise UserError("--query is empty, expected a sentence")
    require_videos(store, {"the request": [Query(id="0", video=options.video, text="", duration=1.0)]})
    duration = options.duration
    if duration is None:
        stride = getattr(config.data, "feature_stride", None)
        duration = known_durations(config.data.splits, store, root, [options.video], stride).get(
            options.video
        )
        if duration is None:
            raise UserError(f"the length of video {options.video!r} is not known: give --duration in seconds")
    return [
        Query(id=str(number), video=options.video, text=text, duration=duration)
        for number, text in enumerate(options.query)
    ]


def known_durations(
    splits: SplitsConfig, store: VideoStore, root: Path, videos: Iterable[str], stride: float | None = None
) -> dict[str, float]:
    """Seconds of those videos whose length is known: as annotated in a run's splits, else from the features' stride.

    Args:
        splits: Of the run.
        store: The features.
        root: The data root.
        videos: Those that are asked for.
        stride: Seconds of a row that the configuration knows, where no manifest does.

    Raises:
        UserError: if the features lack a video that is not annotated.
    """
    wanted = set(videos)
    found: dict[str, float] = {}
    for part in PARTS[::-1]:
        chosen = getattr(splits, part)
        if chosen is None or wanted <= found.keys():
            continue
        try:
            queries = load(chosen, root).queries
        except UserError:  # the annotations need not be at hand to search other videos
            continue
        for query in queries:
            found.setdefault(query.video, query.duration)
    found = {video: found[video] for video in wanted & found.keys()}
    # object features have no stride of their own
    stride = getattr(store.manifest, "stride_s", None) or stride
    if stride:
        found |= {video: store.length(video) * float(stride) for video in wanted - found.keys()}
    return found
