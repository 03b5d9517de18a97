"""Opens an index to search it: `vmr_search.open`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmr_common.errors import UserError, counted
from vmr_search.folder import CorpusIndex, open_index
from vmr_search.search import Search
from vmr_search.video_features import FEATURES
from vmr_video.networks.weights import device_of

Paths = str | Path | Sequence[str | Path]


def open(
    index: str | Path,
    *,
    videos: Paths | None = None,
    ground: str | Path | None = None,
    features: Paths | None = None,
    weight: float | None = None,
    ordered: bool = True,
    device: str = "cpu",
) -> Search:
    """Opens an index that ``vmr-search index`` made.

    Args:
        index: Its folder.
        videos: Video files, and folders with them, so that found moments can be shown; ids are names without endings.
        ground: Checkpoint or run folder of an installed method that grounds the moment in the videos that are found;
            None: the retriever's windows are the answer.
        features: Of the videos, for that method; None: those that the index has kept of video files, else the method's
            own data.
        weight: Share of that method in the score, 0 to 1; None: as `MethodGrounder` has it.
        ordered: Sentences like "B after A" are searched as two parts in this order; else as a whole.
        device: Where models compute: cpu, cuda, ..., or auto.

    Raises:
        UserError: if the index, a checkpoint, features or videos cannot be opened, or do not fit together.

    Example:
        >>> import vmr_search
        >>> search = vmr_search.open("index/mine", videos="movies")  # doctest: +SKIP
        >>> search("a person opens the door", k=3)  # doctest: +SKIP
    """
    name = str(device_of(device))
    opened = open_index(index, device=name)
    return search_of(
        opened,
        videos=videos,
        ground=ground,
        features=features,
        weight=weight,
        ordered=ordered,
        device=name,
    )


def search_of(
    index: CorpusIndex,
    *,
    videos: Paths | None = None,
    ground: str | Path | None = None,
    features: Paths | None = None,
    weight: float | None = None,
    ordered: bool = True,
    device: str = "cpu",
) -> Search:
    """The search over an index that is open; see `open`."""
    files = {} if videos is None else files_of(index, videos)
    if ground is None:
        return Search(index.engine, index.retriever, files=files, ordered=ordered)
    paths = features_of(index, features)
    from vmr_search.method_grounder import WEIGHT, open_grounder

    share = WEIGHT if weight is None else weight
    grounder = open_grounder(ground, paths, device=device, weight=share)
    return Search(index.engine, index.retriever, files=files, grounder=grounder, ordered=ordered)


def files_of(index: CorpusIndex, videos: Paths) -> dict[str, Path]:
    """The video files of an index by id.

    Raises:
        UserError: if there is none among them.
    """
    from vmr_video.media import video_files

    found = dict(video_files(_several(videos)))
    files = {video: path for video, path in found.items() if video in index.engine}
    if not files and len(index.engine):
        raise UserError(
            f"{_several(videos)[0]}: none of {counted(len(found), 'video file')} is in {index.folder} (ids are names "
            "without endings)"
        )
    return files


def features_of(index: CorpusIndex, features: Paths | None) -> list[Path] | None:
    """Files of the features that a method grounds moments in; None: its own data, where none are given nor kept."""
    if features is not None:
        return _several(features)
    kept = index.folder / FEATURES
    return [kept] if kept.exists() else None


def _several(paths: Paths) -> list[Path]:
    return [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
