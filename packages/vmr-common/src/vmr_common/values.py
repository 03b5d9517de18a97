"""Checks of single values in annotation and prediction files; the messages name place, key and value."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, is_text, quoted, some_of
from vmr_common.timeline import LEAST_DURATION, MOST_SECONDS

_SHOWN = 60
_VIDEO_ENDING = re.compile(r"\.(?:mp4|avi|mkv|webm|mov|m4v|mpe?g|wmv|flv|3gp|ogv|ts)$", re.IGNORECASE)


def without_ending(video: str) -> str:
    """The id of a video without the ending of a video file.

    Example:
        >>> without_ending("s30-d52.avi"), without_ending("v1.5")
        ('s30-d52', 'v1.5')
    """
    return _VIDEO_ENDING.sub("", video) or video


def video_stem(video: str) -> str:
    """The id of a video without the folder before it and without the ending of a video file.

    Example:
        >>> video_stem("videos/v0.MP4"), video_stem("v0.1")
        ('v0', 'v0.1')
    """
    return without_ending(video.rpartition("/")[2]) or video


def shown(value: Any) -> str:
    """A value for an error message: its text, shortened."""
    if isinstance(value, dict | list):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    try:
        return quoted(value, _SHOWN)
    except ValueError:  # an integer of thousands of digits refuses to be printed
        return "a number too large"


def field_of(row: Mapping[str, Any], key: str, where: str) -> Any:
    """``row[key]``; a missing key is a `UserError` that lists the keys found."""
    if key not in row:
        raise UserError(f"{where}: key {key!r} is missing (found: {some_of(row)})")
    return row[key]


def number(value: Any, where: str, key: str) -> float:
    """A finite JSON number as float; anything else (text, true, NaN) is a `UserError`."""
    if type(value) is not float and type(value) is not int:
        raise UserError(f"{where}: {key} must be a number, found {shown(value)}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise UserError(f"{where}: {key} must be a finite number, found {shown(value)}")
    return result


def parsed_number(text: str, where: str, key: str) -> float:
    """A finite number from text (``24.3``); anything else is a `UserError`."""
    try:
        if "_" in text or not text.isascii():  # 1_000 and the digits of other scripts, which float() takes
            raise ValueError
        result = float(text)
    except ValueError:
        raise UserError(f"{where}: {key} must be a number, found {shown(text)}") from None
    return number(result, where, key)


def seconds(value: Any, where: str, key: str) -> float:
    """A number of seconds that any computation can bear: at most `MOST_SECONDS`, before or after 0."""
    if type(value) is float and -MOST_SECONDS <= value <= MOST_SECONDS:
        return value
    result = number(value, where, key)
    if abs(result) > MOST_SECONDS:
        raise UserError(f"{where}: {key} must be at most {MOST_SECONDS:g} seconds, found {shown(value)}")
    return result


def positive(value: Any, where: str, key: str) -> float:
    """A positive, finite number; anything else is a `UserError`."""
    result = number(value, where, key)
    if result <= 0:
        raise UserError(f"{where}: {key} must be positive, found {shown(value)}")
    return result


def duration_of(value: Any, where: str, key: str = "duration") -> float:
    """The length of a video, from `LEAST_DURATION` to `MOST_SECONDS`; anything else is a `UserError`."""
    result = seconds(value, where, key)
    if result < LEAST_DURATION:
        raise UserError(
            f"{where}: {key} must be positive seconds, found {shown(value)} (at least {LEAST_DURATION:g})"
        )
    return result


def sentence(value: Any, where: str, key: str) -> str:
    """Text that UTF-8 can hold; it may be blank (the policy judges that)."""
    if not isinstance(value, str):
        raise UserError(f"{where}: {key} must be text, found {shown(value)}")
    if not value.isascii() and not is_text(value):
        raise UserError(f"{where}: {key} holds half a surrogate pair, expected Unicode text")
    return value


def identifier(value: Any, where: str, key: str) -> str:
    """A non-empty id, as text; integers are accepted."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: {key} must be text or a whole number, found {shown(value)}")
    result = sentence(value, where, key)
    if not result.strip():
        raise UserError(f"{where}: {key} is empty, expected an id")
    return result


def pair(value: Any, where: str, key: str) -> tuple[float, float]:
    """``[start, end]`` as two finite numbers."""
    if not _is_pair(value):
        raise UserError(f"{where}: {key} must be [start, end], found {shown(value)}")
    return number(value[0], where, f"{key} start"), number(value[1], where, f"{key} end")


def moment(value: Any, where: str, key: str) -> tuple[float, float]:
    """``[start, end]`` in `seconds`."""
    start, end = pair(value, where, key)
    return seconds(start, where, f"{key} start"), seconds(end, where, f"{key} end")


def moments(value: Any, where: str, key: str) -> list[tuple[float, float]]:
    """A list of ``[start, end]`` in `seconds`."""
    return [moment(item, where, f"{key}[{index}]") for index, item in enumerate(list_of(value, where, key))]


def number_rows(value: Any, columns: Sequence[str], where: str, key: str) -> NDArray[np.float64]:
    """A JSON list of lists of finite numbers, ``(N, len(columns))`` float64; nothing is regrouped or converted.

    Raises `UserError` naming the first row that is something else, counted from 0: of another length, deeper, not a
    list, or with a text, true or false, null, NaN or infinity in it.
    """
    rows = list_of(value, where, key)
    # by types first, because numpy takes true for 1 and reads numbers from text
    if set(map(type, rows)) <= {list} and set(map(len, rows)) <= {len(columns)}:
        found = _numbers(list(itertools.chain.from_iterable(rows)))
        if found is not None:
            return found.reshape(-1, len(columns))
    layout = f"[{', '.join(columns)}]"
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            why = " numbers, a window without a score" if columns[-1] == "score" and _is_pair(row) else ""
            raise UserError(
                f"{where}: {key}[{index}] must be {layout}, found {shown(row)}{why} (nothing was regrouped)"
            )
        for name, item in zip(columns, row, strict=True):
            number(item, where, f"{key}[{index}] {name}")
    raise AssertionError("a row that is refused has a reason")


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def numbers(value: Any, where: str, key: str) -> NDArray[np.float64]:
    """A flat JSON list of finite numbers, ``(N,)`` float64.

    Raises `UserError` naming the first item that is something else, counted from 0.
    """
    items = list_of(value, where, key)
    found = _numbers(items)
    if found is None:
        return np.array([number(item, where, f"{key}[{index}]") for index, item in enumerate(items)])
    return found


def _numbers(items: list[Any]) -> NDArray[np.float64] | None:
    """Items that are finite numbers, ``(N,)``; None if any is something else."""
    if not set(map(type, items)) <= {int, float}:
        return None
    try:
        if not all(map(math.isfinite, items)):
            return None
        found = np.array(items, dtype=np.float64)
    except OverflowError:  # an integer beyond float64
        return None
    found.setflags(write=False)  # so that records show parts of it, without copies
    return found


def list_of(value: Any, where: str, key: str, length: int | None = None) -> list[Any]:
    """A JSON list, of `length` where one is given."""
    if not isinstance(value, list):
        raise UserError(f"{where}: {key} must be a list, found {shown(value)}")
    if length is not None and len(value) != length:
        raise UserError(f"{where}: {key} must hold {length} entries, found {len(value)}")
    return value


def object_of(value: Any, where: str, key: str = "the record") -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: {key} must be an object, found {shown(value)}")
    return value
