# ruff: noqa: RUF001 - typographic quotation marks are what this file is about
"""Sentence splitting, tokens in the manner of the Penn Treebank, and which words carry content."""

from __future__ import annotations

import re

# A full stop after one of these does not end a sentence. Single letters (initials) never do.
_ABBREVIATION_LIST = """
    mr mrs ms dr prof st jr sr vs etc e.g i.e a.m p.m u.s approx no fig min sec hr oz lb tbsp tsp
"""
_ABBREVIATIONS = frozenset(_ABBREVIATION_LIST.split())
_OPENING, _CLOSING = "([{<", ")]}>"
# A word that may end a sentence, closing marks apart, and what the next word begins with. It is tried once per word.
_SENTENCE_END = re.compile(r"""(?<!\S)(\S*[.?!])[)\]}"'»”’]*(?=\s+(\S))""")

# Applied in this order to one sentence; each puts blanks around what it recognises.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # quotation marks: opening ones become ``, closing ones '' (below, when brackets stand apart)
        (r"([«“‘„]|`+)", r" \1 "),
        (r'^"', r" `` "),
        (rf"""([\s{re.escape(_OPENING)}])("|'')""", r"\1 `` "),
        (r"(?<![\w'])'(?!(?:re|ve|ll|m|t|s|d|n|tis|twas)\b)(?=\w)", r" ' "),
        # a full stop is a token only at the end of the sentence, perhaps before closing marks
        (r"""(?<=[^.])(\.)([\])}>"'»”’\s]*)$""", r" \1 \2"),
        (r"(\.{2,})", r" \1 "),
        # commas and colons stay inside numbers and times (1,000 and 10:30)
        (r"([:,])(?=\D|$)", r" \1 "),
        (r"([;@#$%&?!*])", r" \1 "),
        (r"(?<=[^'])'(?=\s)", r" ' "),
        (rf"([{re.escape(_OPENING + _CLOSING)}])", r" \1 "),
        (r"(--)", r" \1 "),
        (r"([»”’])", r" \1 "),
        (r"""("|'')""", " '' "),
        # contractions
        (r"(?<=[^'\s])('(?:s|m|d|ll|re|ve)|n't)(?=\s|$)", r" \1"),
        (r"(?<=[^'\s])'(?=\s|$)", r" '"),
        (r"\b(can)(not)\b", r"\1 \2"),
        (r"\b(gon|wan)(na)\b", r"\1 \2"),
        (r"\b(got)(ta)\b", r"\1 \2"),
        (r"\b(gim|lem)(me)\b", r"\1 \2"),
        (r"(?<!\S)('t)(is|was)\b", r"\1 \2"),
    )
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text: a break follows ``. ? !`` (and closing marks) before a blank.

    A full stop of an abbreviation or an initial is no break, nor an ellipsis before a lower-case word.

    Example:
        >>> split_sentences("She cuts it. Then Mr. X eats it!  Done")
        ['She cuts it.', 'Then Mr. X eats it!', 'Done']
    """
    sentences, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        end = match.end()
        if _ends_sentence(match[1], match[2]):
            sentences.append(text[start:end].strip())
            start = end
    last = text[start:].strip()
    return [*sentences, last] if last else sentences


def _ends_sentence(word: str, following: str) -> bool:
    """True if a sentence ends after a word that ends in ``. ? !``; `following` begins what comes next."""
    if word.endswith(".."):
        return following.isupper()
    if not word.endswith("."):
        return True
    stem = word[:-1].lstrip("\"'([{").lower()
    return stem not in _ABBREVIATIONS and not (len(stem) == 1 and stem.isalpha())


def tokenize(text: str) -> list[str]:
    """Splits text into tokens in the manner of the Penn Treebank, keeping upper and lower case.

    Punctuation and brackets stand alone; contractions are split (``does n't``, ``she 's``, ``can not``);
    straight double quotes become two grave accents or two apostrophes. A full stop stands alone only at the
    end of a sentence, so ``door.the`` stays one token.

    Example:
        >>> tokenize("The person can't open it (again).")
        ['The', 'person', 'ca', "n't", 'open', 'it', '(', 'again', ')', '.']
    """
    return [token for sentence in split_sentences(text) for token in sentence_tokens(sentence)]


def sentence_tokens(text: str) -> list[str]:
    """The tokens of text that is one sentence, as `tokenize` finds them.

    Example:
        >>> sentence_tokens("The plate. He can't.")  # two sentences, of which the first keeps its full stop
        ['The', 'plate.', 'He', 'ca', "n't", '.']
    """
    text = text.strip()
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text.split()
