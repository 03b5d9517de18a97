"""Queries as known words with masking probabilities, and the draw of the words to hide.

The point-supervised methods (CPL, RGN, CFMR) learn by telling a partly hidden query from the video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmr_common.rng import rng_for
from vmr_common.text.vectors import Vocabulary


@dataclass(frozen=True, eq=False)
class MaskableWords:
    """The words of a query that the vocabulary knows.

    Attributes:
        ids: ``(l,)`` int64 vocabulary ids, from 1; l may be 0.
        weights: ``(l,)`` float32 probability of being hidden, summing to 1.
    """

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


def known_words(
    tokens: Sequence[str], scores: Sequence[int], vocabulary: Vocabulary, max_words: int
) -> MaskableWords:
    """Keeps the tokens that the vocabulary knows (lower-cased), at most the first `max_words`.

    The weights are a softmax over the kept tokens' scores (2 for content words, 1 for function words).

    Example:
        >>> words = known_words(["The", "zzz", "door"], [1, 2, 2], Vocabulary(("door", "the")), 20)
        >>> words.ids.tolist(), [f"{weight:.3f}" for weight in words.weights]
        ([2, 1], ['0.269', '0.731'])
    """
    numbered = [(vocabulary.id(token.lower()), score) for token, score in zip(tokens, scores, strict=True)]
    kept = [(number, score) for number, score in numbered if number][:max_words]
    weights = np.exp(np.array([score for _, score in kept], dtype=np.float32))
    return MaskableWords(
        np.array([number for number, _ in kept], dtype=np.int64),
        weights / max(weights.sum(), np.float32(1e-30)),
    )


def draw_mask(words: MaskableWords, *key: object) -> NDArray[np.bool_]:
    """Which of the l words are hidden, ``(l,)`` bool: ``max(l // 3, 1)`` of them, drawn without replacement.

    The draw depends on `key` alone, so it is the same in every process, batch and repetition. Taking the
    largest of log-probability plus Gumbel noise has the distribution of drawing one after another.

    Args:
        words: At least one.
        key: What the draw is for, e.g. the seed, the epoch and the query's id.
    """
    noise = rng_for(*key).gumbel(size=len(words))
    count = max(len(words) // 3, 1)
    mask = np.zeros(len(words), dtype=np.bool_)
    mask[np.argsort(-(np.log(words.weights.astype(np.float64)) + noise))[:count]] = True
    return mask
