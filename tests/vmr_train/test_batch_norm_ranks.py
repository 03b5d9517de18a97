"""Batch normalisation over several processes: two halves of a batch are normalised as the whole."""

import contextlib
import sys

import numpy as np
import pytest
import torch

from processes import PATIENCE_S, launched, ranks
from vmr_train.layers.batch_norm import BatchNorm

pytestmark = pytest.mark.e2e

PROGRAM = """
import sys
import numpy as np, torch, torch.distributed as dist
from vmr_train.layers.batch_norm import BatchNorm
dist.init_process_group("gloo")
given, rank = np.load(sys.argv[1]), dist.get_rank()
part = slice(0, 5) if rank == 0 else slice(5, 12)
rows = torch.from_numpy(given["rows"][part]).requires_grad_()
norm = BatchNorm(3)
found = norm(rows, zeros=2 if rank == 0 else 4)
(found * torch.from_numpy(given["weight"][part])).sum().backward()
for parameter in norm.parameters():
    dist.all_reduce(parameter.grad)
np.savez(f"{sys.argv[2]}.{rank}.npz", found=found.detach(), grad=rows.grad, weight=norm.weight.grad,
         bias=norm.bias.grad, mean=norm.running_mean, var=norm.running_var)
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_share_statistics_forward_and_backward(tmp_path):
    rng = np.random.default_rng(0)
    rows, weight = (rng.normal(2.0, 3.0, size=(12, 3)).astype(np.float32) for _ in range(2))
    np.savez(tmp_path / "given.npz", rows=rows, weight=weight)
    command = [sys.executable, "-c", PROGRAM, tmp_path / "given.npz", tmp_path / "out"]
    with contextlib.ExitStack() as both:
        for process in [both.enter_context(launched(command, rank)) for rank in ranks(2)]:
            _, errors = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, errors
    parts = [dict(np.load(f"{tmp_path}/out.{rank}.npz")) for rank in range(2)]

    whole, norm = torch.from_numpy(rows).requires_grad_(), BatchNorm(3)
    found = norm(whole, zeros=6)
    (found * torch.from_numpy(weight)).sum().backward()
    together = {name: np.concatenate([part[name] for part in parts]) for name in ("found", "grad")}
    np.testing.assert_allclose(together["found"], found.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(together["grad"], whole.grad, rtol=1e-4, atol=1e-5)
    wanted = {
        "weight": norm.weight.grad,
        "bias": norm.bias.grad,
        "mean": norm.running_mean,
        "var": norm.running_var,
    }
    for part in parts:
        for name, value in wanted.items():
            np.testing.assert_allclose(part[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
