"""A linear layer over inputs that stand side by side, without putting them there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F


class FactoredLinear(nn.Linear):
    """``W [a; b; ...] + c`` as a sum of products, one per input; parameters are those of the joined layer.

    Each input may be projected once for many rows that share it, and the joined input is never made.

    Args:
        sizes: Width of each input.
        out: Width of the output.
    """

    def __init__(self, sizes: Sequence[int], out: int) -> None:
        super().__init__(sum(sizes), out)
        bounds = np.cumsum([0, *sizes]).tolist()
        self.columns = [slice(first, last) for first, last in pairwise(bounds)]

    def project(self, number: int, x: Tensor) -> Tensor:
        """The product of one input ``(..., size)``; the first one's holds the bias too."""
        return F.linear(x, self.weight[:, self.columns[number]], self.bias if number == 0 else None)
