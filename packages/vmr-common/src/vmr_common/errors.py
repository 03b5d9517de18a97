"""The one exception that means "the user's input is wrong", and foreign text in messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

QUOTED = 200
"""Characters of one foreign value that a message shows at the most."""

LISTED = 20
"""Lines on one kind of problem that a report shows at the most."""

# C0 and C1 controls but newline and tab, marks that turn the direction of text, and halves of surrogate pairs
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LONG_QUOTE = re.compile(rf"'[^']{{{QUOTED + 1},}}'|\"[^\"]{{{QUOTED + 1},}}\"")
_LONG_WORD = re.compile(rf"[^\s/]{{{QUOTED + 1},}}")


class UserError(ValueError):
    """Something that the user gave is wrong, and the message says what, where and what was expected.

    The message is one line that names the file (or option), the key and the expectation. Commands print
    it as ``error: <message>`` and exit with status 2; any other exception is a fault of ours (status 1).

    Example:
        >>> str(UserError("k: found 0, expected at least 1"))
        'k: found 0, expected at least 1'
    """


class SaidElsewhere(UserError):  # noqa: N818 - the same error
    """The same error of the user on a process whose peer says it: status 2 without a line."""


class PeerGone(Exception):  # noqa: N818 - not an error of anybody
    """Another process of the same run is gone: neither the user's input nor a fault of ours; one line and status 1."""


def require(condition: bool, key: str, found: object, expected: str) -> None:
    """Raises `UserError` for a configuration value unless `condition` holds.

    Example:
        >>> require(3 > 1, "train.epochs", 3, "at least 1")
    """
    if not condition:
        raise UserError(f"{key}: found {found}, expected {expected}")


def listed(names: Sequence[str], limit: int) -> str:
    """The first names, at most `limit`, and how many more there are, for a message.

    Example:
        >>> listed(["a", "b", "c"], 3), listed(["a", "b", "c"], 1)
        ('a, b, c', 'a and 2 more')
    """
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def some_of(names: Iterable[object], limit: int = 12) -> str:
    """The first names of many that a foreign file holds, for a message; each is cut to one line of 60 characters.

    Example:
        >>> some_of({"qid": 1, "vid": 2}), some_of([]), some_of("abcd", 2)
        ('qid, vid', 'nothing', 'a, b and 2 more')
    """
    texts = list(map(str, names))
    # of megabytes of text the beginning is enough
    texts[:limit] = [shortened(one_line(text[:QUOTED]), 60) for text in texts[:limit]]
    return listed(texts, limit) or "nothing"


def counted(count: int, what: str) -> str:
    """A count of things, named in the singular, for people.

    Example:
        >>> counted(1, "query"), counted(1234, "query"), counted(0, "video")
        ('1 query', '1,234 queries', '0 videos')
    """
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count:,} {what if count == 1 else many}"


def is_text(value: str) -> bool:
    """True if UTF-8 can hold it: JSON can spell half a surrogate pair, which no file can."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs again, or None.

    Example:
        >>> first_repeated(["a", "b", "b", "a"]), first_repeated(["a"])
        ('b', None)
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def visible(text: str) -> str:
    r"""Text for a terminal: control characters as ``\uXXXX``, so that no foreign text moves the cursor or hides.

    Newline and tab stay. The escapes are those of JSON, so JSON text keeps its meaning.

    Example:
        >>> visible("a\x1b[2Jb"), visible("two\nlines")
        ('a\\u001b[2Jb', 'two\nlines')
    """
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shortened(text: str, limit: int = QUOTED) -> str:
    """The first `limit` characters, with an ellipsis where there are more.

    Example:
        >>> shortened("abcdef", 3)
        'abc...'
    """
    return text if len(text) <= limit else text[:limit] + "..."


def quoted(value: object, limit: int = QUOTED) -> str:
    r"""A foreign value for a message: its ``repr`` without control characters, cut to `limit` characters.

    Example:
        >>> quoted("a\x07"), quoted([1] * 99, 9)
        ("'a\\x07'", '[1, 1, 1,...')
    """
    if isinstance(value, str | bytes):  # the repr of megabytes is not needed to show its beginning
        value = value[: limit + 1]
    return shortened(visible(repr(value)), limit)


def one_line(message: str) -> str:
    """A message as one line: white space folded, control characters escaped, long quotations cut to `QUOTED`."""
    text = visible(" ".join(message.split()))
    text = _LONG_QUOTE.sub(lambda found: f"{shortened(found[0][:-1])}{found[0][0]}", text)
    return _LONG_WORD.sub(lambda found: shortened(found[0]), text)
