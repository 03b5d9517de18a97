"""The queries of a run: training, validation and test splits; videos are held out where no validation is published."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmr_common.errors import UserError
from vmr_common.splits.fields import require_fields
from vmr_common.splits.load import Split, custom_split, load_split
from vmr_common.splits.policies import policy_named
from vmr_common.splits.sources import found_path
from vmr_common.types import Query
from vmr_train.ranges import PathText, Probability, require_ranges


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Queries of a run: either a registered split, or an annotation file."""

    split: str | None = None
    """Registered name, e.g. charades-sta-rgn/train."""
    annotations: PathText | None = None
    """An annotation file instead."""
    format: str = "auto"
    """Its format; `auto` recognises it by its content."""
    videos: PathText | None = None
    """JSON file with a list of video ids; queries of other videos are left out."""
    videos_key: str | None = None
    """Name of the list, where `videos` holds an object of lists."""
    durations: PathText | None = None
    """CSV (id, length) or JSON file with durations in seconds, for formats that have none."""
    policy: str | None = None
    """Policy for irregular records of `annotations`; null is that of its format."""
    fields: dict[str, str] | None = None
    """Names of the fields of `annotations` where they are not known ones, e.g. {query: caption, start: begin}."""
    subset: str | None = None
    """Which part of `annotations` that holds several, e.g. training."""
    strip_extension: bool = False
    """Take folders, and endings of video files such as .mp4, off the ids of videos."""

    def __post_init__(self) -> None:
        require_ranges(self, "split")
        if (self.split is None) == (self.annotations is None):
            raise UserError("give either split (a registered name) or annotations (a file), and not both")
        if self.videos_key is not None and self.videos is None:
            raise UserError("videos_key needs videos, the file with the lists of video ids")
        if self.policy is not None:
            policy_named(self.policy)
        require_fields(self.fields or {})
        if self.split is not None and (self.fields or self.subset is not None):
            raise UserError("fields and subset are for annotations (a file), a registered split has its own")


@dataclass(frozen=True, kw_only=True)
class SplitsConfig:
    """The queries of a run."""

    train: SplitConfig
    """Queries to learn from."""
    test: SplitConfig
    """Queries to report on."""
    validation: SplitConfig | None = None
    """Queries that choose the epoch; null holds videos of `train` out (see `held_out`)."""
    held_out: Probability = 0.1
    """Share of the training videos held out for validation where `validation` is null, in [0, 1)."""

    def __post_init__(self) -> None:
        require_ranges(self, "data.splits")


@dataclass(frozen=True)
class Splits:
    """Loaded splits; `validation` is None where nothing is held out."""

    train: Split
    validation: Split | None
    test: Split


def load(config: SplitConfig, data_root: str | Path) -> Split:
    """Loads what a configuration asks for; relative paths lead under `data_root`, else from the current folder.

    Raises:
        UserError: as `load_split` and `custom_split`.
    """
    videos = None if config.videos is None else found_path(config.videos, data_root)
    if config.split is not None:
        return load_split(
            config.split,
            data_root,
            videos=videos,
            videos_key=config.videos_key,
            strip_extension=config.strip_extension,
        )
    assert config.annotations is not None
    return custom_split(
        found_path(config.annotations, data_root),
        format=config.format,
        videos=videos,
        videos_key=config.videos_key,
        durations=None if config.durations is None else found_path(config.durations, data_root),
        policy=config.policy,
        fields=config.fields,
        subset=config.subset,
        strip_extension=config.strip_extension,
    )


def load_splits(config: SplitsConfig, data_root: str | Path) -> Splits:
    """Loads the splits of a configuration and holds validation videos out where none are published.

    Raises:
        UserError: as `load`, or if there are too few videos to hold some out.
    """
    train, test = load(config.train, data_root), load(config.test, data_root)
    if config.validation is not None:
        return Splits(train, load(config.validation, data_root), test)
    if config.held_out == 0:
        return Splits(train, None, test)
    kept, held = hold_out(train.queries, config.held_out)
    if not kept or not held:
        raise UserError(
            f"data.splits.held_out {config.held_out}: {train.name} has too few videos to hold some out"
        )
    name = f"held out of {train.name}"
    return Splits(_part(train, train.name, kept), _part(train, name, held), test)


def hold_out(queries: Sequence[Query], share: float) -> tuple[list[Query], list[Query]]:
    """Divides queries by video: those kept, and those of about `share` of the videos.

    A video's side depends on its id alone, so it does not change when other videos come or go.

    Example:
        >>> queries = [Query(id=str(n), video=f"v{n % 50}", text="", duration=1.0) for n in range(100)]
        >>> kept, held = hold_out(queries, 0.1)
        >>> len(kept) + len(held), {q.video for q in kept} & {q.video for q in held}
        (100, set())
    """
    kept: list[Query] = []
    held: list[Query] = []
    for query in queries:
        digest = hashlib.sha256(f"held out\x1f{query.video}".encode()).digest()
        (held if int.from_bytes(digest[:8], "big") < share * 2**64 else kept).append(query)
    return kept, held


def _part(split: Split, name: str, queries: list[Query]) -> Split:
    return Split(name, queries, split.report, split.protocol)
