"""JSON values checked against types: a `TypedDict` beside the code that writes a JSON file is its schema."""

from __future__ import annotations

import contextlib
import functools
import math
import types
import typing
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    is_typeddict,
)

from vmr_common.errors import UserError, quoted, shortened, some_of

T = TypeVar("T")
_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    type(None): "null",
}


def conform(value: object, hint: type[T], where: str) -> T:
    """The value, which is of the type that `hint` says, at every depth.

    Args:
        value: From `io.parse_json` and its like.
        hint: A TypedDict, ``dict[str, T]``, ``list[T]``, ``tuple[T, ...]`` or ``tuple[A, B]`` (lists in JSON), a
            union, a Literal, str, int (not true or false), float (whole numbers too; finite), bool, None or Any.
        where: File, and key where it is a part, for the message.

    Raises:
        UserError: naming `where`, the key, what was found and what was expected; also for keys that a TypedDict lacks.

    Example:
        >>> conform({"a": [1, 2]}, dict[str, list[int]], "x.json")
        {'a': [1, 2]}
        >>> conform({"a": [1, None]}, dict[str, list[int]], "x.json")
        Traceback (most recent call last):
        vmr_common.errors.UserError: x.json: key a[1]: found None, expected a whole number
    """
    _check(value, hint, where, "")
    return cast(T, value)


def _check(value: object, hint: Any, where: str, key: str) -> None:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return
    if is_typeddict(hint):
        _check_keys(value, hint, where, key)
    elif origin in (Union, types.UnionType):
        _check_union(value, arguments, where, key)
    elif origin is Literal:
        if not any(type(value) is type(option) and value == option for option in arguments):
            raise _wrong(value, hint, where, key)
    elif origin is dict:
        for name, item in _own(value, dict, hint, where, key).items():
            _check(item, arguments[1], where, f"{key}.{shortened(str(name), 60)}" if key else str(name))
    elif origin in (list, tuple):
        _check_items(value, hint, where, key)
    elif not _is_scalar(value, type(None) if hint is None else hint):
        raise _wrong(value, hint, where, key)


def _is_scalar(value: object, hint: Any) -> bool:
    if hint is float:
        return (type(value) is float and math.isfinite(value)) or (
            type(value) is int and abs(value) < 1 << 1023
        )
    return type(value) is hint


def _check_keys(value: object, hint: Any, where: str, key: str) -> None:
    found = _own(value, dict, hint, where, key)
    hints = _hints(hint)
    missing = [name for name in _required(hint) if name not in found]
    if missing:
        raise UserError(f"{where}: {_at(key)}key {missing[0]!r} is missing (found: {some_of(found)})")
    unknown = sorted(str(name) for name in found if name not in hints)
    if unknown:
        raise UserError(
            f"{where}: {_at(key)}unknown key {quoted(unknown[0], 60)}, expected {', '.join(hints)}"
        )
    for name, item in found.items():
        _check(item, hints[name], where, f"{key}.{name}" if key else name)


@functools.cache
def _hints(hint: Any) -> dict[str, Any]:
    return typing.get_type_hints(hint)


@functools.cache
def _required(hint: Any) -> list[str]:
    # where annotations are postponed, `__required_keys__` takes NotRequired ones for required
    kinds = typing.get_type_hints(hint, include_extras=True)
    return [
        name
        for name, kind in kinds.items()
        if name in hint.__required_keys__ and get_origin(kind) is not NotRequired
    ]


def _check_items(value: object, hint: Any, where: str, key: str) -> None:
    items, arguments = _own(value, list, hint, where, key), get_args(hint)
    alike = get_origin(hint) is list or arguments[-1] is Ellipsis
    kinds = [arguments[0]] * len(items) if alike else list(arguments)
    if len(kinds) != len(items):
        raise _wrong(value, hint, where, key)
    for place, (item, kind) in enumerate(zip(items, kinds, strict=True)):
        # files hold millions of numbers, for which the way through `_check` is long
        if not any(_is_scalar(item, scalar) for scalar in _scalars(kind)):
            _check(item, kind, where, f"{key}[{place}]")


@functools.cache
def _scalars(hint: Any) -> tuple[Any, ...]:
    """The types of a hint for single values, or for one of several kinds of them; else nothing."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return kinds if all(kind in _NAMES for kind in kinds) else ()


def _check_union(value: object, options: tuple[Any, ...], where: str, key: str) -> None:
    alike = [option for option in options if _outer(option) is type(value)]
    if len(alike) == 1:  # its own message says more
        _check(value, alike[0], where, key)
        return
    for option in options:
        with contextlib.suppress(UserError):
            _check(value, option, where, key)
            return
    raise _wrong(value, Union[options], where, key)  # noqa: UP007 - built from a tuple


def _outer(hint: Any) -> Any:
    origin = get_origin(hint)
    if is_typeddict(hint):
        return dict
    return list if origin is tuple else origin


def _own(value: object, kind: type[Any], hint: Any, where: str, key: str) -> Any:
    if type(value) is not kind:
        raise _wrong(value, hint, where, key)
    return value


def _wrong(value: object, hint: Any, where: str, key: str) -> UserError:
    subject = f"key {key}: " if key else ""
    return UserError(f"{where}: {subject}found {quoted(value, 60)}, expected {in_words(hint)}")


def _at(key: str) -> str:
    return f"in {key}, " if key else ""


def in_words(hint: Any) -> str:
    """A type in words, for messages and help; a rule beside the type says it better (see `ranges`)."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return str(getattr(arguments[1], "expected", None) or in_words(arguments[0]))
    if origin in (Union, types.UnionType):
        return " or ".join(map(in_words, arguments))
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}" if len(arguments) > 1 else repr(arguments[0])
    if is_typeddict(hint) or origin is dict:
        return "an object"
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}: {', '.join(map(in_words, arguments))}"
    if origin in (list, tuple):
        return f"a list, each item {in_words(arguments[0])}"
    return _NAMES.get(hint, str(hint))
