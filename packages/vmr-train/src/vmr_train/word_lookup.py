"""Words between blanks, and their vectors beyond those that a model was trained with."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.text.vectors import WordVectors, glove_rows


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


class WordLookup:
    """Vectors of any words, zeros for unknown ones: those at hand, and those of a file that is read when needed.

    Args:
        known: Vectors at hand.
        path: GloVe text file for further words, or None; where it does not exist, other words stay unknown.
    """

    def __init__(self, known: WordVectors, path: Path | None = None) -> None:
        self.known = known
        self.path = path
        self._further: dict[str, NDArray[np.float32]] = {}
        self._asked: set[str] = set()

    def prepare(self, words: Iterable[str]) -> int:
        """Reads what is missing, in one pass over the file; returns how many words could not be asked for.

        Raises:
            UserError: as `WordVectors.read` for a file that is no GloVe text; if its width is another one.
        """
        missing = {word for word in words if word not in self.known} - self._asked
        if not missing:
            return 0
        if self.path is None or not self.path.is_file():
            return len(missing)
        self._asked |= missing
        for word, vector in glove_rows(self.path, frozenset(missing)):
            if len(vector) != self.known.dim:
                raise UserError(
                    f"{self.path}: vectors of width {len(vector)}, the model was trained with {self.known.dim}"
                )
            self._further.setdefault(word, vector)
        return 0

    def __contains__(self, word: object) -> bool:
        """True for a word with a vector, as far as `prepare` knows."""
        return word in self.known or word in self._further

    def __getitem__(self, words: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of a sentence, ``(len(words), D)`` float32; at least one row, zeros without any word."""
        rows = np.zeros((max(len(words), 1), self.known.dim), dtype=np.float32)
        for row, word in zip(rows, words, strict=False):
            if word in self.known:
                row[:] = self.known[word]
            elif word in self._further:
                row[:] = self._further[word]
        return rows
