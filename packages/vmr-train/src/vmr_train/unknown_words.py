"""The words of sentences that a model does not know: one warning names them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container, Iterable

from vmr_common.errors import listed, quoted
from vmr_common.text.tokens import tokenize
from vmr_train.content_words import CONTENT, content_scores

logger = logging.getLogger(__name__)
UNKNOWN = "the model knows no word of it"
"""Why a sentence has no answer."""
NAMED = 5
"""Words that a warning names at the most."""

_KEPT = 1000  # so that memory does not grow with the number of sentences


class UnknownWords:
    """Takes in sentences word by word, and warns of the words that a model does not know.

    Attributes:
        sentences: Sentences taken in.
        answerable: Those with a word that the model knows.
        without: The numbers of the others, from 0 in the order in which they were taken in.

    Example:
        >>> found = UnknownWords()
        >>> found.add(["the", "red", "blob", "."], known={"the", "red"}), found.add(["blobs"], known={"the", "red"})
        (True, False)
        >>> found.text()
        "2 words in 2 of 2 queries are unknown to the model: 'blob', 'blobs'"
    """

    def __init__(self) -> None:
        self.sentences = self.answerable = 0
        self.without: list[int] = []
        self._with_unknown = 0
        self._words: Counter[str] = Counter()

    def add(self, words: Iterable[str], known: Container[str]) -> bool:
        """Takes in the words of one sentence; True if one of them is known. Punctuation alone is no word."""
        words = list(words)
        unknown = {word: 1 for word in words if word not in known and any(map(str.isalnum, word))}
        answerable = any(word in known for word in words)
        if not answerable:
            self.without.append(self.sentences)
        self.sentences += 1
        self.answerable += answerable
        self._with_unknown += bool(unknown)
        for word in unknown:
            if word in self._words or len(self._words) < _KEPT:
                self._words[word] += 1
        return answerable

    def understands(self, text: str) -> bool:
        """False for a sentence of whose content words, which `add` took in, the model knows none.

        Example:
            >>> found = UnknownWords()
            >>> found.add(["a", "dog", "barks"], known={"a", "circle"})
            True
            >>> found.understands("a dog barks"), found.understands("a circle barks")
            (False, True)
        """
        tokens = tokenize(text)
        content = [
            token.lower()
            for token, score in zip(tokens, content_scores(tokens), strict=True)
            if score == CONTENT
        ]
        return not content or any(word not in self._words for word in content)

    def text(self) -> str:
        """The warning, which names the most frequent words; empty where all are known."""
        if not self._words:
            return ""
        named = listed([quoted(word, 60) for word, _ in self._words.most_common()], NAMED)
        if self.sentences == 1:
            return f"unknown to the model: {named}"
        count = f"{len(self._words):,} words" if len(self._words) > 1 else "1 word"
        more = "or more " if len(self._words) == _KEPT else ""
        are = "are" if len(self._words) > 1 else "is"
        where = f"in {self._with_unknown:,} of {self.sentences:,} queries"
        return f"{count} {more}{where} {are} unknown to the model: {named}"

    def warn(self, name: str = "") -> None:
        """Logs the warning if there is one, after the name of the queries."""
        if text := self.text():
            logger.warning("%s%s", f"{name}: " if name else "", text)
