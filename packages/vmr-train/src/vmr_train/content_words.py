"""Words that carry content, which the point-supervised methods mask more often."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
