"""CFMR at the size of Charades-STA: a call of its own for every kind of pass, a video encoded anew for every query."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cfmr.config import Config
from cfmr.data import Batch, kept_clips
from cfmr.gaussians import negative_progress
from cfmr.layers import sinusoidal_positions
from cfmr.method import CFMRMethod
from cfmr.model import CFMR, Clips, Words
from plain import Pair
from plain.decoder import copies, decode, gaussian, made_words, negative_gaussians, nll
from plain.training import largest_difference, training_pair
from vmr_common.text.vectors import Vocabulary
from vmr_common.types import Query
from vmr_train.cli.config import bundled_config
from vmr_train.method import Progress
from vmr_train.preprocessing import Preprocessor

BATCH, LONGEST, WORD_DIM, CLASSES = 32, 12, 300, 1112
PROGRESS = Progress(update=0, epoch=10, epochs=30)


def configuration() -> Config:
    # `released-torch`: words are padded to the longest query of the batch
    return bundled_config("cfmr", Config, "charades", "--quirks", "released-torch")


def made_batch(config: Config) -> tuple[Batch, Tensor]:
    """A batch, and all pooled clips ``(B, T, F)`` of its videos, of which ours reads the kept ones alone."""
    rng = np.random.default_rng(0)
    lengths, targets, masked = made_words(rng, BATCH, LONGEST, CLASSES, before_and_after=2)
    words = rng.standard_normal((BATCH, LONGEST + 2, WORD_DIM), np.float32)
    words[:, 1:-1][targets == 0] = 0
    every = torch.from_numpy(
        rng.standard_normal((BATCH, config.data.clips, config.data.features.dim), np.float32)
    )
    kept = every[:, torch.from_numpy(kept_clips(config.data.clips))]
    queries = tuple(Query(id=str(n), video=f"v{n}", text="", duration=30.0) for n in range(BATCH))
    return Batch(
        query_ids=tuple(query.id for query in queries),
        queries=queries,
        videos=tuple(query.video for query in queries),
        clips=Clips(kept, torch.ones(kept.shape[:2], dtype=torch.bool)),
        video_of=torch.arange(BATCH),
        words=Words(torch.from_numpy(words), torch.from_numpy(lengths)),
        masked=torch.from_numpy(masked),
        targets=torch.from_numpy(targets),
        glance=torch.from_numpy(rng.uniform(0.1, 0.9, BATCH).astype(np.float32)),
    ), every


class Plain:
    """The stages on the weights of a model."""

    def __init__(self, model: CFMR, batch: Batch, clips: Tensor) -> None:
        self.model, self.batch = model, batch
        count = clips.shape[1]
        # all clips and a learnable vector are projected, a quarter of the clips is read, and the last once more
        appended = torch.cat([clips, clips.new_zeros(BATCH, 1, clips.shape[2])], dim=1)
        projected = model.frame_projection(model.dropout(appended))
        kept = torch.from_numpy(kept_clips(count))
        self.clips = torch.cat([projected[:, kept], projected[:, count - 1 : count]], dim=1)  # (B, S, D)
        start, summary = (
            token.expand(BATCH, 1, -1) for token in (model.start_token, model.text_summary_token)
        )
        words = torch.cat([start, batch.words.vectors[:, 1:-1], summary], dim=1)
        self.words = model.word_projection(model.dropout(words))
        self.words_mask = batch.words.mask()
        places = torch.arange(batch.targets.shape[1])
        self.counts = (places <= batch.words.lengths[:, None]).float()

    def concepts(self, encoder, x: Tensor, mask: Tensor, window: Tensor | None = None) -> Tensor:
        summary = decode(encoder.encoder, x, mask, window)[:, -1]
        return encoder.neck(summary).unflatten(-1, (-1, encoder.concepts)).transpose(-2, -1)

    def video(self, window: Tensor | None, count: int) -> Tensor:
        """Concepts ``(B * count, K, D)``."""
        clips = copies(self.clips, count)
        return self.concepts(
            self.model.video_encoder, clips, torch.ones(clips.shape[:2], dtype=torch.bool), window
        )

    def text(self) -> Tensor:
        return self.concepts(self.model.text_encoder, self.words, self.words_mask)

    def reconstruct(self, concepts: Tensor) -> Tensor:
        """NLL ``(B, passes)``."""
        count = len(concepts) // BATCH
        token = self.model.word_projection(self.model.mask_token)
        words = torch.where(self.batch.masked[..., None], token, self.words)
        words = (words + sinusoidal_positions(*words.shape[1:]))[:, :-2]
        mask = copies(self.words_mask[:, :-2], count)
        states = decode(self.model.reconstructor, copies(words, count), mask, memory=concepts)
        logits = self.model.classifier(states)
        each = nll(logits, copies(self.batch.targets, count), copies(self.counts, count))
        return each.view(BATCH, count)


def penalty(concepts: Tensor) -> Tensor:
    unit = F.normalize(concepts, dim=-1, eps=1e-6)
    return ((torch.eye(unit.shape[1]) - torch.bmm(unit, unit.transpose(1, 2))) ** 2).sum((1, 2)).mean()


def loss(model: CFMR, batch: Batch, clips: Tensor, config) -> Tensor:
    plain, sizes = Plain(model, batch, clips), model.config
    m = sizes.train_widths
    centre = copies(batch.glance, m)
    width = (torch.arange(1, m + 1) * (sizes.train_widest / m)).repeat(BATCH)
    points = plain.clips.shape[1] - 1
    window = F.pad(gaussian(torch.linspace(0, 1, points), centre, width / sizes.sigma), (0, 1))
    progress = negative_progress(PROGRESS.epoch, PROGRESS.epochs, sizes.gamma)
    left, right = negative_gaussians(torch.linspace(0, 1, points + 1), centre, width, sizes.sigma, progress)
    text = plain.text()
    positive, by_left, by_right = (plain.video(one, m) for one in (window, left, right))
    reference = plain.video(None, 1)  # encoded and reconstructed from, whether a term reads it or not
    of_text, of_positive, of_left, of_right, _ = map(
        plain.reconstruct, (text, positive, by_left, by_right, reference)
    )

    smallest, best = of_positive.min(dim=1)
    rows = torch.arange(BATCH)
    found, on_left, on_right = (
        each.detach().view(BATCH, m, *text.shape[1:])[rows, best] for each in (positive, by_left, by_right)
    )
    similarity = F.cosine_similarity(found, text, dim=-1)
    alignment = ((found - text) ** 2).mean()
    contrast = 0.0
    for negative, of_negative in ((on_left, of_left), (on_right, of_right)):
        other = F.cosine_similarity(negative, text, dim=-1)
        alignment = alignment + (other - similarity + config.margin_4).clamp_min(0).sum(-1).mean()
        contrast = contrast + (smallest - of_negative[rows, best] + config.margin_2).clamp_min(0).mean()
    reconstruction = config.alpha_2 * of_text.mean() + config.alpha_1 * smallest.mean()
    return reconstruction + alignment + penalty(positive) + penalty(text) + config.alpha_1 * contrast


def build() -> tuple[Config, CFMR, Batch, Tensor, Preprocessor]:
    config = configuration()
    torch.manual_seed(0)
    model = CFMR(
        config.model,
        clip_dim=config.data.features.dim,
        word_dim=WORD_DIM,
        classes=CLASSES,
        learned_summary=False,
    )
    known = Vocabulary(tuple(f"word{n}" for n in range(1, CLASSES)))
    preprocessor = Preprocessor(known, np.zeros((CLASSES, WORD_DIM), np.float32))
    return config, model, *made_batch(config), preprocessor


def train() -> Pair:
    config, model, batch, clips, preprocessor = build()

    def ours(network):
        return CFMRMethod(network, config.loss, preprocessor).loss(batch, PROGRESS)["total"]

    plain = functools.partial(loss, batch=batch, clips=clips, config=config.loss)
    return training_pair(model, config.optim, ours, plain)


def infer() -> Pair:
    """Videos and queries cold: no video has been encoded before, and none has two queries."""
    config, model, batch, clips, preprocessor = build()
    model.eval()

    @torch.no_grad()
    def ours():
        return CFMRMethod(model, config.loss, preprocessor).predict(batch)

    @torch.no_grad()
    def plain():
        stages, proposals = Plain(model, batch, clips), model.search_proposals()
        count = len(proposals.centre)
        grid = torch.linspace(0, 1, stages.clips.shape[1] - 1)
        window = gaussian(grid, proposals.centre, proposals.width.clamp_min(0.01) / model.config.sigma)
        video = stages.video(F.pad(window, (0, 1)).repeat(BATCH, 1), count)
        text = copies(stages.text(), count)
        scores = F.cosine_similarity(video, text, dim=-1).sum(-1).view(BATCH, count)
        return scores.sort(dim=1, descending=True).values

    def difference():
        found = torch.from_numpy(np.stack([one.scores for one in ours()]))
        return largest_difference([found], [plain().double()])

    return Pair(ours, plain, difference)
