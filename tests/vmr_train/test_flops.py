"""FLOPs are counted as the formulas of the layers say, fused ones too."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from factories import flops
from vmr_train.flops import count_flops

BATCH, PLACES, WIDTH, HIDDEN = 3, 6, 5, 7


def test_products_convolutions_and_attention_are_counted():
    x = torch.rand(BATCH, PLACES, WIDTH)
    assert flops(lambda: nn.Linear(WIDTH, HIDDEN)(x)) == 2 * BATCH * PLACES * WIDTH * HIDDEN
    convolution = nn.Conv1d(PLACES, HIDDEN, kernel_size=3, padding=1)
    assert flops(lambda: convolution(x)) == 2 * BATCH * WIDTH * PLACES * HIDDEN * 3
    q = torch.rand(BATCH, 2, PLACES, 8)
    attention = nn.functional.scaled_dot_product_attention
    assert flops(lambda: attention(q, q, q)) == 2 * 2 * BATCH * 2 * PLACES * PLACES * 8


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("fused", [True, False])
def test_recurrent_layers_are_counted_fused_or_not_padded_or_packed(kind, fused):
    network = kind(WIDTH, HIDDEN, 2, batch_first=True, bidirectional=True).eval()
    per_place = 2 * sum(weight.numel() for weight in network.parameters() if weight.dim() > 1)
    padded = torch.rand(BATCH, PLACES, WIDTH)
    packed = pack_padded_sequence(padded, torch.tensor([6, 4, 2]), batch_first=True)
    with torch.backends.mkldnn.flags(enabled=fused):
        assert flops(lambda: network(padded)) == per_place * BATCH * PLACES
        assert flops(lambda: network(packed)) == per_place * 12


def test_counting_changes_no_result():
    network, x = nn.Linear(WIDTH, HIDDEN), torch.rand(BATCH, WIDTH)
    plain = network(x)
    with count_flops():
        counted = network(x)
    torch.testing.assert_close(counted, plain, rtol=0, atol=0)
