"""Sentences as the long-video methods encode them, for whoever extracts query features himself."""

from __future__ import annotations


def ego4d_text(text: str) -> str:
    """A sentence as the long-video methods encode it on Ego4D: in lower case, with one question mark at its end.

    Full stops, then blanks, then question marks are taken from both ends first. Source: the released converters of
    CONE and RGNet.

    Example:
        >>> ego4d_text("Where is the mug ?")
        'where is the mug ?'
    """
    return _stripped(text).lower() + "?"


def mad_text(text: str) -> str:
    """A sentence as the long-video methods encode it on MAD: the case kept, with one full stop at its end.

    Ends are stripped as in `ego4d_text`.

    Example:
        >>> mad_text(" SOMEONE sits down.")
        'SOMEONE sits down.'
    """
    return _stripped(text) + "."


def _stripped(text: str) -> str:
    return text.strip(".").strip(" ").strip("?")
