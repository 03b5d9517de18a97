"""Words, queries, features and files that nobody recorded, and models with weights worth testing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vmr_common.text.vectors import Vocabulary, WordVectors
from vmr_common.types import Query
from vmr_train.flops import count_flops

NAMES = tuple(f"word{n}" for n in range(30))
VECTORS = np.random.default_rng(0).normal(size=(len(NAMES), 6)).astype(np.float32)
WORDS = WordVectors(NAMES, VECTORS)
VOCABULARY = Vocabulary(NAMES)
CLASS_VECTORS = np.concatenate([np.zeros((1, 6), np.float32), VECTORS])  # class 0 is no word


def features_of(videos: int, rows: int, columns: int = 5) -> dict[str, np.ndarray]:
    """Features ``(rows, columns)`` of the videos v0, v1, ..."""
    return {
        f"v{n}": np.random.default_rng(n).normal(size=(rows, columns)).astype(np.float32)
        for n in range(videos)
    }


def make_queries(told: Callable[[np.random.Generator], dict[str, Any]], count: int) -> list[Query]:
    """Queries of 20 s in turns about the videos v0 to v3; `told` draws what else is known of each."""
    rng = np.random.default_rng(3)
    return [
        Query(
            id=str(n),
            video=f"v{n % 4}",
            text=" ".join(f"word{k}" for k in rng.integers(0, 30, size=rng.integers(1, 9))),
            duration=20.0,
            **told(rng),
        )
        for n in range(count)
    ]


def glanced_queries(count: int = 9) -> list[Query]:
    """Queries with a moment and a glance into it."""
    return make_queries(lambda rng: {"moments": [[2, 8]], "glance": float(rng.uniform(2, 8))}, count)


def timed_queries(count: int = 9) -> list[Query]:
    """Queries with a moment anywhere in the video."""
    return make_queries(lambda rng: {"moments": [np.sort(rng.uniform(0, 20, size=2))]}, count)


def shake(model: nn.Module, by: float) -> None:
    """Moves all weights, so that none is zero or one as it was initialised."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn_like(parameter))


def flops(function: Callable[[], object]) -> int:
    """What a call costs, counted while it runs; on the device "meta" the products are counted and not computed."""
    with count_flops() as counted:
        function()
    return counted()


class Trap:
    """What would make a file at `path` if it were ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return (Path.touch, (Path(self.path),))
