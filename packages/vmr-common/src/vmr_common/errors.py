"""The one exception that means "the user's input is wrong"."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """Something that the user gave is wrong, and the message says what, where and what was expected.

    The message is one line that names the file (or option), the key and the expectation. Commands print
    it as ``error: <message>`` and exit with status 2; any other exception is a fault of ours (status 1).
    """


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
