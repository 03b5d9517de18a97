"""Presence: from a model's own score to the probability that a sentence is in the video at all, where one can be had.

A model ranks moments of the video that it is given, and answers also where there is no such moment. Each model has a
score that is higher where there is one (its *evidence*). It is measured, and made a probability, on pairs: sentences
in their own videos, and the same sentences in the same videos shuffled. Both sides hold the same sentences and the same
videos, so only what links the two can tell them apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from vmr_common.metrics import auroc, recall_at_false_alarms, weighted_auroc
from vmr_common.types import Prediction, Query
from vmr_train.rng import rng_for

Floats = NDArray[np.float64]

MOST_PAIRS = 500
"""Sentences that are asked of another video at the most: more would lengthen a run and hardly move the figures."""
FALSE_ALARMS = 0.05
"""Share of sentences of other videos that may pass for present (`recall_at_false_alarms`)."""
LEAST_AUROC = 0.6
"""Below it, or where its interval reaches 0.5, a model's evidence is no ground for a probability."""
DRAWS = 1000


# --- pairs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Queries in their own videos (`own`), and the same sentences in other videos of the split (`other`)."""

    own: list[Query]
    other: list[Query]


def draw_pairs(queries: Sequence[Query], annotated: Sequence[Query] | None = None, seed: int = 0) -> Pairs:
    """At most `MOST_PAIRS` queries, and their sentences dealt out anew among the videos of just these queries.

    No sentence comes to a video that is annotated with the same words; where none else is left, it is not in `other`.
    The draw is the same on every machine. Queries of `other` keep their ids, have the length of their new video and no
    moments. On both sides those of one video follow one another.

    Args:
        queries: Those that may be drawn.
        annotated: All of the split, where `queries` are not.
        seed: Of the draw.

    Example:
        >>> queries = [Query(id=str(n), video=f"v{n}", text=f"sentence {n}", duration=10.0 + n) for n in range(3)]
        >>> pairs = draw_pairs(queries)
        >>> len(pairs.own), sorted(query.video for query in pairs.other)
        (3, ['v0', 'v1', 'v2'])
        >>> any(query.id == query.video[1:] for query in pairs.other)
        False
    """
    said: dict[str, set[str]] = {}
    for query in queries if annotated is None else annotated:
        said.setdefault(query.video, set()).add(_words(query.text))

    def fits(query: Query, video: str) -> bool:
        return video != query.video and _words(query.text) not in said.get(video, ())

    # only raw doubles are drawn: these are the same on every machine and with every numpy
    chosen = sorted(queries, key=lambda query: (rng_for("presence", seed, query.id).random(), query.id))
    own = chosen[:MOST_PAIRS]
    dealt = [own[number] for number in np.argsort(rng_for("presence", seed).random(len(own)), kind="stable")]
    for place, query in enumerate(own):
        if fits(query, dealt[place].video):
            continue
        for step in range(1, len(own)):
            with_place = (place + step) % len(own)
            here, there = dealt[with_place], dealt[place]
            if fits(query, here.video) and fits(own[with_place], there.video):
                dealt[place], dealt[with_place] = here, there
                break
    other = [
        dataclasses.replace(
            query, video=source.video, duration=source.duration, moments=np.zeros((0, 2)), glance=None
        )
        for query, source in zip(own, dealt, strict=True)
        if fits(query, source.video)
    ]
    return Pairs(*(sorted(side, key=lambda query: query.video) for side in (own, other)))


def _words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


# --- figures -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Figures of how well evidence tells sentences in their own videos from the same in others.

    Attributes:
        auroc: Probability that a sentence in its own video has more evidence than one in another.
        low: Lower end of its 95 % interval over videos; not-a-number where it is not known.
        high: Upper end.
        recall: Share in their own videos with more evidence than all but `FALSE_ALARMS` of those in others.
        own: Number of pairs of a sentence and its own video.
        other: Number of pairs of a sentence and another video.
    """

    auroc: float
    low: float
    high: float
    recall: float
    own: int
    other: int

    @property
    def works(self) -> bool:
        """True if a probability may be made of it."""
        return self.auroc >= LEAST_AUROC and self.low > 0.5

    def text(self) -> str:
        """One line for people.

        Example:
            >>> Separation(auroc=0.81, low=0.78, high=0.84, recall=0.34, own=500, other=499).text()
            'presence: AUROC 0.81 (0.78 to 0.84), recall at 5 % false alarms 0.34 (500 queries, 499 in other videos)'
        """
        interval = f" ({self.low:.2f} to {self.high:.2f})" if math.isfinite(self.low) else ""
        figures = f"AUROC {self.auroc:.2f}{interval}, recall at 5 % false alarms {self.recall:.2f}"
        verdict = "" if self.works else ": does not tell"
        return f"presence: {figures} ({self.own} queries, {self.other} in other videos){verdict}"

    def to_dict(self) -> dict[str, float | int | None]:
        """As JSON can hold it."""
        return {
            key: value if math.isfinite(value) else None for key, value in dataclasses.asdict(self).items()
        }


def separation(own: Sequence[Prediction], other: Sequence[Prediction], seed: int = 0) -> Separation | None:
    """Figures of the evidence of predictions; None where there are none of one side.

    The interval is that of the percentiles of 1,000 bootstrap samples. Videos are drawn, because what is asked of one
    video stands or falls together.
    """
    if not own or not other:
        return None
    high, low = evidence(own), evidence(other)
    names, group = np.unique([found.video for found in (*own, *other)], return_inverse=True)
    bottom = top = math.nan
    if len(names) > 1:
        drawn = rng_for("presence", seed, "interval").random((DRAWS, len(names))) * len(names)
        counts = np.apply_along_axis(np.bincount, 1, drawn.astype(np.int64), minlength=len(names))
        weights = counts.astype(np.float64)[:, group]  # (draws, own + other)
        samples = weighted_auroc(high, low, weights[:, : len(own)], weights[:, len(own) :])
        bottom, top = np.nanpercentile(samples, [2.5, 97.5]).tolist()
    return Separation(
        auroc=auroc(high, low),
        low=bottom,
        high=top,
        recall=recall_at_false_alarms(high, low, FALSE_ALARMS),
        own=len(own),
        other=len(other),
    )


def evidence(predictions: Sequence[Prediction]) -> Floats:
    """The evidence ``(N,)`` of predictions: the model's own, else the score of the best moment."""
    return np.array([evidence_of(found) for found in predictions], dtype=np.float64)


def evidence_of(prediction: Prediction) -> float:
    """The evidence of one prediction; without a moment there is none."""
    if prediction.evidence is not None:
        return prediction.evidence
    return float(prediction.scores[0]) if len(prediction.scores) else -math.inf


def log_odds(probability: float) -> float:
    """The evidence that a probability is, its log odds: even steps mean as much everywhere, and none is infinite.

    Example:
        >>> log_odds(0.5), round(log_odds(0.9), 3), round(log_odds(1.0), 3)
        (0.0, 2.197, 16.118)
    """
    inside = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(inside) - math.log1p(-inside)


# --- probability -------------------------------------------------------------------------------------------


class CalibrationJson(TypedDict):
    """A `Calibration` as a checkpoint keeps it."""

    split: str
    slope: float
    intercept: float
    auroc: float
    low: float | None
    high: float | None
    recall: float
    own: int
    other: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From a model's evidence to the probability that the sentence is in the video, one half beforehand.

    Attributes:
        split: Name of the split that it was made on.
        slope: Log odds per unit of evidence.
        intercept: Log odds at evidence 0.
        figures: How well the evidence tells on that split.
    """

    split: str
    slope: float
    intercept: float
    figures: Separation

    @classmethod
    def fit(cls, split: str, own: Sequence[Prediction], other: Sequence[Prediction]) -> Calibration | None:
        """Logistic regression on evidence (Platt's, whose targets stay off 0 and 1); None where one side is empty.

        Both sides weigh the same: the probability is for somebody half of whose sentences are in the video.
        """
        figures = separation(own, other)
        if figures is None:
            return None
        slope, intercept = fit_logistic(_finite(evidence(own)), _finite(evidence(other)))
        return cls(split=split, slope=slope, intercept=intercept, figures=figures)

    @classmethod
    def from_json(cls, known: CalibrationJson) -> Calibration:
        """The calibration that a checkpoint keeps."""
        low, high = (math.nan if end is None else end for end in (known["low"], known["high"]))
        figures = Separation(
            auroc=known["auroc"],
            low=low,
            high=high,
            recall=known["recall"],
            own=known["own"],
            other=known["other"],
        )
        return cls(split=known["split"], slope=known["slope"], intercept=known["intercept"], figures=figures)

    def to_json(self) -> CalibrationJson:
        """As a checkpoint keeps it."""
        own: Any = {"split": self.split, "slope": self.slope, "intercept": self.intercept}
        known: CalibrationJson = own | self.figures.to_dict()
        return known

    def probability(self, value: float) -> float:
        """The probability for some evidence.

        Example:
            >>> figures = Separation(auroc=0.9, low=0.8, high=1.0, recall=0.5, own=9, other=9)
            >>> Calibration(split="", slope=2.0, intercept=-1.0, figures=figures).probability(0.5)
            0.5
        """
        return float(_sigmoid(np.array(self.slope * value + self.intercept)))

    def applied(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Predictions with their `presence`; as they are where the evidence tells nothing."""
        if not self.figures.works:
            return list(predictions)
        return [
            dataclasses.replace(found, presence=self.probability(evidence_of(found))) for found in predictions
        ]


def fit_logistic(positives: Floats, negatives: Floats, steps: int = 50) -> tuple[float, float]:
    """Slope and intercept of ``P(positive | x) = sigmoid(slope x + intercept)``, both classes weighing the same.

    Newton steps, halved where the loss would rise. Platt's targets, ``(n + 1) / (n + 2)`` and ``1 / (n + 2)``, keep the
    slope finite where nothing overlaps.

    Example:
        >>> slope, intercept = fit_logistic(np.array([1.0, 2.0]), np.array([-1.0, -2.0]))
        >>> round(slope, 3), round(intercept, 3) + 0.0
        (0.674, 0.0)
    """
    values = np.concatenate([positives, negatives])
    centre, scale = float(values.mean()), float(values.std()) or 1.0
    design = np.stack([(values - centre) / scale, np.ones_like(values)], axis=1)  # (n, 2)
    sides = (len(positives), len(negatives))
    goals = np.repeat([(sides[0] + 1) / (sides[0] + 2), 1 / (sides[1] + 2)], sides)
    weights = np.repeat([0.5 / sides[0], 0.5 / sides[1]], sides)

    def loss(found: Floats) -> float:
        logits = design @ found
        return float((weights * (np.logaddexp(0.0, logits) - goals * logits)).sum())

    found = np.zeros(2)
    for _ in range(steps):
        chance = _sigmoid(design @ found)
        gradient = design.T @ (weights * (chance - goals))
        curvature = (design * (weights * chance * (1 - chance))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        before = loss(found)
        while loss(found - step) > before and np.abs(step).max() > 1e-12:
            step = step / 2
        found = found - step
        if np.abs(step).max() < 1e-10:
            break
    return float(found[0] / scale), float(found[1] - found[0] * centre / scale)


def _sigmoid(logits: Floats) -> Floats:
    halves: Floats = 0.5 * (1 + np.tanh(0.5 * logits))  # never overflows
    return halves


def _finite(values: Floats) -> Floats:
    """Without answers that hold no moment."""
    return values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)


def presence_text(prediction: Prediction) -> str:
    """The probability of a prediction in words; nothing where there is none.

    Example:
        >>> presence_text(Prediction(query="1", video="v", moments=[[3, 9]], scores=[0.9], presence=0.12))
        'presence 12 %: probably no such moment'
    """
    chance = prediction.presence
    if chance is None:
        return ""
    verdict = (
        "probably there" if chance >= 2 / 3 else "uncertain" if chance > 1 / 3 else "probably no such moment"
    )
    return f"presence {chance * 100:.0f} %: {verdict}"
