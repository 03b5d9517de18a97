"""Irregular records of an annotation file, and the acts of a policy on them."""

from __future__ import annotations

import functools
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from vmr_common.errors import UserError
from vmr_common.splits.outside import Outside, find_outside
from vmr_common.splits.policies import POLICIES, Policy, policy_named
from vmr_common.text_input import Readable, opened
from vmr_common.types import Query
from vmr_common.values import shown

WHOLE_VIDEO = 0.99
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
        head = f"{self.source}: {self.read} records read, {self.kept} kept{policy}"
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


def reader(policy: str) -> Callable[[Callable[..., Iterator[Record]]], Callable[..., Annotations]]:
    """Makes a reader of a function that yields the records of an open file.

    The reader takes a path (``.gz`` accepted) or an open file, the options of that function, the name of a policy, by
    default `policy`, and whether irregularities are counted; it raises `UserError` for whatever is malformed.
    """

    def decorate(records: Callable[..., Iterator[Record]]) -> Callable[..., Annotations]:
        @functools.wraps(records)
        def read(
            path: Readable, *options: Any, policy: str | Policy = policy, count: bool = True, **named: Any
        ) -> Annotations:
            with opened(path) as source:
                return finish(str(source.path), records(source, *options, **named), policy, count=count)

        return read

    return decorate


def finish(
    source: str, records: Iterable[Record], policy: str | Policy, *, count: bool = True
) -> Annotations:
    """Counts irregularities (a third of the time), applies the policy and gives ids to queries that have none."""
    policy = policy_named(policy)
    counts: Counter[str] = Counter()
    queries: list[Query] = []
    numbers: dict[str, int] = {}
    used: dict[str, str] = {}
    videos: dict[str, str] = {}  # one text for all queries of a video
    repeats = _Repeats()
    outside: list[Outside] = []
    read = 0
    for record in records:
        read += 1
        identifier = record.id
        if identifier is None:
            number = numbers[record.video] = numbers.get(record.video, -1) + 1
            identifier = f"{record.video}_{number}"
        if identifier in used:
            raise UserError(
                f"{record.where}: id {shown(identifier)} occurs twice (first at {source}{used[identifier]})"
            )
        used[identifier] = record.where.removeprefix(source)
        if count:
            for words in (*_irregularities(record), *repeats.of(record)):
                counts[words] += 1
        moments = _apply(record, policy, counts)
        if moments is None:
            continue
        if far := find_outside(record.where, identifier, moments, record.point, record.duration):
            outside.append(far)
        queries.append(
            Query(
                id=identifier,
                video=videos.setdefault(record.video, record.video),
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
    report = Report(source, read, len(queries), ordered, policy.name, outside=tuple(outside))
    return Annotations(queries, report)


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


def _judge_moment(moment: tuple[float, float], duration: float) -> list[str]:
    start, end = moment
    found = []
    if start > end:
        found.append("start after the end")
    elif start == end:
        found.append("start equal to the end")
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
        # by video and moments: sentence and time point of the one record there, or a set of those of several
        self._said: dict[bytes, tuple[str, float | None] | set[Any]] = {}

    def of(self, record: Record) -> list[str]:
        video = self._videos.setdefault(record.video, len(self._videos))
        times = [time + 0.0 for moment in record.moments for time in moment]  # -0.0 is 0.0
        place = struct.pack(f"q{len(times)}d", video, *times)
        earlier = self._said.get(place)
        if earlier is None:
            self._said[place] = (record.text, record.point)
            return []
        if isinstance(earlier, tuple):
            earlier = self._said[place] = {earlier, earlier[0]}
        found = []
        if record.moments:  # a record without a moment (hidden truth) repeats only if its sentence does
            found.append("same video and moment as an earlier query")
        if record.text in earlier:
            found.append("same video, moment and sentence as an earlier query")
        if record.point is not None and (record.text, record.point) in earlier:
            found.append("same video, moment, sentence and time point as an earlier query")
        earlier |= {record.text, (record.text, record.point)}
        return found


def _apply(record: Record, policy: Policy, counts: Counter[str]) -> list[tuple[float, float]] | None:
    """The moments that the policy leaves of a record, or None where it drops the record."""
    if not record.text.strip():
        if policy.no_text == "error":
            raise UserError(f"{record.where}: the sentence is empty, expected text")
        counts["dropped: no sentence"] += 1
        return None
    if not record.moments:
        return []
    kept = []
    reasons = []
    for moment in record.moments:
        _refuse(record, moment, policy)
        if policy.rule is not None and (reason := policy.rule(moment, record.duration)):
            reasons.append(reason)
            continue
        left, done = _limit(moment, record.duration, policy)
        if left is not None:
            kept.append(left)
            for words in done:
                counts[words] += 1
    if not kept:
        counts["dropped: " + (reasons[0] if reasons else _drop_words(policy))] += 1
        return None
    return kept


def _drop_words(policy: Policy) -> str:
    if policy.late_end == "drop":
        return "end after the duration, or start not before the end"
    return "start not before the end" + (" after the cut" if policy.cut_first else "")


def _refuse(record: Record, moment: tuple[float, float], policy: Policy) -> None:
    start, end = moment
    if start > end and policy.reversed_moment == "error":
        raise UserError(
            f"{record.where}: start {start:g} is after end {end:g} (policy {policy.name}; other policies: "
            f"{', '.join(name for name in POLICIES if name != policy.name)})"
        )
    if start < 0 and policy.negative_start == "error":
        raise UserError(f"{record.where}: start {start:g} is negative, expected seconds from 0 on")


def _limit(
    moment: tuple[float, float], duration: float, policy: Policy
) -> tuple[tuple[float, float] | None, list[str]]:
    start, end = moment
    done: list[str] = []
    if policy.reversed_moment == "swap" and start > end:
        start, end = end, start
        done.append("swapped: start and end")
    if policy.late_end == "drop" and end > duration:
        return None, done
    judged_end = min(end, duration) if policy.cut_first else end
    if (policy.reversed_moment == "drop" and start > judged_end) or (
        policy.empty_moment == "drop" and start == judged_end
    ):
        return None, done
    if policy.late_end == "cut" and end > duration:
        end = duration
        done.append("cut: end to the duration")
    if policy.negative_start == "raise" and start < 0:
        start = 0.0
        done.append("raised: start to 0")
    return (start, end), done
