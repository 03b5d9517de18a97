"""Damage that does not know what it damages: bytes replaced, cut, repeated; JSON values exchanged for odd ones."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

TEXTS = (
    "null",
    "NaN",
    "1e999",
    "-1",
    '""',
    "[]",
    "{}",
    "true",
    "9" * 5000,
    "[" * 3000,
    "-Infinity",
    "\\ud800",
)
BYTES = (b"\xff", b"\0", b'"', b",", b"##", b" ", b"\n", b"\r\n", b":", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"")
PIECES = (*(text.encode() for text in TEXTS), *BYTES)
NUMBERS = (-1, 0, 1e308, -1e308, 10**400, 5e-324, 2**63, 2**31, float("nan"), float("inf"), 0.5, -0.0)
STRINGS = (
    "",
    "x",
    "\ud800",
    "1",
    "\n\n",
    "../../x",
    "/nonexistent/x",
    "a\0b",
    "\x1b[2J\x07",
    "\u202eabc",
    "ü" * 300,
)
HOLDERS = (
    [],
    {},
    [[]],
    [None],
    [[1]],
    [[1, 2, 3, 4]],
    {"a": 1},
    [["a", "b"]],
    [[2, 1]],
    ["\0"],
    [True],
    {"": {}},
)
ODD = (None, True, *NUMBERS, *STRINGS, *HOLDERS)


def damaged_bytes(rng: random.Random, content: bytes, pieces: tuple[bytes, ...] = PIECES) -> bytes:
    """The content with one to three places changed."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        where, kind = rng.randrange(len(data) + 1), rng.random()
        if kind < 0.4:
            data[where : where + rng.randint(0, 5)] = rng.choice(pieces)
        elif kind < 0.6 and data:
            data[where % len(data)] = rng.randrange(256)
        elif kind < 0.7:
            del data[where:]
        elif kind < 0.85:
            data[where:where] = data[: rng.randrange(len(data) + 1)][-100:]
        else:
            del data[where : where + rng.randint(1, 20)]
    return bytes(data)


def flipped(rng: random.Random, content: bytes, first: int = 0, last: int | None = None) -> bytes:
    """The content of the same length with some bytes of a stretch changed: numbers in it become others."""
    data = bytearray(content)
    last = len(data) if last is None else min(last, len(data))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if first >= last:
            break
        where, kind = rng.randrange(first, last), rng.random()
        if kind < 0.3:
            data[where] ^= 1 << rng.randrange(8)
        elif kind < 0.6:
            data[where] = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF))
        elif kind < 0.8:
            width = min(rng.choice((2, 4, 8)), len(data) - where)
            data[where : where + width] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x01")) * width
        else:
            data[where] = rng.randrange(256)
    return bytes(data)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside a JSON value, itself included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def odd(rng: random.Random) -> Any:
    """A value that is hardly ever right, its own copy."""
    return copy.deepcopy(rng.choice(ODD))


def exchanged(rng: random.Random, value: Any, times: int = 1) -> Any:
    """The value with an inner one exchanged, removed, or given twice; changes it in place where it can."""
    for _ in range(times):
        path = rng.choice(list(places(value)))
        if not path:
            if times > 1:
                continue
            return odd(rng)
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        kind = rng.random()
        if kind < 0.15:
            del holder[path[-1]]
        elif kind < 0.25 and isinstance(holder, list):
            holder.append(holder[path[-1]])
        elif kind < 0.32 and isinstance(holder, dict):
            holder[rng.choice(("x", "", "\x1b[1m", "__class__", "self", "a" * 300))] = odd(rng)
        else:
            holder[path[-1]] = near(rng, holder[path[-1]])
    return value


def near(rng: random.Random, value: Any) -> Any:
    """A value in place of another: an odd one, or one of its own type that is a little off."""
    if rng.random() < 0.6:
        return odd(rng)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((-1, 1, -(2**31), 2**31, 1000, -value, -value - 1))
    if isinstance(value, float):
        return rng.choice((-value, value * 1e30, value + 1, int(value)))
    if isinstance(value, str):
        return rng.choice((value.upper(), value[:-1], value + "\0", value * 50, value + "\n"))
    if isinstance(value, list):
        return rng.choice((value * 3, value[:1], [value], dict.fromkeys(map(str, range(len(value))))))
    if isinstance(value, dict):
        return rng.choice((list(value), [value], list(value.items())))
    return odd(rng)


def json_text(rng: random.Random, value: Any) -> str:
    """A JSON value as text, sometimes as no writer would put it: nested without end, a key twice, not JSON at all."""
    text = json.dumps(value)
    kind = rng.random()
    if kind < 0.9:
        return text
    if kind < 0.92:
        depth = rng.choice((500, 3000, 100_000))
        return "[" * depth + "]" * depth
    if kind < 0.94 and text.startswith("{") and len(text) > 2:
        return "{" + text[1:-1] + ", " + text[1:]
    if kind < 0.96:
        return rng.choice(("", " ", "null", "5", '"x"', "[]", "{}", "\ufeff" + text, text + text, text[:-1]))
    if kind < 0.98:
        return '{"a": ' * rng.choice((900, 50_000)) + "1" + "}" * 3
    return damaged_bytes(rng, text.encode("utf-8", "surrogatepass")).decode("latin-1")
