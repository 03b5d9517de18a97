"""The contrast between videos, our extension of CFMR's losses: held against a plain form, alone and over processes."""

import contextlib
import dataclasses
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cfmr import losses
from cfmr.config import CorpusConfig, LossConfig
from cfmr.data import Dataset
from cfmr.losses import CorpusRows
from cfmr.model import flat_concepts
from cfmr_toy import make_method
from factories import CLASS_VECTORS, VOCABULARY, features_of, glanced_queries
from processes import PATIENCE_S, launched, ranks
from vmr_common.errors import UserError
from vmr_train.method import Progress
from vmr_train.preprocessing import Preprocessor

ON = LossConfig(corpus=CorpusConfig(weight=1.0, temperature=0.2, proposals=8))
PROGRESS = Progress(update=4, epoch=1, epochs=3)


def make_batch(rows):
    queries = glanced_queries(12)
    # the same words asked of two videos, and twice of one
    texts = {0: "word1 word2", 1: "word1 word2", 4: "word1 zzz word2"}
    queries = [dataclasses.replace(query, text=texts.get(n, query.text)) for n, query in enumerate(queries)]
    words = Preprocessor(VOCABULARY, CLASS_VECTORS)
    return Dataset(queries, features_of(4, rows=18), words, max_words=20, end_token=True, seed=0).batch(
        rows, 1
    )


def gradients(method, rows, weight=1.0):
    """The terms of some queries, and the gradients of their weighted total."""
    method.model.zero_grad()
    terms = method.loss(make_batch(rows), PROGRESS)
    (terms["total"] * weight).backward()
    return terms, {name: p.grad.clone() for name, p in method.model.named_parameters()}


def plain(method, batch):
    """Both terms, pair by pair."""
    model, corpus = method.model, ON.corpus
    searched = model.some_search_proposals(corpus.proposals, PROGRESS.update)
    output = model(
        batch.clips,
        batch.words,
        batch.targets,
        video_of=batch.video_of,
        masked=batch.masked,
        glance=batch.glance,
        progress=torch.tensor(0.5 * (1 / 3) ** 0.5),
        reference=False,
        searched=searched,
    )
    moments = list(zip(searched.centre.tolist(), searched.width.tolist(), strict=True))
    texts = [tuple(w.split()) for w in (q.text.replace("zzz ", "") for q in batch.queries)]
    videos = [query.video for query in batch.queries]
    asked = {video: {t for t, v in zip(texts, videos, strict=True) if v == video} for video in videos}

    def score(one, other):
        return (flat_concepts(one) @ flat_concepts(other) / model.config.concepts / corpus.temperature).item()

    found = {"corpus_video": [], "corpus_text": []}
    for i, query in enumerate(batch.queries):
        text, best = output.concepts.text[i], output.concepts.best[i]
        wrong = [output.concepts.left[i], output.concepts.right[i]]
        for row, video in enumerate(batch.videos):
            if video == query.video:
                glance = batch.glance[i].item()
                beside = [n for n, (centre, width) in enumerate(moments) if abs(glance - centre) > width / 2]
                wrong += [output.searched[row, n] for n in beside]
            elif texts[i] not in asked[video]:
                wrong += list(output.searched[row])
        others = [j for j in range(len(texts)) if texts[i] not in asked[videos[j]]]
        wrong += [proposal for j in others for proposal in output.proposals[j]]
        right = score(text, best)
        for name, logits in (
            ("corpus_video", [score(text, one) for one in wrong]),
            ("corpus_text", [score(best, output.concepts.text[j]) for j in others]),
        ):
            found[name].append(math.log(sum(math.exp(s - right) for s in [right, *logits])))
    return {name: np.mean(values) for name, values in found.items()}


def test_both_terms_are_those_of_the_plain_form():
    method, batch = make_method(loss=ON), make_batch(list(range(12)))
    terms = method.loss(batch, PROGRESS)
    for name, value in plain(method, batch).items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4), name


def test_it_teaches_the_video_branch_too_and_is_off_where_it_has_no_weight():
    method = make_method(loss=ON)
    terms = method.loss(make_batch(list(range(12))), PROGRESS)
    method.model.zero_grad()
    (terms["corpus_video"] + terms["corpus_text"]).backward()
    taught = {
        name.split(".")[0]
        for name, p in method.model.named_parameters()
        if p.grad is not None and p.grad.any()
    }
    assert {"video_encoder", "text_encoder", "frame_projection", "word_projection"} <= taught
    without = make_method().loss(make_batch(list(range(12))), PROGRESS)
    assert set(terms) - set(without) == {"corpus_video", "corpus_text"}
    for name in set(without) - {"total"}:
        torch.testing.assert_close(without[name], terms[name], rtol=1e-5, atol=1e-6)


def test_a_batch_of_one_video_has_no_negatives_of_others():
    key = torch.zeros(2, dtype=torch.int64)
    vectors = torch.eye(2)
    rows = CorpusRows(
        text=vectors,
        best=vectors,
        own=vectors[:, None],
        is_wrong=torch.zeros(2, 1, dtype=torch.bool),
        sentence=key,
        texts=vectors,
        sentences=key,
        videos=key,
        proposals=vectors,
        proposal_videos=key,
    )
    assert all(term.item() == 0 for term in losses.corpus_contrast(rows, ON.corpus).values())


@pytest.mark.parametrize("count", [1, 5, 8, 24, 100])
def test_every_search_proposal_has_its_turn(count):
    model = make_method().model
    every = set(zip(*(side.tolist() for side in vars(model.search_proposals()).values()), strict=True))
    parts = [model.some_search_proposals(count, turn) for turn in range(24)]
    assert all(1 <= len(part.centre) <= count for part in parts)
    assert every == {
        pair for part in parts for pair in zip(part.centre.tolist(), part.width.tolist(), strict=True)
    }


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"temperature": 0.0}, {"proposals": -1}])
def test_numbers_that_cannot_work_are_refused_by_name(wrong):
    with pytest.raises(UserError, match=f"loss.corpus.{next(iter(wrong))}"):
        CorpusConfig(**wrong)


PROGRAM = """
import sys
import torch, torch.distributed as dist
from cfmr_toy import make_method
from test_corpus_contrast import ON, gradients
dist.init_process_group("gloo")
rank = dist.get_rank()
rows = list(range(5)) if rank == 0 else list(range(5, 12))
terms, grads = gradients(make_method(loss=ON), rows, len(rows) / 12)
for grad in grads.values():
    dist.all_reduce(grad)
terms = {name: term.detach() * len(rows) / 12 for name, term in terms.items()}
torch.save({"terms": terms, "grads": grads}, f"{sys.argv[1]}.{rank}")
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.e2e
def test_two_processes_contrast_the_queries_of_both(tmp_path):
    command = [sys.executable, "-c", PROGRAM, tmp_path / "out"]
    paths = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with contextlib.ExitStack() as both:
        for process in [both.enter_context(launched(command, rank | paths)) for rank in ranks(2)]:
            _, errors = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, errors
    parts = [torch.load(f"{tmp_path}/out.{rank}", weights_only=True) for rank in range(2)]
    terms, grads = gradients(make_method(loss=ON), list(range(12)))
    for name in ("corpus_video", "corpus_text", "total"):
        together = sum(part["terms"][name] for part in parts)
        torch.testing.assert_close(together, terms[name].detach(), rtol=1e-4, atol=1e-5, msg=name)
    for part in parts:
        for name, value in grads.items():
            torch.testing.assert_close(part["grads"][name], value, rtol=1e-3, atol=1e-5, msg=name)
