"""Random draws that depend on what they are for, and on nothing else."""

from __future__ import annotations

import hashlib

import numpy as np


def rng_for(*key: object) -> np.random.Generator:
    """A generator that is the same in every process, batch and repetition.

    Args:
        key: What the draws are for, e.g. the seed, the epoch and the query's id.

    Example:
        >>> rng_for(0, 1, "q").random() == rng_for(0, 1, "q").random()
        True
    """
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
