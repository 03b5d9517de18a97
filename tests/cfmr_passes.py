"""CFMR's training step as its released program runs it: all passes of every proposal, all with a graph."""

from types import SimpleNamespace

import torch
from torch import Tensor

from cfmr.layers import key_bias
from cfmr.model import CFMR, Clips, Passes, Words


def every_pass(
    model: CFMR,
    clips: Clips,
    words: Words,
    targets: Tensor,
    *,
    masked: Tensor,
    glance: Tensor,
    progress: Tensor,
) -> SimpleNamespace:
    """The stages of a step by name, one row of clips for each query; `windows` ``(B, M, S)``, `concepts`
    ``(B, N, K, D)``, `states` ``(B, N, W, D)`` and `nll` ``(B, N)`` by kind of pass.
    """
    points, m = clips.features.shape[1], model.config.train_widths
    proposals = model.train_proposals(glance)
    positive, negatives = model.windows(proposals, points), model.negatives(proposals, points, progress)
    windows = torch.cat([positive, negatives], dim=1)
    every = torch.cat([windows, torch.ones_like(windows[:, :1])], dim=1)  # the complete video last
    video = model.video_encoder(model.embed_clips(clips)[:, None], model.video_bias(clips, every))
    embedded, mask = model.embed_words(words), words.mask()
    masked_words = model.masked_words(embedded, masked)
    text = model.text_encoder(embedded[:, None], key_bias(mask))
    concepts = torch.cat([video, text], dim=1)
    kinds = {"positive": m, "left": m, "right": m, "reference": 1, "text": 1}

    def by_kind(values: Tensor) -> dict[str, Tensor]:
        return dict(zip(kinds, values.split(list(kinds.values()), dim=1), strict=True))

    return SimpleNamespace(
        proposals=proposals,
        windows=dict(zip(("positive", "left", "right"), windows.split(m, dim=1), strict=True)),
        concepts=by_kind(concepts),
        states=by_kind(model.reconstruct(masked_words, mask, concepts)),
        nll=by_kind(model.nll(masked_words, mask, targets, concepts)),
        mask=mask[:, :-2],
    )


def compared(values: dict[str, Tensor], numbers: Tensor) -> Passes:
    """The passes that the losses compare, picked out of all of them: of proposal `numbers` ``(B,)``."""
    rows = torch.arange(len(numbers))
    best, left, right = (values[kind][rows, numbers] for kind in ("positive", "left", "right"))
    return Passes(values["text"][:, 0], best, left, right, values["reference"][:, 0])
