"""Irregular records of an annotation file, and the acts of a policy on them."""

from __future__ import annotations

import functools
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vmr_common.errors import UserError, counted, quoted, some_of
from vmr_common.splits.outside import Outside, find_outside
from vmr_common.splits.policies import POLICIES, Policy, apply, policy_named
from vmr_common.text_input import Readable, opened
from vmr_common.types import Query
from vmr_common.values import shown, video_stem

WHOLE_VIDEO = 0.99
_SAME_LENGTH = 1.0  # seconds; one video is measured in several ways
_LABEL = re.compile(
    r"\s*(?:query|question|q|sentence|caption|description|text)(?: text)?(?: \(optional\))?:", re.IGNORECASE
)
_BRIEF_S = 0.1
_NOTES = 3
ACTED = ("dropped:", "cut:", "raised:", "swapped:")
"""Prefix of the acts of a policy in `Report.counts`."""


@dataclass(frozen=True)
class Report:
    """Account of reading one file."""

    source: str  # the file
    read: int  # records in the file
    kept: int  # queries that the policy kept
    # irregularity in words -> number of records, before the policy acted; what the policy did has keys that begin
    # with one of `ACTED`
    counts: dict[str, int] = field(default_factory=dict)
    policy: str = ""  # name of the policy
    # further lines for the reader, e.g. a record count that differs from the published one.
    notes: tuple[str, ...] = ()
    # records that were kept though a time of theirs lies wholly outside the video
    outside: tuple[Outside, ...] = ()

    def lines(self) -> list[str]:
        """The report for people, one finding a line; the first line holds the record counts."""
        policy = (
            f" (policy {self.policy}: {POLICIES[self.policy].summary})" if self.policy in POLICIES else ""
        )
        head = f"{self.source}: {counted(self.read, 'record')} read, {self.kept:,} kept{policy}"
        return [
            head,
            *(f"  {count} {words}" for words, count in self.counts.items()),
            *map("  {}".format, self.notes),
        ]


@dataclass(frozen=True)
class Annotations:
    """The queries of one file and the report on it."""

    queries: list[Query]
    report: Report


@dataclass(slots=True)
class Record:
    """One query as it stands in a file, values checked for type and finiteness but not yet for sense."""

    where: str
    video: str
    text: str
    duration: float
    moments: list[tuple[float, float]]
    point: float | None = None
    id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    subset: str | None = None  # part of the file that it belongs to
    left_out: str = ""  # why a reader cannot make a query of it
    note: str = ""  # how it was read, for the report


def reader(own: str) -> Callable[[Callable[..., Iterator[Record]]], Callable[..., Annotations]]:
    """Makes a reader of a function that yields the records of an open file.

    The reader takes a path (``.gz`` accepted) or an open file, the options of that function, the name of a policy, by
    default `own`, and the options of `finish`; it raises `UserError` for whatever is malformed.
    """

    def decorate(records: Callable[..., Iterator[Record]]) -> Callable[..., Annotations]:
        @functools.wraps(records)
        def read(
            path: Readable,
            *options: Any,
            policy: str | Policy | None = None,
            count: bool = True,
            subset: str | None = None,
            strip_extension: bool = False,
            **named: Any,
        ) -> Annotations:
            with opened(path) as source:
                found = records(source, *options, **named)
                rules = own if policy is None else policy
                return finish(
                    str(source.path),
                    found,
                    rules,
                    count=count,
                    subset=subset,
                    strip_extension=strip_extension,
                )

        return read

    return decorate


def finish(
    source: str,
    records: Iterable[Record],
    policy: str | Policy,
    *,
    count: bool = True,
    subset: str | None = None,
    strip_extension: bool = False,
) -> Annotations:
    """Counts irregularities (a third of the time), applies the policy and gives ids to queries that have none.

    Of a file of several parts `subset` names the one that is kept; `strip_extension` takes folders and endings of
    video files off the ids of videos. Raises `UserError` where there is no such part, an id is there twice, or two
    videos would have one id.
    """
    policy = policy_named(policy)
    counts: Counter[str] = Counter()
    queries: list[Query] = []
    names = _Ids(source, strip_extension)
    subsets: Counter[str | None] = Counter()
    notes: dict[str, None] = {}
    repeats = _Repeats()
    outside: list[Outside] = []
    read = 0
    for record in records:
        identifier, video = names.of(record)
        subsets[record.subset] += 1
        if subset is not None and record.subset != subset:
            continue
        read += 1
        if record.note and len(notes) < _NOTES:
            notes[record.note] = None
        if count and not record.left_out:
            for words in (*_irregularities(record), *repeats.of(record)):
                counts[words] += 1
        moments = apply(policy, record, counts)
        if moments is None:
            continue
        if far := find_outside(record.where, identifier, moments, record.point, record.duration):
            outside.append(far)
        queries.append(
            Query(
                id=identifier,
                video=video,
                text=record.text,
                duration=record.duration,
                moments=moments,  # type: ignore[arg-type]  # as an array there
                glance=record.point,
                as_annotated=policy.reversed_moment == "keep",
                **record.extra,
            )
        )
    ordered = {
        words: counts[words] for words in sorted(counts, key=lambda words: (words.startswith(ACTED), words))
    }
    said = (*notes, *_subset_notes(source, subset, subsets), *_hidden_notes(queries))
    report = Report(source, read, len(queries), ordered, policy.name, said, tuple(outside))
    return Annotations(queries, report)


class _Ids:
    """Ids of queries and of videos; each query's is there once."""

    def __init__(self, source: str, strip_extension: bool) -> None:
        self._source, self._strip = source, strip_extension
        self._numbers: dict[str, int] = {}
        self._used: dict[str, str] = {}
        self._videos: dict[str, str] = {}  # one text for all queries of a video, by its bare id

    def of(self, record: Record) -> tuple[str, str]:
        name = video_stem(record.video) if self._strip else record.video
        if (video := self._videos.setdefault(name, record.video)) != record.video:
            raise UserError(
                f"{record.where}: videos {shown(video)} and {shown(record.video)} are one without folders and endings"
            )
        video = record.video = name if self._strip else video
        identifier = record.id
        if identifier is None:
            number = self._numbers[video] = self._numbers.get(video, -1) + 1
            identifier = f"{video}_{number}"
        if identifier in self._used:
            first = f"{self._source}{self._used[identifier]}"
            raise UserError(f"{record.where}: id {shown(identifier)} occurs twice (first at {first})")
        self._used[identifier] = record.where.removeprefix(self._source)
        return identifier, video


def _subset_notes(source: str, subset: str | None, found: Counter[str | None]) -> list[str]:
    """A line on the parts of a file.

    Raises `UserError` if it has no part of that name.
    """
    parts = some_of(f"{name} {number:,}" for name, number in found.items() if name is not None)
    if subset is not None and not found[subset]:
        said = f"found: {parts}" if set(found) - {None} else "no record names its subset"
        raise UserError(f"{source}: no record of subset {quoted(subset)} ({said})")
    if len(found) < 2:
        return []
    return [f"records by subset: {parts}; {'all are' if subset is None else f'{subset} is'} read"]


def _hidden_notes(queries: Sequence[Query]) -> list[str]:
    """A line on queries without a moment, and what they have instead."""
    without = [query for query in queries if not len(query.moments)]
    if not without:
        return []
    points = sum(query.glance is not None for query in without)
    clips = [len(query.saliency) for query in without if query.saliency is not None]
    if points:
        instead = f"{points:,} with a time point"
    elif clips:
        span = f"{min(clips):,}" if min(clips) == max(clips) else f"{min(clips):,} to {max(clips):,}"
        instead = f"highlights alone, of {span} clips"
    else:
        instead = "their truth is hidden"
    some = f"{len(without):,} of {len(queries):,} queries have no moment"
    return [f"{'no query has a moment' if len(without) == len(queries) else some}: {instead}"]


def _irregularities(record: Record) -> list[str]:
    """The names of all that is unusual about one record; each name at most once."""
    found = list(record.remarks)
    _judge_text(record.text, found)
    if named := [name for moment in record.moments for name in _judge_moment(moment, record.duration)]:
        found += sorted(set(named))
    point = record.point
    if point is not None:
        if point > record.duration:
            found.append("time point after the duration")
        if record.moments and point < min(start for start, _ in record.moments):
            found.append("time point before the start")
        if record.moments and point > max(end for _, end in record.moments):
            found.append("time point after the end")
    return found


def _judge_text(text: str, found: list[str]) -> None:
    stripped = text.strip()
    if not stripped:
        found.append("no sentence")
        return
    if len(stripped) != len(text):
        found.append("blank at the start or end of the sentence")
    if "  " in text:
        found.append("double blank in the sentence")
    if "\n" in text or "\r" in text:
        found.append("line feed in the sentence")
    if not text.isascii():
        found.append("characters outside ASCII in the sentence")
    if " " not in stripped:
        found.append("one-word sentence")
    if ":" in text and _LABEL.match(text):
        found.append("sentence that begins with the label of its field, such as 'Query Text:'")


def _judge_moment(moment: tuple[float, float], duration: float) -> list[str]:
    start, end = moment
    found = []
    if start > end:
        found.append("start after the end")
    elif start == end:
        found.append("start equal to the end")
    elif end - start < _BRIEF_S:
        found.append("moment of less than 0.1 s")
    if start < 0:
        found.append("negative start")
    if start >= duration:
        found.append("start at or after the duration")
    if end > duration:
        found.append("end after the duration")
        found += [
            f"end more than {limit} s after the duration" for limit in (0.5, 1) if end - duration > limit
        ]
    if end - start >= WHOLE_VIDEO * duration:
        found.append("moment over the whole video (99 % or more)")
    return found


class _Repeats:
    """Recognises records that say again what an earlier one said, in some 200 bytes per record."""

    def __init__(self) -> None:
        self._videos: dict[str, int] = {}
        self._durations: list[float] = []  # of these, as first said
        # by video and moments: sentence and time point of the one record there, or a set of those of several
        self._said: dict[bytes, tuple[str, float | None] | set[Any]] = {}

    def of(self, record: Record) -> list[str]:
        video = self._videos.setdefault(record.video, len(self._videos))
        if video == len(self._durations):
            self._durations.append(record.duration)
        other = abs(self._durations[video] - record.duration) > _SAME_LENGTH
        found = ["another duration of the video than in an earlier query"] if other else []
        times = [time + 0.0 for moment in record.moments for time in moment]  # -0.0 is 0.0
        place = struct.pack(f"q{len(times)}d", video, *times)
        earlier = self._said.get(place)
        if earlier is None:
            self._said[place] = (record.text, record.point)
            return found
        if isinstance(earlier, tuple):
            earlier = self._said[place] = {earlier, earlier[0]}
        if record.moments:  # a record without a moment (hidden truth) repeats only if its sentence does
            found.append("same video and moment as an earlier query")
        if record.text in earlier:
            found.append("same video, moment and sentence as an earlier query")
        if record.point is not None and (record.text, record.point) in earlier:
            found.append("same video, moment, sentence and time point as an earlier query")
        earlier |= {record.text, (record.text, record.point)}
        return found
