"""The sparse 2D proposal map and its fusion with the sentence (2D-TAN, sections 3.2 and 3.3).

A map is kept as *rows*, one for each valid cell in row-major order: tensors ``(P, B, C)``, cells first, so that a
cell is looked up by copying one block. Shapes: N clips, P valid cells, B videos or queries, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leorn.config import proposal_lengths


# Same as cdn.proposal_map.valid_cells
def valid_cells(clips: int, scales: Sequence[int]) -> Tensor:
    """The cells of an N x N map that are proposals, ``(N, N)`` bool.

    Raises:
        UserError: see `proposal_lengths`.

    Example:
        >>> int(valid_cells(16, [16]).sum()), int(valid_cells(128, [16, 8, 8, 8]).sum())
        (136, 2548)
    """
    cells = np.zeros((clips, clips), dtype=np.bool_)
    for offset, stride in proposal_lengths(clips, scales):
        starts = np.arange(0, clips - offset, stride)
        cells[starts, starts + offset] = True
    return torch.from_numpy(cells)


# Same as cdn.proposal_map.ProposalMap
class ProposalMap(nn.Module):
    """The valid cells of a map, and their rows from clips and from full maps.

    Its tensors are constants: they follow the model to its device and stay out of its state dict.

    Args:
        cells: ``(N, N)`` bool, upper triangle (see `valid_cells`).

    Attributes:
        cells: The same.
        index: ``(P,)`` int64 flat index of each row's cell.
    """

    cells: Tensor
    index: Tensor
    _left: Tensor
    _right: Tensor

    def __init__(self, cells: Tensor) -> None:
        super().__init__()
        found = cells.cpu().numpy()
        starts, ends = np.nonzero(found)
        if (starts > ends).any():
            raise ValueError("a proposal cannot end before it starts")
        clips = len(found)
        self.clips, self.size = clips, len(starts)
        # a window of w clips is the union of two windows of 2 ** k <= w clips: at its start and at its end
        level = np.floor(np.log2(ends - starts + 1)).astype(np.int64) if len(starts) else starts
        self.levels = int(level.max()) + 1 if len(starts) else 1
        self.register_buffer("cells", torch.from_numpy(found.copy()), persistent=False)
        for name, values in (
            ("index", starts * clips + ends),
            ("_left", level * clips + starts),
            ("_right", level * clips + ends + 1 - 2**level),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def max_pool(self, clips: Tensor) -> Tensor:
        """The maximum over each proposal's clips, exact: ``(N, B, C)`` to rows ``(P, B, C)``."""
        levels = [clips]
        for level in range(self.levels - 1):
            last, half = levels[-1], 2**level
            # windows that would reach past the last clip are never read
            levels.append(torch.cat([torch.maximum(last[:-half], last[half:]), last[-half:]]))
        table = torch.cat(levels)  # (levels * N, B, C)
        return torch.maximum(table.index_select(0, self._left), table.index_select(0, self._right))

    def gather(self, full: Tensor) -> Tensor:
        """Full maps ``(B, ..., N, N)`` as rows ``(P, B, ...)``."""
        return full.flatten(-2).movedim(-1, 0).index_select(0, self.index)


# Same as cdn.proposal_map.MapFusion
class MapFusion(nn.Module):
    """``normalise((W_t q) * (W_v m))`` per valid cell: Hadamard product and L2 norm (2D-TAN, section 3.3)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.text = nn.Linear(dim, dim)
        self.video = nn.Linear(dim, dim)

    def project(self, rows: Tensor) -> Tensor:
        """The video's side W_v m of rows ``(P, V, C)``, which no query changes."""
        return self.video(rows)

    def forward(self, projected: Tensor, sentence: Tensor) -> Tensor:
        """Rows ``(P, B, C)`` of unit length (float32) from projected rows ``(P, B, C)`` and sentences q ``(B, C)``."""
        return F.normalize(projected.float() * self.text(sentence).float(), dim=-1, eps=1e-12)
