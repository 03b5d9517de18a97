"""Which queries go where: every query once per epoch, whatever the processes, batches and interruptions."""

import itertools
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmr_common.errors import UserError
from vmr_train.loading import Loader
from vmr_train.method import map_tensors
from vmr_train.sampler import Plan, evaluation_batches, order

sizes = st.integers(1, 40)


def plans(size, batch, micro, world):
    return [
        Plan(size=size, global_batch=batch, micro_batch=micro, seed=3, rank=rank, world=world)
        for rank in range(world)
    ]


@given(size=sizes, batch=st.integers(1, 17), micro=st.none() | st.integers(1, 5), world=st.integers(1, 4))
def test_an_epoch_holds_every_query_once_and_weights_sum_to_one(size, batch, micro, world):
    ranks = plans(size, batch, micro, world)
    seen = []
    for position in range(ranks[0].updates):
        shards = [shard for plan in ranks for shard in plan.shards(2, position)]
        assert sum(shard.weight for shard in shards) == pytest.approx(1)
        seen += [i for shard in shards if shard.weight for i in shard.indices]
        assert all(1 <= len(shard.indices) <= (micro or batch) for shard in shards)
    assert sorted(seen) == list(range(size))
    assert seen == order(size, 3, 2).tolist()


@given(size=sizes, batch=st.integers(1, 17), cut=st.integers(0, 60))
def test_requests_after_a_resume_are_the_rest_of_the_uninterrupted_ones(size, batch, cut):
    (plan,) = plans(size, batch, None, 1)
    whole = list(plan.requests(1, 0, 3))
    cut = min(cut, len(whole))
    epoch, position = divmod(cut, plan.updates)
    assert list(plan.requests(epoch + 1, position, 3)) == whole[cut:]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(order(20, seed, epoch)) for seed, epoch in itertools.product(range(3), range(1, 4))}
    assert len(orders) == 9


@given(size=sizes, batch=st.integers(1, 9), world=st.integers(1, 5))
def test_evaluation_deals_out_whole_batches(size, batch, world):
    alone = evaluation_batches(size, batch, 0, 1)
    parts = [evaluation_batches(size, batch, rank, world) for rank in range(world)]
    dealt = [request for turn in itertools.zip_longest(*parts) for request in turn if request is not None]
    assert dealt == alone
    assert [i for indices, _ in alone for i in indices] == list(range(size))


class Numbers:
    def __len__(self):
        return 10

    def batch(self, indices, epoch):
        if 7 in indices:
            raise UserError("features.h5: video 'v7' is missing")
        return {"indices": indices, "epoch": epoch, "x": torch.tensor(indices)}


@pytest.mark.e2e
@pytest.mark.parametrize("workers", [0, 2])
def test_loader_processes_change_neither_the_batches_nor_the_users_error(workers):
    loader = Loader(Numbers(), [((1, 2), 4), ((3,), 4), ((7,), 5)], workers=workers)
    batches = iter(loader)
    assert [next(batches)["indices"] for _ in range(2)] == [(1, 2), (3,)]
    with pytest.raises(UserError) as caught:
        next(batches)
    assert str(caught.value) == "features.h5: video 'v7' is missing"


def test_tensors_are_found_in_nested_batches():
    nested = {"a": (torch.zeros(1), "text"), "b": [torch.ones(1)], "c": 3}
    moved = map_tensors(nested, lambda t: t + 1)
    assert moved == {"a": (torch.ones(1), "text"), "b": [torch.full((1,), 2.0)], "c": 3}


STILL_LOADING = """
import os, signal, subprocess, sys
import torch
from vmr_train.loading import Loader

class Numbers:
    def __len__(self):
        return 10

    def batch(self, indices, epoch):
        return torch.tensor(indices)

loader = Loader(Numbers(), [((number,), 1) for number in range(9)], workers=2)
batches = iter(loader)
next(batches), next(batches)  # one of each process: both have begun
for number in (signal.SIGTERM, signal.SIGINT):  # as a cluster and a terminal send them: to all processes
    for process in torch.multiprocessing.active_children():
        subprocess.run(["kill", f"-{int(number)}", str(process.pid)], check=True)
print([int(next(batches)) for _ in range(7)])
sys.modules["kept"] = [batches, loader]  # until the interpreter has ended
"""


@pytest.mark.e2e
def test_loaders_outlive_the_signals_of_others_and_end_with_their_process():
    ended = subprocess.run([sys.executable, "-c", STILL_LOADING], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "[2, 3, 4, 5, 6, 7, 8]\n"), ended.stderr
