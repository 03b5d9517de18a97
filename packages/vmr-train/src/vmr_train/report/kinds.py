"""Kinds of queries that a system may fail on: groups by sentence, by moment, and by what training showed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vmr_common.timeline import to_normalised
from vmr_common.types import Query
from vmr_train.report.seen import Seen
from vmr_train.report.svg import DASH

FloatArray: TypeAlias = "NDArray[np.float64]"
IntArray: TypeAlias = "NDArray[np.int64]"

SMALL = 30
"""Queries below which the figures of a group say little."""
LENGTH_EDGES = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
START_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
WORD_EDGES = (0, 5, 8, 11, 16, 26, 1 << 30)
CROWDED = 0.8
SEEN, HELD_OUT = "seen in training", "held out"
NOVELTY = ("every pair seen", "a new pair", "a new word")
NO_TIME = "none"
TIME_WORDS = {
    "before": {"before"},
    "after": {"after"},
    "then, next, later": {"then", "next", "later", "afterwards", "finally"},
    "while, during, when": {"while", "during", "when", "meanwhile"},
    "until, once": {"until", "till", "once"},
    "first, last, again": {"first", "last", "again"},
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Some of the queries: a label and their rows, ``(n,)`` int64."""

    label: str
    rows: IntArray

    @property
    def small(self) -> bool:
        """True if its figures say little."""
        return len(self.rows) < SMALL


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind:
    """One way to group queries: its heading, a sentence on what the groups are, and those that are not empty."""

    title: str
    about: str
    groups: list[Group]


def kinds_of(queries: Sequence[Query], seen: Mapping[str, Seen]) -> list[Kind]:
    """All ways to group the queries that give at least two groups.

    Args:
        queries: With a finite true moment each, of several the first counts, or with glances alone.
        seen: What training knows of their sentences, by query id; queries may be absent.
    """
    if not queries:
        return []
    located = all(len(query.moments) for query in queries)
    spans = [to_normalised(query.moments[0], query.duration) for query in queries if located]
    found = (
        *_by_training([seen.get(query.id) for query in queries]),
        *_by_sentence(queries),
        *(_by_moment(np.array(spans)) if located else ()),
    )
    return [kind for kind in found if len(kind.groups) > 1]


def _by_training(seen: Sequence[Seen | None]) -> tuple[Kind, ...]:
    counts = np.array([np.nan if item is None else item.rarest for item in seen])
    return (
        Kind(
            title="Held-out combinations",
            about="What the data set keeps from training: on Shapes a colour, a shape and an action together.",
            groups=_labelled([_availability(item) for item in seen], (SEEN, HELD_OUT)),
        ),
        Kind(
            title="Words seen together",
            about="Whether every two content words of the sentence stand together in some training sentence.",
            groups=_labelled([_novelty(item) for item in seen], NOVELTY),
        ),
        Kind(
            title="Rarest word",
            about="Number of training sentences with the sentence's rarest content word, in quarters of the queries.",
            groups=_quarters(counts),
        ),
    )


def _availability(item: Seen | None) -> str | None:
    if item is None or item.held_out is None:
        return None
    return HELD_OUT if item.held_out else SEEN


def _novelty(item: Seen | None) -> str | None:
    if item is None:
        return None
    return NOVELTY[2 if not item.rarest else 0 if item.together else 1]


def _by_sentence(queries: Sequence[Query]) -> tuple[Kind, ...]:
    words = [query.text.lower().replace(",", " ").replace(".", " ").split() for query in queries]
    timed = {
        label: [row for row, found in enumerate(words) if not wanted.isdisjoint(found)]
        for label, wanted in TIME_WORDS.items()
    }
    rest = sorted({*range(len(words))}.difference(*timed.values()))
    return (
        Kind(
            title="Words of time",
            about="Words that place the moment by something else; a sentence may be in several groups.",
            groups=_filled([(NO_TIME, rest), *timed.items()]),
        ),
        Kind(
            title="Sentence length",
            about="Number of words.",
            groups=_binned(np.array([len(found) for found in words], dtype=np.float64), WORD_EDGES, _words),
        ),
    )


def _by_moment(spans: FloatArray) -> tuple[Kind, ...]:
    lengths, edges = spans[:, 1] - spans[:, 0], LENGTH_EDGES
    crowded = np.bincount(_bins(lengths, edges)).max() > CROWDED * len(lengths)
    if crowded:  # long videos: fifths of the queries
        fifths = tuple(np.unique(np.quantile(lengths, np.linspace(0, 1, 6))).tolist())
        edges = fifths if len(fifths) > 2 else edges
    return (
        Kind(
            title="Moment length",
            about="Length of the true moment as a share of the video.",
            groups=_binned(lengths, edges, _percent),
        ),
        Kind(
            title="Moment position",
            about="Start of the true moment as a share of the video.",
            groups=_binned(spans[:, 0], START_EDGES, _percent),
        ),
    )


def _filled(groups: Sequence[tuple[str, Sequence[int] | IntArray]]) -> list[Group]:
    return [Group(label=label, rows=np.array(rows, dtype=np.int64)) for label, rows in groups if len(rows)]


def _labelled(labels: Sequence[str | None], order: Sequence[str]) -> list[Group]:
    return _filled([(name, [row for row, label in enumerate(labels) if label == name]) for name in order])


def _bins(values: FloatArray, edges: Sequence[float]) -> IntArray:
    """Bin numbers; a value on an edge belongs to the bin above it, one outside to the outer bin."""
    # rounded: 0.3 of a video computed as 0.29999999999999999 is 30 %
    found = np.searchsorted(np.array(edges), values.round(9), side="right") - 1
    return np.clip(found, 0, len(edges) - 2).astype(np.int64)


def _binned(values: FloatArray, edges: Sequence[float], text: Callable[[float, float], str]) -> list[Group]:
    bins = _bins(values, edges)
    return _filled(
        [
            (text(low, high), np.flatnonzero(bins == place))
            for place, (low, high) in enumerate(itertools.pairwise(edges))
        ]
    )


def _quarters(counts: FloatArray) -> list[Group]:
    """Groups of the queries of count 0, and of quarters of the others by count, labelled by what they hold."""
    never, some = np.flatnonzero(counts == 0), np.flatnonzero(counts > 0)  # not-a-number is neither
    if not len(some):
        return _filled([("0", never)])
    edges = np.unique(np.quantile(counts[some], (0.25, 0.5, 0.75), method="lower"))
    place = np.searchsorted(edges, counts[some], side="left")
    quarters = [some[place == number] for number in np.unique(place)]
    return _filled(
        [("0", never), *((_range(counts[rows].min(), counts[rows].max()), rows) for rows in quarters)]
    )


def _range(low: float, high: float) -> str:
    return f"{low:,.0f}" if low == high else f"{low:,.0f}{DASH}{high:,.0f}"


def _words(low: float, high: float) -> str:
    if high == WORD_EDGES[-1]:
        return f"{low:.0f} and more"
    return f"up to {high - 1:.0f}" if not low else _range(low, high - 1)


def _percent(low: float, high: float) -> str:
    return f"{_short(low)}{DASH}{_short(high)} %"


def _short(share: float) -> str:
    """A share in percent, of two digits below 10 %."""
    return f"{share * 100:.{2 if share < 0.1 else 3}g}"
