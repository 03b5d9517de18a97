"""The windows that the text of a video language model names."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST_TEXT = 20_000

_TOKEN = re.compile(
    # nothing behind a number makes the search go back into it; a possessive repeat misreads "1: 2" before Python 3.11.5
    r"(?P<number>\.?\d+(?:[.:]\d+)*)"
    r"(?:[ \t\xa0]{0,2}(?P<unit>(?:hour|hr|minute|min|second|sec|millisecond|frame)s?|h|m|s|ms|%|percent|fps)"
    r"(?![^\W\d]))?"
    r"(?P<glued>[^\W\d]\w*)?|(?P<word>[^\W\d]\w*(?:-\w+)*)|(?P<bullet>\n[ \t]{0,8}[-*•]\s)|\S|\n",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"(?!0\d\d)\d{1,9}(\.\d{1,20})?")
_CLOCK = re.compile(r"(?:\d{1,2}:[0-5]\d|\d{1,3}):[0-5]\d(?:\.\d{1,20})?")
_OF_SUBTITLES = re.compile(r"(?<![\d:.,])(\d{1,3}:[0-5]\d(?::[0-5]\d)?),(\d{3})(?!\d|[.:]\d)")  # 00:00:35,000
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_OF_TIME = r"(?:[_-]?(?:time|timestamp|second|sec|s))?"
_WORDS = {
    "S": re.compile(rf"start(?:s|ed|ing)?{_OF_TIME}|begin(?:s|ning)?{_OF_TIME}|began"),
    "E": re.compile(rf"end(?:s|ed|ing)?{_OF_TIME}|finish(?:es|ed|ing)?|stop(?:s|ped|ping)?"),
    "f": re.compile("from"),
    "b": re.compile("between"),
    "j": re.compile("to|until|till|through"),
    "a": re.compile("and"),
    "n": re.compile("(?:minute|min|hour|frame)s?|minus|negative"),
    "_": re.compile(
        "(?:second|sec|time|timestamp)s?|at|about|around|approximately|roughly|is|the|of|event|moment"
    ),
}
# A text is rewritten as letters, one per token, and windows are found among these:
#   t whole number   d decimal number   k clock   h m s number with that unit   x number that is none of these
#   S start   E end   f from   b between   j to   a and   c comma   [ ] ( ) themselves
#   n makes the next number unclear (a minus, "frame")   g glues two numbers (1,000)
#   _ passed over (at, is, seconds, quotes)   w another word   o another mark
_ANY = "[tdkhmsx]"
_TIME = rf"(?:n_?)?(?:h[ac]?m[ac]?s|h[ac]?[ms]|m[ac]?s|{_ANY})"
_WHOLE = rf"(?>{_TIME}(?:g?{_ANY})*)"
_WINDOW = re.compile(
    "|".join(
        (
            rf"\[_?({_TIME})_?[cg]_?({_TIME})_?\]",  # [4, 11] and [4,11]
            rf"\(_?({_TIME})_?c_?({_TIME})_?\)",  # (4, 11), and 4, 11 where there is nothing else
            rf"S_?(?:f_?)?({_WHOLE})[^tdkhmsxngSEj]*[Ej]_?({_WHOLE})",  # starts at 4 and ends at 11
            rf"b_?({_WHOLE})_?a_?({_WHOLE})",  # between 4 and 11
            rf"(?:[fb]_?|(?<![tdkhmsxg]))({_WHOLE})_?j_?({_WHOLE})((?:_?j_?{_WHOLE})+)?",  # from 4 to 11 (to 20)
            rf"E_?({_WHOLE})",  # an end without a start
        )
    )
)


def windows_in(text: str) -> list[list[float]]:
    """The windows that a text names, in its order, seconds, as answered: an end may be before its start.

    A time is a number with or without a unit, minutes and seconds, ``mm:ss`` or ``hh:mm:ss`` (in subtitles
    ``hh:mm:ss,mmm``). A window is two times joined by *to*, *until* or a dash, *between* and *and*, a comma in
    brackets, or words of start and end. Windows that are surely times (with a unit, a clock, a decimal point, a word
    such as *from*) outweigh others. A text with a window that is not clear (``4,5 to 11,5``, ``-4 to 11``) names none,
    and so does one of more than `LONGEST_TEXT` characters. What stands before ``</think>``, and around
    ``<answer>...</answer>``, is no answer.

    Example:
        >>> windows_in("It happens from 12.5 to 20 seconds, and 2 - 3 people watch.")
        [[12.5, 20.0]]
        >>> windows_in("1 min 4 s - 01:20"), windows_in('{"start": 0.8, "end": 4}'), windows_in("4,5 to 11,5")
        ([[64.0, 80.0]], [[0.8, 4.0]], [])
    """
    text = text.rpartition("</think>")[2]
    text = text.rpartition("<answer>")[2].partition("</answer>")[0]
    if len(text) > LONGEST_TEXT:
        return []
    letters, seconds = _letters(_OF_SUBTITLES.sub(r"\1.\2", text))
    surely, others = [], []
    for match in _WINDOW.finditer(letters):
        spans = [match.span(group) for group in range(1, _WINDOW.groups + 1) if match[group]]
        if len(spans) != 2:  # a chain such as 1 - 4 - 11, or an end without a start
            return []
        kinds = [letters[slice(*span)].translate({ord("a"): None, ord("c"): None}) for span in spans]
        window = _window(kinds, [sum(seconds[slice(*span)]) for span in spans])
        if window is None:
            return []
        if match[0][0] in "[(Sfb" or kinds != ["t", "t"]:
            surely.append(window)
        elif not letters.startswith(("w", "_w"), match.end()):  # not "2 - 3 people"
            others.append(window)
    return surely or others


def _window(kinds: Sequence[str], seconds: Sequence[float]) -> list[float] | None:
    """The window of two times in letters, None if it is not clear."""
    first, second = (kind.replace("d", "t") for kind in kinds)
    start, end = seconds
    if not all(re.fullmatch("t|k|h?m?s?", kind) for kind in (first, second)):
        return None
    if first == "t" and second in ("h", "m"):  # 1 to 2 minutes
        start *= _UNITS[second]
        return [start, end] if start <= end else None
    if "t" in (first, second) and {first, second} - {"t", "s"}:  # 1:04 to 11
        return None
    return [start, end]


def _letters(text: str) -> tuple[str, list[float]]:
    """A text in letters, one per token, in round brackets as a whole, and the seconds of each."""
    letters, seconds, last = ["("], [0.0], "("  # last: the last letter but _
    for token in _TOKEN.finditer(text):
        value = 0.0
        if token["number"]:
            letter, value = _number(token["number"], (token["unit"] or "").lower())
            letter = "w" if token["glued"] else letter
        elif token["word"]:
            word = token["word"].lower()
            letter = next((name for name, words in _WORDS.items() if words.fullmatch(word)), "w")
        elif token["bullet"]:
            letter = "o"
        else:
            within = (
                text[token.start() - 1 : token.start()].isdigit(),
                text[token.end() : token.end() + 1].isdigit(),
            )
            letter = _mark(token[0], within, last)
        if letter == "_" == letters[-1]:
            continue
        letters.append(letter)
        seconds.append(value)
        last = last if letter == "_" else letter
    return "".join([*letters, ")"]), [*seconds, 0.0]


def _number(text: str, unit: str) -> tuple[str, float]:
    """The letter and the seconds of a number and its unit."""
    if _CLOCK.fullmatch(text) and unit[:1] in ("", "m", "s"):
        total = 0.0
        for part in text.split(":"):
            total = 60 * total + float(part)
        return "k", total
    plain = _PLAIN.fullmatch(text)
    if not plain or unit in ("%", "percent", "fps", "frame", "frames"):
        return "x", 0.0
    if not unit:
        return "d" if plain[1] else "t", float(text)
    if unit.startswith(("ms", "milli")):
        return "s", float(text) / 1000
    return unit[0], float(text) * _UNITS[unit[0]]


def _mark(mark: str, between_digits: tuple[bool, bool], last: str) -> str:
    """The letter of a character that is neither of a number nor of a word."""
    if mark in ",'’/" and all(between_digits):  # noqa: RUF001
        return "g"
    if mark in "-–—−~→":  # noqa: RUF001 - the dashes that models write
        if last in "tdkhmsx":
            return "j"
        return "n" if between_digits[1] and mark not in "~→" else "_"
    if mark in "[]()":
        return mark
    if mark == ",":
        return "c"
    return "_" if mark in "\"'`*:=<>$≈\n" else "o"
