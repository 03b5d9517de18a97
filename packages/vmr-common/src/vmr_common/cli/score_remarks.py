"""What ``vmr-score`` remarks on predictions beside their figures; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vmr_common import evaluation as protocols
from vmr_common.splits.load import Split
from vmr_common.splits.outside import FEW, LONG, find_outside, unit_hint
from vmr_common.timeline import highlight_clips
from vmr_common.types import Prediction


def remarks(
    label: str,
    predictions: Sequence[Prediction],
    split: Split,
    rule_sets: Sequence[protocols.Protocol],
    keys: Sequence[str],
) -> Iterator[str]:
    """The remarks on a system called `label`, of which figures of the names `keys` are given."""
    durations = {query.id: query.duration for query in split.queries}
    asked = [
        (one, durations[one.query]) for one in predictions if len(one.moments) and one.query in durations
    ]
    for one in (
        _one_window(predictions, keys),
        _outside(asked),
        _fractions(asked),
        _unscored(predictions, split, rule_sets),
        *_about_clips(predictions, split, rule_sets),
    ):
        if one is not None:
            yield f"{label}: {one}"


def _one_window(predictions: Sequence[Prediction], keys: Sequence[str]) -> str | None:
    """That recall at more than one window says nothing more."""
    ranks = list(dict.fromkeys(rank for key in keys if (rank := key.partition(",")[0]).startswith("R@")))
    ranks = [rank for rank in ranks if rank != "R@1"]
    if not ranks or max(len(one.moments) for one in predictions) != 1:
        return None
    return f"one window per query, so that {', '.join(ranks)} equal{'s' * (len(ranks) == 1)} R@1"


def _outside(asked: Sequence[tuple[Prediction, float]]) -> str | None:
    """That first windows lie wholly outside their videos of these durations, and the unit that would fit most."""
    first = [(one, (one.moments[0].min(), one.moments[0].max()), duration) for one, duration in asked]
    judged = (find_outside("", one.query, [window], None, duration) for one, window, duration in first)
    found = [one for one in judged if one is not None]
    if not found:
        return None
    hint = unit_hint(found) if 2 * len(found) > len(asked) else ""
    return f"{len(found):,} of {len(asked):,} first windows lie outside their videos{hint}"


def _fractions(asked: Sequence[tuple[Prediction, float]]) -> str | None:
    """That most queries have windows in the first second of a video that is far longer alone."""
    early = sum(duration >= LONG and 0 < one.moments.max() <= 1 for one, duration in asked)
    if early < FEW or 2 * early <= len(asked):
        return None
    which = "all windows" if early == len(asked) else f"all windows of {early:,} of {len(asked):,} queries"
    return f"{which} end within 1 s: are they fractions of the video, and not seconds?"


def _unscored(
    predictions: Sequence[Prediction], split: Split, rule_sets: Sequence[protocols.Protocol]
) -> str | None:
    """That no protocol scores the highlights, though the split has labels of clips; names the one that would."""
    if any(isinstance(rules, protocols.QVHighlights | protocols.ClipLabels) for rules in rule_sets):
        return None
    labelled = {query.id for query in split.queries if query.saliency is not None}
    count = sum(one.saliency is not None and one.query in labelled for one in predictions)
    if not count:
        return None
    names = ", ".join(rules.name for rules in rule_sets)
    better = protocols.suiting("qvhighlights", split.queries)
    return (
        f"highlight scores of {count:,} predictions do not count in {names} (in --protocol {better} they do)"
    )


def _about_clips(
    predictions: Sequence[Prediction], split: Split, rule_sets: Sequence[protocols.Protocol]
) -> Iterator[str]:
    """That there are more or fewer highlight scores than clips, or that only some queries have any."""
    by_label = any(isinstance(rules, protocols.ClipLabels) for rules in rule_sets)
    if not by_label and not any(isinstance(rules, protocols.QVHighlights) for rules in rule_sets):
        return
    clips = {
        query.id: len(query.saliency) if by_label else highlight_clips(query.duration)
        for query in split.queries
        if query.saliency is not None
    }
    lengths = [
        (len(one.saliency), clips[one.query])
        for one in predictions
        if one.saliency is not None and one.query in clips
    ]
    if other := [f"{found} for {wanted}" for found, wanted in lengths if found != wanted]:
        made = "cut, or the rest ranks last" if by_label else "cut, or filled with 0"
        about = f"{len(other):,} of {len(lengths):,} lists of highlight scores"
        yield f"{about} have more or fewer scores than clips (first: {other[0]}): {made}"
    if 0 < len(lengths) < len(clips):
        yield f"{len(clips) - len(lengths):,} of {len(clips):,} queries have no highlight scores: misses"
