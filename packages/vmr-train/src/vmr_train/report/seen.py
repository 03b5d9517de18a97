"""The words of test queries as training knows them: how often, and which of them together."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vmr_common.text.tokens import tokenize
from vmr_common.types import Query
from vmr_train.content_words import CONTENT, content_scores

MOST_WORDS = 40
"""Content words of a sentence that are paired, the first ones: pairs grow as their square."""


@dataclass(frozen=True)
class Seen:
    """The sentence of a query as training knows it.

    Attributes:
        rarest: Number of training sentences with its rarest content word.
        together: Whether every two of its content words stand together in some training sentence.
        held_out: Whether the data set says that training never shows what it describes; None where it says nothing.
    """

    rarest: int
    together: bool
    held_out: bool | None = None


def seen_in_training(
    queries: Sequence[Query], training: Sequence[Query], held_out: Collection[str] | None = None
) -> dict[str, Seen]:
    """The knowledge that training has of each query, by query id; sentences without a content word are left out.

    Args:
        queries: Of the test split.
        training: The training queries.
        held_out: Ids of queries that describe what training never shows, where the data set names them.
    """
    words = {query.id: _content(query.text) for query in queries}
    new = {pair for found in words.values() for pair in _pairs(found)}
    counts: Counter[str] = Counter()
    for query in training:
        found = _content(query.text)
        counts.update(found)
        new.difference_update(_pairs(found))
    return {
        name: Seen(
            rarest=min(counts[word] for word in found),
            together=new.isdisjoint(_pairs(found)),
            held_out=None if held_out is None else name in held_out,
        )
        for name, found in words.items()
        if found
    }


def _content(text: str) -> list[str]:
    """The different content words of a sentence, lower case, sorted."""
    tokens = [token.lower() for token in tokenize(text)]
    scores = content_scores(tokens)
    return sorted({token for token, score in zip(tokens, scores, strict=True) if score == CONTENT})


def _pairs(words: Sequence[str]) -> set[tuple[str, str]]:
    return set(itertools.combinations(words[:MOST_WORDS], 2))
