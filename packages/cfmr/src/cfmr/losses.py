"""CFMR's objective, its terms named as in the paper's overview figure: L_rec + L_cma + L_conc + L_pcl.

Shapes: B queries, M proposals of each, K concepts, D model width. v are the concepts of a proposal, q those of the
query, left and right the negatives; a star marks the best proposal of a query, which reconstructs it with the smallest
NLL, and ``<.>`` is the mean over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cfmr.config import CorpusConfig, LossConfig
from cfmr.model import Passes, unit_concepts


@dataclass(frozen=True)
class CorpusRows:
    """Rows of the contrast between videos: vectors ``(..., S)`` whose inner product is the mean of K cosines.

    Of B queries: `text`, `best` (the best proposal) and `own`, ``(B, E, S)``, moments of their own videos that do not
    hold their glances, where `is_wrong` ``(B, E)`` bool is True. Of N queries on all processes: `texts`. Of R proposals
    on all processes: `proposals`. Keys, int64, are equal for equal sentences and videos.
    """

    text: Tensor
    best: Tensor
    own: Tensor
    is_wrong: Tensor
    sentence: Tensor
    texts: Tensor
    sentences: Tensor
    videos: Tensor
    proposals: Tensor
    proposal_videos: Tensor


def total(
    concepts: Passes,
    proposals: Tensor,
    nll: Passes,
    config: LossConfig,
    corpus: CorpusRows | None = None,
) -> dict[str, Tensor]:
    """All weighted terms by name (scalars, batch means) and their plain sum ``total``.

    Args:
        concepts: ``(B, K, D)`` of every pass that is compared.
        proposals: ``(B, M, K, D)`` concepts of all proposals.
        nll: ``(B,)`` of every pass, how badly the query is reconstructed from it.
        config: Weights and margins.
        corpus: What the contrast between videos compares, where there is one.
    """
    terms = (
        reconstruction(nll, config)
        | alignment(concepts, config)
        | diversity(concepts.text, proposals)
        | contrast(nll, config)
        | ({} if corpus is None else corpus_contrast(corpus, config.corpus))
    )
    return {**terms, "total": torch.stack(list(terms.values())).sum()}


def reconstruction(nll: Passes, config: LossConfig) -> dict[str, Tensor]:
    """Reconstruction L_rec from the query's concepts and the best proposal's: ``alpha_2 <nll> + alpha_1 <nll*>``."""
    return {
        "reconstruction_text": config.alpha_2 * nll.text.mean(),
        "reconstruction_video": config.alpha_1 * nll.best.mean(),
    }


def alignment(concepts: Passes, config: LossConfig) -> dict[str, Tensor]:
    """Cross-modal alignment L_cma: pulls text concepts towards the best proposal and pushes them from the negatives.

    ``<(v* - q)^2> + <sum_k max(0, cos_k(left*, q) - cos_k(v*, q) + margin_4)>``, the same for right, and with margin_3
    for the complete video. The video's side is a fixed target: these terms train the text branch alone.
    """
    text, best = concepts.text.float(), concepts.best.detach().float()  # (B, K, D)
    similarity = F.cosine_similarity(best, text, dim=-1)  # (B, K)

    def hinge(other: Tensor, margin: float) -> Tensor:
        other = other.detach().float()
        return F.relu(F.cosine_similarity(other, text, dim=-1) - similarity + margin).sum(-1).mean()

    terms = {
        "alignment_distance": ((best - text) ** 2).mean(),
        "alignment_left": hinge(concepts.left, config.margin_4),
        "alignment_right": hinge(concepts.right, config.margin_4),
    }
    if config.reference_alignment:
        assert concepts.reference is not None
        terms["alignment_reference"] = hinge(concepts.reference, config.margin_3)
    return terms


def diversity(text: Tensor, proposals: Tensor) -> dict[str, Tensor]:
    """Concept diversity L_conc: the K concepts of every proposal, and of the query, should be orthogonal."""
    return {
        "diversity_video": gram_penalty(unit_concepts(proposals)).mean(),
        "diversity_text": gram_penalty(unit_concepts(text)).mean(),
    }


def gram_penalty(rows: Tensor) -> Tensor:
    """``||I - A A^T||_F^2`` of matrices A ``(..., K, D)`` of K unit vectors, ``(...)``."""
    identity = torch.eye(rows.shape[-2], device=rows.device)
    return ((identity - rows @ rows.transpose(-2, -1)) ** 2).sum((-2, -1))


def contrast(nll: Passes, config: LossConfig) -> dict[str, Tensor]:
    """Point-guided contrast L_pcl: the best proposal must reconstruct the query better than its negatives, by a margin.

    ``alpha_1 <max(0, nll* - nll(left*) + margin_2)>``, the same for right, and with margin_1 for the complete video.
    """
    terms = {
        "contrast_left": F.relu(nll.best - nll.left + config.margin_2).mean(),
        "contrast_right": F.relu(nll.best - nll.right + config.margin_2).mean(),
    }
    if config.reference_contrast:
        assert nll.reference is not None
        terms["contrast_reference"] = F.relu(nll.best - nll.reference + config.margin_1).mean()
    return {name: config.alpha_1 * term for name, term in terms.items()}


def corpus_contrast(rows: CorpusRows, config: CorpusConfig) -> dict[str, Tensor]:
    """Contrast between videos, our extension: a query and its best proposal should find each other among all others.

    ``-log(e^s(q, v*) / (e^s(q, v*) + sum_n e^s(q, v_n)))`` over the proposals of other videos and the wrong ones of its
    own, and the same from v* over the other sentences; s is the mean of the K cosines over the temperature. Neither the
    proposals of a video that is asked for by the same sentence are negatives, nor what else such a video is asked for.
    Unlike in `alignment` both sides learn.
    """
    right = (rows.text * rows.best).sum(-1, keepdim=True)  # (B, 1)
    of_other = rows.text @ rows.proposals.T  # (B, R)
    of_own = (rows.own @ rows.text[..., None])[..., 0]  # (B, E)
    of_text = rows.best @ rows.texts.T  # (B, N)

    asked = rows.sentence[:, None] == rows.sentences  # (B, N)
    same_video = rows.videos[:, None] == rows.proposal_videos  # (N, R)
    satisfied = asked.float() @ same_video.float() > 0  # (B, R): its video has this sentence
    siblings = asked.float() @ (rows.videos[:, None] == rows.videos).float() > 0  # (B, N)

    def term(wrong: list[Tensor]) -> Tensor:
        logits = torch.cat([right, *wrong], dim=1).float() / config.temperature
        return config.weight * F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))

    hidden = float("-inf")
    return {
        "corpus_video": term(
            [of_other.masked_fill(satisfied, hidden), of_own.masked_fill(~rows.is_wrong, hidden)]
        ),
        "corpus_text": term([of_text.masked_fill(siblings, hidden)]),
    }
