"""Floating-point operations of a computation, counted while it runs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from vmr_train import distributed


@contextlib.contextmanager
def count_flops() -> Iterator[Callable[[], int]]:
    """Counts what runs inside, on all ranks together; call what it yields, on every rank, for the sum so far.

    Two FLOPs per multiplication and addition, of matrix products, convolutions, attention and recurrent layers; norms,
    softmax and the like are left out, as in the published figures. What runs in a graph of torch.compile is not seen.

    Example:
        >>> with count_flops() as counted:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> counted()
        48
    """
    # brings triton, a twentieth of the start of a command
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False, custom_mapping=_further()) as counter:
        yield lambda: sum(distributed.gather(int(counter.get_total_flops())))


def _further() -> dict[Any, Callable[..., int]]:
    """Formulas of fused operators that torch's counter does not know; until 2.6 also of attention on the CPU."""
    operators = torch.ops.aten
    return {
        operators.mkldnn_rnn_layer: _layer_flops,
        operators._cudnn_rnn: _network_flops,
        operators._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    }


def _attention_flops(
    queries: Sequence[int], keys: Sequence[int], values: Sequence[int], *_: Any, **__: Any
) -> int:
    from torch.utils.flop_counter import sdpa_flop_count

    count: int = sdpa_flop_count(queries, keys, values)
    return count


def _layer_flops(
    given: Sequence[int], of_input: Sequence[int], of_state: Sequence[int], *_: Any, **__: Any
) -> int:
    return _network_flops(given, [of_input, of_state])


def _network_flops(given: Sequence[int], weights: Sequence[Sequence[int]], *_: Any, **__: Any) -> int:
    """FLOPs of all weight matrices at all places: `given` is ``(..., width)``, biases have one dimension."""
    return 2 * math.prod(given[:-1]) * sum(math.prod(shape) for shape in weights if len(shape) > 1)
