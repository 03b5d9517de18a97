"""Ranges of numbers, as tests and in words: for options and for fields of configurations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """A rule for a value, as a test and in words."""

    holds: Callable[[Any], bool]
    expected: str


def whole(low: int, high: int) -> Rule:
    """Whole numbers from `low` to `high`."""

    def holds(value: Any) -> bool:
        return type(value) is int and low <= value <= high

    return Rule(holds, f"a whole number, at least {low:,} and at most {high:,}")


def real(low: float, high: float, *, above: bool = False, below: bool = False) -> Rule:
    """Numbers from `low` to `high`, without `low` (`above`) or `high` (`below`); neither not-a-number nor infinity."""

    def holds(value: Any) -> bool:
        within = type(value) in (int, float) and low <= value <= high
        return within and not (above and value == low) and not (below and value == high)

    first = f"above {low:g}" if above else f"at least {low:g}"
    return Rule(holds, f"a number, {first} and {'below' if below else 'at most'} {high:g}")
