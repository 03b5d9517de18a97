# ruff: noqa: RUF001 - typographic quotation marks are what this file is about
"""Sentence splitting, tokens in the manner of the Penn Treebank, and which words carry content."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

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


# Words that a part-of-speech tagger marks as determiner, preposition, pronoun, conjunction, modal verb,
# particle, numeral or interjection. Forms of be, have and do, and all adverbs (also "not", "when", "where",
# "how"), count as content, because the methods take every tag with NN, VB, JJ or RB for content.
_FUNCTION_WORDS = """
    a an the this that these those each every either neither some any no all both half another such
    i you he she it we they me him her us them my your his its our their mine yours hers ours theirs
    myself yourself himself herself itself ourselves yourselves themselves oneself
    who whom whose which what whoever whatever whichever
    about above across after against along alongside although amid among amongst around as at atop because
    before behind below beneath beside besides between beyond by concerning despite down during except for
    from if in inside into like near of off on onto opposite out outside over past per since than though
    through throughout till toward towards under underneath unless until unto up upon via versus vs whereas
    whether while with within without
    and or but nor plus minus to there 's
    can could may might must shall should will would ought cannot ca wo sha 'll 'd
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand
    million billion dozen
    oh uh um hey hi hello ok okay wow
"""  # determiners; pronouns; prepositions and conjunctions; modal verbs; numerals; interjections
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
# the digit is looked for ahead: between two repetitions it would be tried in every place
_NUMERAL = re.compile(r"[+-]?(?=[.,:/]*\d)[\d.,:/]+(?:s|st|nd|rd|th)?")
CONTENT, FUNCTION = 2, 1


def content_scores(tokens: Sequence[str]) -> list[int]:
    """Scores words for masking: 2 for a content word, 1 for a function word, a numeral or punctuation.

    Stands in for a part-of-speech tagger (see `tag_score` for those who have one): a word is a function word
    if it is in `FUNCTION_WORDS`. Case is ignored.

    Example:
        >>> content_scores(["The", "person", "does", "n't", "open", "it", "."])
        [1, 2, 2, 2, 2, 1, 1]
    """
    return [FUNCTION if _is_function_word(token.lower()) else CONTENT for token in tokens]


def _is_function_word(word: str) -> bool:
    if word in FUNCTION_WORDS:
        return True
    return not any(character.isalpha() for character in word) or bool(_NUMERAL.fullmatch(word))


def tag_score(tag: str) -> int:
    """The masking score of a Penn Treebank tag: 2 if it contains NN, VB, JJ or RB, else 1 (CPL, RGN, CFMR).

    Example:
        >>> [tag_score(tag) for tag in ("NNS", "WRB", "MD", "RP", ".")]
        [2, 2, 1, 1, 1]
    """
    return CONTENT if any(part in tag for part in ("NN", "VB", "JJ", "RB")) else FUNCTION


def plain_words(text: str, *, strip_punctuation: bool = False, drop_full_stop: bool = False) -> list[str]:
    """Lower-cased words between blanks, punctuation left on them (the loaders of 2D-TAN, CDN and LEORN).

    Args:
        text: A sentence.
        strip_punctuation: Take punctuation off both ends of a word, and leave out what was nothing else.
        drop_full_stop: Cut the full stop that ends the sentence, as those loaders do on Charades-STA alone.

    Example:
        >>> plain_words("She cuts it, twice.")
        ['she', 'cuts', 'it,', 'twice.']
        >>> plain_words("She cuts it, twice.", drop_full_stop=True)
        ['she', 'cuts', 'it,', 'twice']
        >>> plain_words("She cuts it, twice .", strip_punctuation=True)
        ['she', 'cuts', 'it', 'twice']
    """
    words = (text.removesuffix(".") if drop_full_stop else text).lower().split()
    if strip_punctuation:
        words = [word for word in (word.strip(string.punctuation) for word in words) if word]
    return words
