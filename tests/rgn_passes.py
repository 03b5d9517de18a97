"""RGN's training step as its released program runs it: all passes of every candidate, all with a graph."""

from types import SimpleNamespace

import torch
from torch import Tensor

from rgn.model import RGN, Compared, Inputs


def every_pass(
    model: RGN, inputs: Inputs, targets: Tensor, glance: Tensor, progress: Tensor
) -> SimpleNamespace:
    """The stages of a step by name; `states` ``(B, S, L, D)`` and `nll` ``(B, S)`` by kind of pass."""
    embedded = model.embed(inputs)
    proposals = model.propose(embedded)
    width = model.reglance_width(embedded)
    reglance = model.window(glance, width, embedded)
    left, right = model.negatives(proposals, progress)
    last = torch.stack([reglance, torch.ones_like(reglance)], dim=1)
    windows = torch.cat([proposals.window, left, right, last], dim=1)
    arguments = (embedded, inputs.masked)
    k = model.config.candidates
    kinds = {"candidates": k, "left": k, "right": k, "reglance": 1, "complete": 1}
    states = model.reconstruct(*arguments, windows).split(list(kinds.values()), dim=1)
    nll = model.nll(*arguments, targets, windows).split(list(kinds.values()), dim=1)
    return SimpleNamespace(
        embedded=embedded,
        proposals=proposals,
        reglance_width=width,
        reglance=reglance,
        left=left,
        right=right,
        states=dict(zip(kinds, states, strict=True)),
        nll=dict(zip(kinds, nll, strict=True)),
    )


def compared(run: SimpleNamespace) -> Compared:
    """The passes that the losses compare, picked out of all of them."""
    best, numbers = run.nll["candidates"].min(dim=1)
    left, right = (run.nll[side].gather(1, numbers[:, None])[:, 0] for side in ("left", "right"))
    return Compared(run.reglance, best, left, right, run.nll["reglance"][:, 0], run.nll["complete"][:, 0])
