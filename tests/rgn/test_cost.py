"""Multiplications and additions of RGN at the size of Charades-STA, counted by torch."""

import pytest
import torch

from factories import flops
from rgn import losses
from rgn.config import LossConfig, ModelConfig
from rgn.model import RGN, Inputs

pytestmark = pytest.mark.parity

BATCH, CLIPS, CLIP_DIM, WORDS, WORD_DIM, CLASSES = 2, 200, 1024, 12, 300, 1112


def giga_flops_per_query(*, training: bool) -> float:
    # tensors without memory: the products are counted, not computed
    with torch.device("meta"):
        model = RGN(ModelConfig(), clip_dim=CLIP_DIM, word_dim=WORD_DIM, classes=CLASSES).train(training)
        inputs = Inputs(
            clips=torch.empty(BATCH, CLIPS, CLIP_DIM),
            clips_len=torch.full((BATCH,), CLIPS),
            words=torch.empty(BATCH, WORDS + 1, WORD_DIM),
            words_len=torch.full((BATCH,), WORDS),
            masked=torch.zeros(BATCH, WORDS + 1, dtype=torch.bool),
        )
        glance = torch.empty(BATCH)
        supervision = (glance, torch.empty(())) if training else ()
        targets = torch.ones(BATCH, WORDS, dtype=torch.int64)

    def run() -> None:
        output = model(inputs, targets, *supervision)
        if training:
            losses.total(output.proposals, output.compared, glance, LossConfig())["total"].backward()

    with torch.set_grad_enabled(training):
        return flops(run) / BATCH / 1e9


@pytest.mark.parametrize(("training", "most"), [(True, 10.2), (False, 2.75)], ids=["training", "inference"])
def test_a_query_costs_no_more_than_the_fused_forms_need(training, most):
    assert 0.9 * most < giga_flops_per_query(training=training) <= most
