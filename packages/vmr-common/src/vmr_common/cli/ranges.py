"""Types of options that are numbers within stated bounds: what is outside, no number or no finite one is refused."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TypeVar

from vmr_common.errors import UserError, quoted
from vmr_common.timeline import LEAST_DURATION, MOST_SECONDS
from vmr_common.values import parsed_number

MOST = 10**9
"""The largest count that an option takes where nothing smaller is said."""

T = TypeVar("T", int, float)
_WHOLE = re.compile("[+-]?[0-9]{1,18}")


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """The type of an option that is a whole number from `least` to `most`.

    Example:
        >>> whole(1)("12")
        12
        >>> whole(1)("0")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: expected a whole number from 1 to 1000000000, found '0'
    """

    def parse(given: str | int) -> int:
        text = str(given)  # jsonargparse hands its values in again
        if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
            raise _outside(f"a whole number from {least} to {most}", text)
        return int(text)

    return parse


def real(least: float, most: float, *, above: bool = False) -> Callable[[str], float]:
    """The type of an option that is a number from `least` to `most`, or `above` the least.

    Example:
        >>> real(0, 1)("0.45")
        0.45
        >>> real(0, 1, above=True)("nan")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: expected a number above 0, at most 1, found 'nan'
    """

    def parse(given: str | float) -> float:
        text = str(given)
        try:
            value = parsed_number(text, "", "")
        except UserError:
            value = least - 1
        if not (least < value if above else least <= value) or value > most:
            raise _outside(
                f"a number above {least:g}, at most {most:g}"
                if above
                else f"a number from {least:g} to {most:g}",
                text,
            )
        return value

    return parse


def several(kind: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """The type of an option that is a list between commas: each value once, in increasing order.

    Example:
        >>> several(whole(1))("5,1,5")
        (1, 5)
    """

    def parse(text: str) -> tuple[T, ...]:
        return tuple(sorted({kind(part) for part in text.split(",")}))

    return parse


seconds = real(LEAST_DURATION, MOST_SECONDS)
"""The type of an option that is the length of something in time."""

overlap = real(0, 1)
"""The type of an option that is a temporal overlap."""


def _outside(expected: str, text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"expected {expected}, found {quoted(text, 60)}")
