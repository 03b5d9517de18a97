"""The lines of ``vmr-data info`` about feature files and splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, counted
from vmr_common.evaluation import protocol, suiting
from vmr_common.evaluation.baselines import ConstantWindowBaseline
from vmr_common.features.checking import shape_problems
from vmr_common.features.manifest import BaseManifest
from vmr_common.features.store import FeatureStore
from vmr_common.features.stride import durations_of, stride_of
from vmr_common.splits.irregular import ACTED, Report
from vmr_common.splits.load import Split, load_split, training_split
from vmr_common.splits.policies import POLICIES
from vmr_common.splits.registry import ENTRIES
from vmr_common.splits.sources import GZIPPED, place_of, require_files, was_read
from vmr_common.types import Query

_AT_ONCE = 1 << 14  # queries whose constant windows are scored at once


def columns(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Lines of a table; the columns numbered in `left` are aligned to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def count(value: int | None) -> str:
    """A count for people, or a dash."""
    return "-" if value is None else f"{value:,}"


def span(values: Sequence[int], what: str) -> str:
    """The least to the most of some counts of things, or the one that all are."""
    least, most = min(values), max(values)
    return counted(least, what) if least == most else f"{count(least)} to {counted(most, what)}"


def manifest_lines(manifest: BaseManifest | None, assumed: str = "") -> list[str]:
    """Lines on how features were made; where nothing is known, a line says so, and what is `assumed`."""
    known = {} if manifest is None else dataclasses.asdict(manifest)
    facts = [f"  {name}: {value}" for name, value in known.items() if value is not None]
    return facts or [f"  no manifest: what made these features is not recorded{assumed}"]


def feature_lines(
    store: FeatureStore, shapes: Mapping[str, tuple[int, int]], queries: Sequence[Query]
) -> list[str]:
    """Describes a feature store, given the shape of each video's, how it was made, and whether it fits queries."""
    if not shapes:
        raise store.empty()
    rows, widths = zip(*shapes.values(), strict=True)
    about = f"{store.name}: {counted(len(shapes), 'video')}, {span(widths, 'column')}, {span(rows, 'row')}"
    ending = ", ".join(ending for ending in store.endings if ending)
    taken = [f"  names end in {ending}, which is no part of the ids"] if ending else []
    remarks = map("  {}".format, shape_problems(shapes))
    rows_of = {video: length for video, (length, _) in shapes.items()}
    stride = stride_of(store, durations_of(queries), rows=rows_of)
    told = (
        [f"  {stride}", *([f"  {stride.disagreement()}"] if stride.misfits else [])] if stride.videos else []
    )
    beside = [f"  {line}" for line, _ in store.side_disagreements()]
    return [about, *remarks, *taken, *manifest_lines(store.manifest), *beside, *told]


def registered_lines() -> list[str]:
    """Every registered split: published counts, protocol, policy and file."""
    rows = [["split", "records", "queries", "protocol", "policy", "file"]]
    for entry in ENTRIES.values():
        mark = "" if was_read(entry.file) else " *"
        numbers = [f"{count(number)}{(number and mark) or ''}" for number in (entry.read, entry.kept)]
        rows.append([entry.name, *numbers, entry.protocol, entry.policy, entry.file])
    return [
        *columns(rows, left=(0, 3, 4, 5)),
        "",
        "records: published number in the file; queries: what the policy keeps of them; -: not known;",
        "*: as published, not checked, for we have not read the file",
        "vmr-data info NAME describes a data set or one split of it from the files under --data-root",
    ]


def find_parts(data_set: str, root: Path, *, strip_extension: bool = False) -> tuple[list[Split], list[str]]:
    """The registered splits of a data set that are there, and a line on each that is not."""
    parts = [entry for entry in ENTRIES.values() if entry.name.rpartition("/")[0] == data_set]
    if not parts:
        sets = dict.fromkeys(known.split("/", 1)[0] for known in ENTRIES)
        file = "; --annotations reads a file" if Path(data_set).is_file() else ""
        raise UserError(
            f"data set {data_set!r} is unknown, expected one of {', '.join(sets)} (or a split of one){file}"
        )
    found, missing = [], []
    for entry in parts:
        if entry.generated_by is None and place_of(entry.file, root, GZIPPED) is None:
            missing.append(f"{entry.name} is not there: no {root / entry.file} (nor with .gz)")
        else:
            found.append(load_split(entry.name, root, strip_extension=strip_extension))
    if not found:
        require_files((file for entry in parts for file in entry.files), root, f"{data_set}: ")
    return found, missing


def split_lines(splits: Sequence[Split], root: Path) -> list[str]:
    """Counts, lengths, the constant-window baseline and the irregularities of some splits of one data set."""
    lines, notes = _statistics(splits, root)
    lines += ["", *notes]
    lines += ["", *_irregularities(splits)]
    lines += ["", *_sources(splits)]
    return lines + _variants(splits)


# --- numbers -----------------------------------------------------------------------------------------------


@np.errstate(over="ignore", invalid="ignore")  # where times make no sense, their statistics may be infinite
def _statistics(splits: Sequence[Split], root: Path) -> tuple[list[str], list[str]]:
    rows = [["split", "queries", "videos", "video s", "moment s", "of video", "words", "constant window"]]
    notes: dict[str, None] = {}
    for split in splits:
        baseline, note = _constant_window(split, splits, root)
        rows.append([split.name, *_lengths(split.queries), baseline])
        notes |= dict.fromkeys(note)
    explained = "video s, moment s, words: mean (least to most); of video: mean share of the video that a moment takes"
    return columns(rows), [explained, *notes]


def _lengths(queries: Sequence[Query]) -> list[str]:
    durations = {query.video: query.duration for query in queries}
    moments = np.concatenate([np.zeros((0, 2)), *(query.moments for query in queries)])
    spans = moments[:, 1] - moments[:, 0]
    shares = spans / np.repeat(
        [query.duration for query in queries], [len(query.moments) for query in queries]
    )
    words = np.array([len(query.text.split()) for query in queries])
    return [
        f"{len(queries):,}",
        f"{len(durations):,}",
        _spread(np.array(list(durations.values()))),
        _spread(spans),
        f"{100 * shares.mean():.1f} %" if len(shares) else "-",
        _spread(words, most=0),
    ]


def _spread(values: NDArray[np.float64] | NDArray[np.int64], most: int = 1) -> str:
    if not len(values):
        return "-"
    return f"{values.mean():,.1f} ({values.min():,.{most}f} to {values.max():,.{most}f})"


def _constant_window(split: Split, splits: Sequence[Split], root: Path) -> tuple[str, list[str]]:
    """R@1 of the constant window that answers the training part best, and a line that says so."""
    located = [query for query in split.queries if len(query.moments)]
    if not located:
        return "-", []
    name, train = _training_part(split, splits, root)
    bias = ConstantWindowBaseline.fit([query for query in train if len(query.moments)] or located, k=1)
    rules, hits = protocol("strict"), []
    for begin in range(0, len(located), _AT_ONCE):
        packed = rules.pack(located[begin : begin + _AT_ONCE], [])
        answered = packed.answered(bias.windows_of(packed.duration))
        hits.append(rules.per_query_packed(answered)["R@1,IoU@0.5"])
    recall = np.concatenate(hits).mean()
    note = f"constant window: R@1 at IoU 0.5 (strict) of {bias.describe()}, the best answer to all of {name}"
    return f"{100 * recall:.1f}", [note]


def _training_part(split: Split, splits: Sequence[Split], root: Path) -> tuple[str, list[Query]]:
    if split.name in ENTRIES:
        name = training_split(split.name)
        for known in splits:
            if known.name == name:
                return name, known.queries
        if name in ENTRIES and place_of(ENTRIES[name].file, root, GZIPPED):
            return name, load_split(name, root, count=False).queries
    return split.name, split.queries


# --- irregularities and sources ----------------------------------------------------------------------------


def _irregularities(splits: Sequence[Split]) -> list[str]:
    words = list(dict.fromkeys(word for split in splits for word in split.report.counts))
    words.sort(key=lambda word: word.startswith(ACTED))
    if not words:
        return ["nothing irregular"]
    names = [split.name.rpartition("/")[2] for split in splits]
    rows = [["irregular records", *names]]
    rows += [[word, *(count(split.report.counts.get(word)) for split in splits)] for word in words]
    return columns(rows)


def _sources(splits: Sequence[Split]) -> list[str]:
    lines = []
    for split in splits:
        report: Report = split.report
        lines.append(
            f"{split.name}: {report.source}, {counted(report.read, 'record')} read, {report.kept:,} kept"
        )
        lines += [f"  {note}" for note in report.notes]
        lines.append(f"  split sha256 {split.hash}")
    for name in dict.fromkeys(split.report.policy for split in splits):
        if name in POLICIES:
            lines.append(f"policy {name}: {POLICIES[name].summary}")
    lines.append(
        f"protocol of vmr-score: {', '.join(dict.fromkeys(suiting(split.protocol, split.queries) for split in splits))}"
    )
    return lines


def _variants(splits: Sequence[Split]) -> list[str]:
    """The other registered forms of the same data set, with their published counts."""
    if splits[0].name not in ENTRIES:
        return []
    own = splits[0].name.rpartition("/")[0]
    base = next((name for name in ("charades-sta", "ego4d-nlq") if own.startswith(name)), own.split("-")[0])
    others: dict[str, list[str]] = {}
    for entry in ENTRIES.values():
        name, _, part = entry.name.rpartition("/")
        if name != own and (name == base or name.startswith(f"{base}-")):
            others.setdefault(name, []).append(f"{part} {count(entry.kept)}")
    forms = [f"{name} ({', '.join(parts)})" for name, parts in others.items()]
    return [f"other forms of it: {'; '.join(forms)}"] if forms else []
