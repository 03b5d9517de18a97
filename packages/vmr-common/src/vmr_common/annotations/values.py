"""Checks of single values in annotation files; the messages name place, key and value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from vmr_common.errors import UserError

_SHOWN = 60


def shown(value: Any) -> str:
    """A value for an error message: its text, shortened."""
    if isinstance(value, dict | list):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits refuses to be printed
        return "a number too large"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def listed(names: Iterable[Any]) -> str:
    """The first names of many for an error message, on one line."""
    text = repr(", ".join(map(str, itertools.islice(names, 12))))[1:-1] or "nothing"
    return text if len(text) <= 3 * _SHOWN else text[: 3 * _SHOWN - 3] + "..."


def field_of(row: Mapping[str, Any], key: str, where: str) -> Any:
    """``row[key]``; a missing key is a `UserError` that lists the keys found."""
    if key not in row:
        raise UserError(f"{where}: key {key!r} is missing (found: {listed(row)})")
    return row[key]


def number(value: Any, where: str, key: str) -> float:
    """A finite JSON number as float; anything else (text, true, NaN) is a `UserError`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
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
        result = float(text)
    except ValueError:
        raise UserError(f"{where}: {key} must be a number, found {shown(text)}") from None
    return number(result, where, key)


def duration_of(value: Any, where: str, key: str = "duration") -> float:
    """A positive, finite number of seconds; anything else is a `UserError`."""
    result = number(value, where, key)
    if result <= 0:
        raise UserError(f"{where}: {key} must be positive seconds, found {shown(value)}")
    return result


def sentence(value: Any, where: str, key: str) -> str:
    """Text that UTF-8 can hold; it may be blank (the policy judges that)."""
    if not isinstance(value, str):
        raise UserError(f"{where}: {key} must be text, found {shown(value)}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # JSON can spell half a surrogate pair, which no file can hold
            raise UserError(f"{where}: {key} holds half a surrogate pair, expected Unicode text") from None
    return value


def identifier(value: Any, where: str, key: str) -> str:
    """A non-empty id, as text; integers are accepted."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    result = sentence(value, where, key)
    if not result.strip():
        raise UserError(f"{where}: {key} is empty, expected an id")
    return result


def pair(value: Any, where: str, key: str) -> tuple[float, float]:
    """``[start, end]`` as two finite numbers."""
    if not isinstance(value, list) or len(value) != 2:
        raise UserError(f"{where}: {key} must be [start, end], found {shown(value)}")
    return number(value[0], where, f"{key} start"), number(value[1], where, f"{key} end")


def pairs(value: Any, where: str, key: str) -> list[tuple[float, float]]:
    """A list of ``[start, end]``."""
    return [pair(item, where, f"{key}[{index}]") for index, item in enumerate(list_of(value, where, key))]


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
