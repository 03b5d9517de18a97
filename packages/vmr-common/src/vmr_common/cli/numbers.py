"""Types of options that are numbers within a stated range: what lies outside, or is no finite number, is refused."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TypeVar

from vmr_common import ranges
from vmr_common.errors import UserError, quoted
from vmr_common.timeline import LEAST_DURATION, MOST_SECONDS
from vmr_common.values import parsed_number

MOST = 10**9
"""The largest count that an option takes where nothing smaller is said."""

T = TypeVar("T", int, float)
_WHOLE = re.compile("[+-]?[0-9]{1,18}")


def whole(low: int, high: int = MOST) -> Callable[[str], int]:
    """The type of an option that is a whole number from `low` to `high`."""
    return _within(ranges.whole(low, high), lambda text: int(text) if _WHOLE.fullmatch(text) else None)


def real(low: float, high: float, *, above: bool = False) -> Callable[[str], float]:
    """The type of an option that is a number from `low` to `high`, without `low` itself if it must lie `above`."""
    return _within(ranges.real(low, high, above=above), _real)


def several(kind: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """The type of an option that is a list between commas: each value once, in increasing order.

    Example:
        >>> several(whole(1))("5,1,5")
        (1, 5)
    """
    return lambda text: tuple(sorted({kind(part) for part in text.split(",")}))


def _within(rule: ranges.Rule, read: Callable[[str], T | None]) -> Callable[[str], T]:
    def parse(text: str) -> T:
        value = read(text)
        if value is None or not rule.holds(value):
            raise argparse.ArgumentTypeError(f"expected {rule.expected}, found {quoted(text, 60)}")
        return value

    return parse


def _real(text: str) -> float | None:
    try:
        return parsed_number(text, "", "")
    except UserError:
        return None


seconds = real(LEAST_DURATION, MOST_SECONDS)
"""The type of an option that is a length of time."""

overlap = real(0, 1)
"""The type of an option that is a temporal overlap."""
