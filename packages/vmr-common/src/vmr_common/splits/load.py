"""Splits by name, and splits of one's own: annotation files turned into queries, with a report and a hash."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmr_common.errors import UserError, counted, quoted, some_of
from vmr_common.io import read_json
from vmr_common.splits.formats import read_annotations
from vmr_common.splits.generated import generate
from vmr_common.splits.irregular import Report
from vmr_common.splits.objects import canonical_row
from vmr_common.splits.policies import Policy
from vmr_common.splits.registry import ENTRIES, Entry
from vmr_common.splits.sources import DATA_ROOT_VARIABLE, GZIPPED, found_path, require_files
from vmr_common.splits.text_files import read_durations
from vmr_common.types import Query


@dataclass(frozen=True)
class Split:
    """Queries to train or evaluate on.

    Example:
        >>> from vmr_common.splits.irregular import Report
        >>> query = Query(id="1", video="kitchen", text="she opens the fridge", duration=30.0)
        >>> len(Split("mine", [query], Report(source="", read=1, kept=1), "strict").hash)
        64
    """

    name: str  # registered name, or the file's name for a custom split
    queries: list[Query]  # in file order
    report: Report  # what was irregular
    protocol: str  # name of the protocol of the published evaluation; `strict` for custom splits

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 over the canonical rows of the queries: two splits are equal if and only if it is."""
        digest = hashlib.sha256()
        for query in self.queries:
            digest.update(json.dumps(canonical_row(query), sort_keys=True).encode() + b"\n")
        return digest.hexdigest()


def data_root(given: str | Path | None = None, remembered: str | None = None) -> Path:
    """The data root: the given one, else ``$VMR_DATA``, else that of a checkpoint where it still is, else ``data``."""
    known = remembered if remembered and os.path.isdir(remembered) else "data"
    return Path(given) if given is not None else Path(os.environ.get(DATA_ROOT_VARIABLE) or known)


def _like(name: str) -> str:
    """The names of the same data set, or of all in short, one word each: ``shapes/{train,val,test}``."""
    parts: dict[str, list[str]] = {}
    for known in ENTRIES:
        data_set, _, part = known.rpartition("/")
        parts.setdefault(data_set, []).append(part)
    same = name.rpartition("/")[0]
    if same in parts:
        return ", ".join(f"{same}/{part}" for part in parts[same])
    return ", ".join(f"{data_set}/{{{','.join(names)}}}" for data_set, names in parts.items())


def load_split(
    name: str,
    data_root: str | Path,
    *,
    videos: Path | None = None,
    videos_key: str | None = None,
    strip_extension: bool = False,
    count: bool = True,
) -> Split:
    """Loads a registered split from its files under `data_root` (see `registry`).

    Record counts that differ from the published ones are noted in the report. `videos`, `videos_key` and
    `strip_extension` are those of `custom_split`; without `count` the report has no irregularities. Raises `UserError`
    if no split has that name, files are missing (as `require_files`) or malformed.

    Example:
        >>> load_split("charades/test", "data")
        Traceback (most recent call last):
        vmr_common.errors.UserError: split 'charades/test' is unknown, ...
    """
    entry = ENTRIES.get(name)
    if entry is None:
        raise UserError(f"split {name!r} is unknown, expected one of {_like(name)}")
    root = Path(data_root)
    if entry.generated_by is not None:
        generate(entry.made, root / entry.made, entry.generated_by)
    require_files(entry.files, root, f"split {name}: ")
    path, *tables = (found_path(file, root, GZIPPED) for file in entry.files)
    durations = read_durations(tables[0]) if tables else None
    found = read_annotations(
        path,
        entry.format,
        durations=durations,
        policy=entry.policy,
        count=count,
        subset=entry.subset,
        strip_extension=strip_extension,
    )
    report = dataclasses.replace(found.report, notes=_count_notes(entry, found.report))
    return _only_videos(Split(name, found.queries, report, entry.protocol), videos, videos_key)


def training_split(name: str) -> str:
    """The name of the training split of the same data set, be it registered or not.

    >>> training_split("charades-sta/test")
    'charades-sta/train'
    """
    return name.rpartition("/")[0] + "/train"


def _count_notes(entry: Entry, report: Report) -> tuple[str, ...]:
    pairs = (("records", entry.read, report.read), ("queries kept", entry.kept, report.kept))
    notes = [
        f"warning: {found} {words}, published are {published}"
        for words, published, found in pairs
        if published is not None and published != found
    ]
    if entry.official is not None:
        notes.append(
            f"{report.kept} of the {entry.official} queries of the official evaluation: recall of all of them is at "
            f"least {report.kept / entry.official:.3f} times recall of these"
        )
    return tuple(notes)


def custom_split(
    annotations: str | Path,
    *,
    format: str = "auto",
    videos: str | Path | None = None,
    videos_key: str | None = None,
    durations: str | Path | None = None,
    policy: str | Policy | None = None,
    fields: Mapping[str, str] | None = None,
    subset: str | None = None,
    strip_extension: bool = False,
    count: bool = True,
) -> Split:
    """A split of one's own: any annotation file, optionally restricted to a list of videos.

    Query ids are given before the restriction, so they agree between subsets of one file. `format` is a name of
    `formats.FORMATS`, or ``auto``; `videos` a JSON file with a list of video ids, or with an object of lists, of which
    `videos_key` names one; `durations` a table for formats that have none; `policy` a name of `policies.POLICIES`, by
    default that of the format; `fields` the names of the records' fields where they are none of `fields.NAMES`;
    `subset` the part of a file that holds several; `strip_extension` takes folders and endings of video files
    off the ids of videos; `count` as in `load_split`.

    Raises `UserError` naming file, key and expectation for anything malformed, or if no query is left.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.jsonl"
        >>> row = {"qid": 1, "vid": "kitchen", "query": "she opens the fridge", "duration": 30}
        >>> _ = path.write_text(json.dumps(row))
        >>> split = custom_split(path)
        >>> split.name, split.queries[0].text
        ('mine.jsonl', 'she opens the fridge')
    """
    path = Path(annotations)
    table = None if durations is None else read_durations(durations)
    found = read_annotations(
        path,
        format,
        durations=table,
        policy=policy,
        count=count,
        fields=fields,
        subset=subset,
        strip_extension=strip_extension,
    )
    split = Split(
        path.name if subset is None else f"{path.name}[{subset}]", found.queries, found.report, "strict"
    )
    split = _only_videos(split, None if videos is None else Path(videos), videos_key)
    if not split.queries:
        raise UserError(f"{path}: no query is left of {split.report.read} records")
    return split


def _only_videos(split: Split, videos: Path | None, key: str | None) -> Split:
    if videos is None:
        if key is not None:
            raise UserError("videos_key needs videos, the file with the lists of video ids")
        return split
    wanted = dict.fromkeys(read_video_list(videos, key))
    queries = [query for query in split.queries if query.video in wanted]
    label = key if key is not None else videos.stem
    if not queries:
        raise UserError(
            f"{videos}: none of the {len(wanted)} videos of {label!r} has a query in {split.report.source}"
        )
    without = len(wanted) - len({query.video for query in queries})
    notes = [
        f"{counted(len(queries), 'query')} of the {counted(len(wanted), 'video')} of {label} ({videos.name})"
    ]
    if without:
        notes.append(f"{without} of these videos have no query in {Path(split.report.source).name}")
    report = dataclasses.replace(split.report, kept=len(queries), notes=(*split.report.notes, *notes))
    return Split(f"{split.name}[{label}]", queries, report, split.protocol)


def read_video_list(path: str | Path, key: str | None = None) -> list[str]:
    """Video ids from a JSON list, or from the list `key` of a JSON object.

    Raises `UserError` naming file and key if there is no such list of texts, or it is empty.
    """
    values: Any = read_json(path)
    if isinstance(values, dict):
        names = some_of(values)
        if key is None:
            raise UserError(f"{path}: holds several lists ({names}); say which one with videos_key")
        if key not in values:
            raise UserError(f"{path}: no list {quoted(key)} (found: {names})")
        values = values[key]
    elif key is not None:
        raise UserError(f"{path}: holds one list, so videos_key {key!r} has no meaning")
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise UserError(f"{path}: expected a list of video ids{f' under {key!r}' if key else ''}")
    return values
