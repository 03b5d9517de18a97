"""RGN at the size of Charades-STA: every kind of pass is a call of its own, for every candidate, all with a graph."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from plain import Pair
from plain.decoder import copies, decode, gaussian, made_words, negative_gaussians, nll
from plain.training import largest_difference, training_pair
from rgn.config import Config
from rgn.data import Batch
from rgn.gaussians import negative_progress
from rgn.layers import sinusoidal_positions
from rgn.method import RGNMethod, rank
from rgn.model import RGN, Inputs, Proposals, grid_indices
from vmr_common.text.vectors import Vocabulary
from vmr_common.types import Query
from vmr_train.cli.config import bundled_config
from vmr_train.method import Progress
from vmr_train.preprocessing import Preprocessor

BATCH, WORDS, WORD_DIM, CLASSES = 32, 12, 300, 1112
PROGRESS = Progress(update=0, epoch=10, epochs=30)


def configuration() -> Config:
    return bundled_config("rgn", Config, "charades")


def made_batch(clips: int, clip_dim: int) -> Batch:
    rng = np.random.default_rng(0)
    lengths, targets, masked = made_words(rng, BATCH, WORDS, CLASSES, before_and_after=1)
    words = rng.standard_normal((BATCH, WORDS + 1, WORD_DIM), np.float32)
    words[:, 1:][targets == 0] = 0
    queries = tuple(Query(id=str(n), video=f"v{n}", text="", duration=30.0) for n in range(BATCH))
    return Batch(
        query_ids=tuple(query.id for query in queries),
        queries=queries,
        inputs=Inputs(
            clips=torch.from_numpy(rng.standard_normal((BATCH, clips, clip_dim), np.float32)),
            clips_len=torch.full((BATCH,), clips),
            words=torch.from_numpy(words),
            words_len=torch.from_numpy(lengths),
            masked=torch.from_numpy(masked),
        ),
        targets=torch.from_numpy(targets),
        glance=torch.from_numpy(rng.uniform(0.1, 0.9, BATCH).astype(np.float32)),
    )


class Plain:
    """The stages on the weights of a model; `words` and `clips` are read by all of them."""

    def __init__(self, model: RGN, batch: Batch) -> None:
        self.model, self.batch, inputs = model, batch, batch.inputs
        self.k, self.sigma = model.config.candidates, model.config.sigma
        token = model.prediction_token.expand(BATCH, 1, -1)
        self.clips = model.frame_projection(model.dropout(torch.cat([inputs.clips, token], dim=1)))
        start = model.start_token.expand(BATCH, 1, -1)
        self.words = model.word_projection(model.dropout(torch.cat([start, inputs.words[:, 1:]], dim=1)))
        self.clips_mask = torch.arange(self.clips.shape[1]) < inputs.clips_len[:, None] + 1
        self.words_mask = torch.arange(self.words.shape[1]) < inputs.words_len[:, None] + 1
        self.positions = sinusoidal_positions(*self.words.shape[1:])
        self.counts = self.words_mask[:, :-1].float()
        self.keep = grid_indices(inputs.clips.shape[1])
        self.grid = torch.linspace(0, 1, len(self.keep))

    def prediction_state(self, transformer) -> Tensor:
        words = decode(transformer.text, self.words + self.positions, self.words_mask)
        video = decode(
            transformer.video, self.clips, self.clips_mask, memory=words, memory_mask=self.words_mask
        )
        return video[:, -1]

    def propose(self) -> tuple[Tensor, Tensor, Tensor]:
        """Centres and widths ``(B * K,)`` and windows ``(B * K, P)``."""
        pairs = self.model.proposal_head(self.prediction_state(self.model.glance_transformer)).sigmoid()
        centre, width = pairs.reshape(-1, 2).unbind(-1)
        return centre, width, gaussian(self.grid, centre, width.clamp_min(0.01) / self.sigma)

    def caption(self, window: Tensor | None, count: int) -> Tensor:
        """Logits ``(B * count, L, V)``, each query's passes one after another."""
        text, transformer = self.model.caption_transformer.text, self.model.caption_transformer
        mask = copies(self.clips_mask[:, self.keep], count)
        video = decode(transformer.video, copies(self.clips[:, self.keep], count), mask, window)
        token = self.model.word_projection(self.model.mask_token)
        words = torch.where(self.batch.inputs.masked[..., None], token, self.words) + self.positions
        states = decode(
            text,
            copies(words[:, :-1], count),
            copies(self.words_mask[:, :-1], count),
            memory=video,
            memory_mask=mask,
            memory_gaussian=window,
        )
        return self.model.classifier(states)

    def nll(self, logits: Tensor) -> Tensor:
        """``(B, passes)``."""
        count = len(logits) // BATCH
        each = nll(logits, copies(self.batch.targets, count), copies(self.counts, count))
        return each.view(BATCH, count)


def loss(model: RGN, batch: Batch, config) -> Tensor:
    plain = Plain(model, batch)
    k, glance = plain.k, batch.glance
    centre, width, window = plain.propose()
    state = plain.prediction_state(model.caption_transformer)
    reglance_width = model.reglance_head(state).sigmoid()[:, 0]
    reglance = gaussian(plain.grid, glance, reglance_width.clamp_min(0.01) / plain.sigma)
    progress = negative_progress(PROGRESS.epoch, PROGRESS.epochs, model.config.gamma)
    left, right = negative_gaussians(plain.grid, centre, width, plain.sigma, progress)

    candidates = plain.caption(window, k)
    complete, by_reglance = plain.caption(None, 1), plain.caption(reglance, 1)
    by_left, by_right = plain.caption(left, k), plain.caption(right, k)

    # the two terms that read the reconstructions compute them each for itself
    best = plain.nll(candidates).min(dim=1).values
    reference = (1 - config.theta) * plain.nll(by_reglance).mean() + config.theta * plain.nll(complete).mean()
    semantic = config.beta_1 * reference + config.beta_2 * best.mean()

    best, row = plain.nll(candidates).min(dim=1)
    others = [
        (plain.nll(by_reglance)[:, 0], config.margin_1),
        (plain.nll(complete)[:, 0], config.margin_2),
        (plain.nll(by_left).gather(1, row[:, None])[:, 0], config.margin_3),
        (plain.nll(by_right).gather(1, row[:, None])[:, 0], config.margin_3),
    ]
    hinges = sum((best - other + margin).clamp_min(0).mean() for other, margin in others)

    windows = window.view(BATCH, k, -1)
    distance = (centre.view(BATCH, k) - glance[:, None]).abs().mean()
    shape = ((windows - reglance.detach()[:, None]) ** 2).mean()
    scaled = windows / windows.sum(-1, keepdim=True)
    overlap = config.lambda_ * torch.eye(k) - torch.bmm(scaled, scaled.transpose(1, 2))
    diversity = (overlap**2).sum((1, 2)).mean()
    return (
        semantic
        + config.delta_1 * distance
        + config.delta_2 * shape
        + config.alpha_1 * hinges
        + config.alpha_2 * diversity
    )


def build() -> tuple[Config, RGN, Batch, Preprocessor]:
    config = configuration()
    torch.manual_seed(0)
    clip_dim = config.data.features.dim
    model = RGN(config.model, clip_dim=clip_dim, word_dim=WORD_DIM, classes=CLASSES)
    known = Vocabulary(tuple(f"word{n}" for n in range(1, CLASSES)))
    preprocessor = Preprocessor(known, np.zeros((CLASSES, WORD_DIM), np.float32))
    return config, model, made_batch(config.data.clips, clip_dim), preprocessor


def train() -> Pair:
    config, model, batch, preprocessor = build()

    def ours(network):
        return RGNMethod(network, config.loss, preprocessor).loss(batch, PROGRESS)["total"]

    plain = functools.partial(loss, batch=batch, config=config.loss)
    return training_pair(model, config.optim, ours, plain)


def infer() -> Pair:
    config, model, batch, preprocessor = build()
    method = RGNMethod(model.eval(), config.loss, preprocessor)

    @torch.no_grad()
    def ours():
        return method.predict(batch)

    @torch.no_grad()
    def plain():
        stages = Plain(model, batch)
        centre, width, window = stages.propose()
        found = stages.nll(stages.caption(window, stages.k))
        shape = (BATCH, stages.k)
        return rank(Proposals(centre.view(shape), width.view(shape), window), found)

    def difference():
        _, moments, scores = plain()
        found = ours()
        seconds = np.stack([one.moments / 30 for one in found])
        lists = [[seconds, -np.stack([one.scores for one in found])], [moments, scores]]
        return largest_difference(*([torch.from_numpy(one) for one in side] for side in lists))

    return Pair(ours, plain, difference)
