"""The padding that a pair reads of another one in the released model, without padding anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class ReleasedPaddingMask:
    """All pairs of an evaluation batch in the released order: query by query, each with all windows of its video.

    The words of `model.released_words` follow from the lengths alone, so that windows of one length can go together
    here too.

    Args:
        windows: Per query, ``(M, 2)`` first row and length of the windows of its video.
        words: Per query, its number of words.
        heads: Attention heads H.
        device: Of the masks.
    """

    def __init__(
        self, windows: Sequence[NDArray[np.int64]], words: Sequence[int], heads: int, device: torch.device
    ) -> None:
        counts = [len(one) for one in windows]
        self.first: list[int] = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int).tolist()
        self._frames = torch.from_numpy(np.concatenate([one[:, 1] for one in windows])).to(device)
        self._words = torch.from_numpy(np.repeat(words, counts)).to(device)
        self._heads = heads

    def words_of(self, first: int, numbers: NDArray[np.int64], windows: NDArray[np.int64]) -> Tensor:
        """Words that each frame of some windows of one query may attend to, ``(1, M, V, H, T)`` bool.

        Args:
            first: Number of the query's first pair.
            numbers: ``(M,)`` window numbers, all of one length V.
            windows: All windows of the query's video.
        """
        device = self._frames.device
        pair = first + torch.from_numpy(numbers).to(device)
        heads = torch.arange(self._heads, device=device)
        other = (pair[:, None] * self._heads + heads) % len(self._frames)  # (M, H)
        frame = torch.arange(int(windows[numbers[0], 1]), device=device)
        word = torch.arange(int(self._words[first]), device=device)
        padded_frame = frame[:, None] >= self._frames[other][:, None]  # (M, V, H)
        padded_word = word >= self._words[other][..., None]  # (M, H, T)
        return ~(padded_frame[..., None] & padded_word[:, None])[None]
