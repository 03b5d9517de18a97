"""Words and their vectors as checkpoints keep them."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.schema import conform
from vmr_train.checkpoint import Checkpoint, require_finite

WIDTH = 65_536
"""Columns of a word vector at the most."""


class WordsState(TypedDict):
    """What tasks with words keep in the JSON part of a checkpoint; their vectors are the tensor `word_vectors`."""

    words: list[str]


def stored_words(checkpoint: Checkpoint, rows_before: int = 0) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """The words of a checkpoint and their vectors ``(rows_before + W, E)`` float32.

    Args:
        checkpoint: Of a task with words.
        rows_before: Vectors that belong to no word, the first ones.

    Raises:
        UserError: if it holds no words, a word twice, or not one vector of finite numbers for each.
    """
    words = conform(checkpoint.state, WordsState, f"{checkpoint.path}: state")["words"]
    vectors = checkpoint.state_tensors.get("word_vectors")
    if vectors is None:
        raise UserError(f"{checkpoint.path}: holds {len(words):,} words, but no tensor state.word_vectors")
    found, rows = tuple(vectors.shape), rows_before + len(words)
    fits = len(found) == 2 and found[0] == rows and 1 <= found[1] <= WIDTH and vectors.is_floating_point()
    if not fits or vectors.dtype.itemsize != 4:
        raise UserError(
            f"{checkpoint.path}: state.word_vectors: found {str(vectors.dtype).removeprefix('torch.')} {found}, "
            f"expected one float32 vector for each of {len(words):,} words, {rows:,} rows"
        )
    if len(set(words)) < len(words):
        raise UserError(f"{checkpoint.path}: state: key words holds a word twice")
    require_finite({"word_vectors": vectors}, checkpoint.path, "tensor")
    return tuple(words), vectors.numpy()
