"""The named policies that say what is done about irregular records, and doing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vmr_common.errors import UserError

if TYPE_CHECKING:
    from vmr_common.splits.irregular import Record

Moment = tuple[float, float]
Rule = Callable[[Moment, float], str | None]
"""Moment and duration (seconds) to the reason for dropping it, or None."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Treatment of irregular records by a reader; nothing else is ever changed."""

    name: str  # how configurations and reports call it
    summary: str  # the rule in words, with the evaluation it comes from
    # start after end: kept, an error, swapped, or the moment is dropped
    reversed_moment: Literal["keep", "error", "swap", "drop"] = "keep"
    empty_moment: Literal["keep", "drop"] = "keep"  # start equal to end: kept or dropped
    # end after the duration: kept, cut to the duration, or dropped
    late_end: Literal["keep", "cut", "drop"] = "keep"
    # start before 0: kept, an error, or raised to 0
    negative_start: Literal["keep", "error", "raise"] = "keep"
    no_text: Literal["error", "drop"] = "error"  # a record without a sentence: an error, or dropped
    # whether ends are cut before (True) or after (False) moments are judged for dropping
    cut_first: bool = False
    rule: Rule | None = None  # what else is dropped, judged on the times as they are annotated


def too_brief(moment: Moment, duration: float) -> str | None:
    """The rule of CONE's converter for Ego4D: start and end agree when they are rounded to 0.1 s."""
    start, end = moment
    return "start and end agree to 0.1 s" if round(start, 1) == round(end, 1) else None


def ego4d_training(moment: Moment, duration: float) -> str | None:
    """The rules for training moments of CONE and RGNet on Ego4D, after those of `too_brief`.

    Source: RGNet's second pass over its annotations.
    """
    start, end = moment
    if brief := too_brief(moment, duration):
        return brief
    # of a clip of 480 s the features end at 479.895 s
    if start >= duration * 479.895 / 480:
        return "start where the features end"
    if start == end:
        return "start equal to the end"
    if start < 120 and end > duration - 60:
        return "no window outside the moment"
    return None


def mad_training(moment: Moment, duration: float) -> str | None:
    """The rules for training moments of CONE and RGNet on MAD."""
    start, end = moment
    if start < 0 or start >= duration:
        return "start outside the film"
    return "start equal to the end" if start == end else None


POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy(
            name="checked",
            summary="times are kept; a start after its end, or before 0, is an error (own data)",
            reversed_moment="error",
            negative_start="error",
        ),
        Policy(
            name="as-annotated",
            summary="every record is kept as it is",
        ),
        Policy(
            name="cut-then-drop",
            summary="ends are cut to the duration, then kept if start < end (2D-TAN on Charades-STA)",
            reversed_moment="drop",
            empty_moment="drop",
            late_end="cut",
            cut_first=True,
        ),
        Policy(
            name="drop-then-cut",
            summary="kept if start < end, then limited to the video (2D-TAN on TACoS, ActivityNet)",
            reversed_moment="drop",
            empty_moment="drop",
            late_end="cut",
            negative_start="raise",
        ),
        Policy(
            name="drop-late",
            summary="dropped if the end is after the duration or not after the start (CPL on Charades-STA)",
            reversed_moment="drop",
            empty_moment="drop",
            late_end="drop",
        ),
        Policy(
            name="drop-textless",
            summary="records without a sentence are dropped, times are kept as annotated (Ego4D NLQ)",
            no_text="drop",
        ),
        Policy(
            name="drop-brief",
            summary="dropped without a sentence, or if start and end agree to 0.1 s (CONE, RGNet on Ego4D)",
            no_text="drop",
            rule=too_brief,
        ),
        Policy(
            name="rgnet-ego4d-train",
            summary="as drop-brief, also if the start is where the features end (479.895 / 480 of the clip) or no "
            "window is outside the moment (start before 120 s, end in the last 60 s); a start after its end is swapped",
            no_text="drop",
            reversed_moment="swap",
            rule=ego4d_training,
        ),
        Policy(
            name="rgnet-mad-train",
            summary="dropped if the start is outside the film or equal to the end; a start after its end is swapped",
            reversed_moment="swap",
            rule=mad_training,
        ),
    )
}


def policy_named(policy: str | Policy) -> Policy:
    """The policy of that name (or the policy itself).

    Raises `UserError` if no policy has that name; lists the names.
    """
    if isinstance(policy, Policy):
        return policy
    if policy not in POLICIES:
        raise UserError(f"policy {policy!r} is unknown, expected one of {', '.join(POLICIES)}")
    return POLICIES[policy]


def apply(policy: Policy, record: Record, counts: Counter[str]) -> list[tuple[float, float]] | None:
    """The moments that a policy leaves of a record, or None where it drops the record; counts what it does.

    Raises `UserError` for what the policy refuses.
    """
    if record.left_out:
        counts[f"dropped: {record.left_out}"] += 1
        return None
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
