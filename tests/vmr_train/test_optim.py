"""Optimisers, schedules and the average of the weights."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vmr_common.errors import UserError
from vmr_train.config import OptimConfig, ScheduleConfig, TrainConfig
from vmr_train.optim import CplAdam, WeightAverage, build_optimizer, optimizer_tensors, restore_optimizer
from vmr_train.schedules import learning_rate


def rate(schedule, lr, update, total=1000, per_epoch=100):
    return learning_rate(schedule, lr, update=update, total_updates=total, epoch_updates=per_epoch)


def test_inverse_sqrt_gives_the_measured_learning_rates(shared):
    golden = np.load(shared / "golden/rgn/case_a.npz")
    real = ScheduleConfig(name="inverse-sqrt", warmup_updates=400, warmup_init_lr=1e-7)
    ours = [rate(real, 4e-4, int(n)) for n in golden["opt/schedule_updates"]]
    np.testing.assert_allclose(ours, golden["opt/schedule_lr"], rtol=1e-6)
    used = json.loads((shared / "golden/rgn/case_a.json").read_text())["config"]["optimizer"]
    small = ScheduleConfig(
        name="inverse-sqrt", warmup_updates=used["warmup_updates"], warmup_init_lr=used["warmup_init_lr"]
    )
    ours = [rate(small, used["lr"], n) for n in range(6)]
    np.testing.assert_allclose(ours, golden["opt/lr_used"], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": "constant"}, {0: 1, 999: 1}),
        ({"name": "constant", "warmup_updates": 4}, {0: 0, 1: 0.25, 4: 1, 999: 1}),
        ({"name": "linear"}, {0: 1, 500: 0.5, 1000: 0, 2000: 0}),
        ({"name": "linear", "final_lr": 0.2, "warmup_updates": 200}, {100: 0.5, 200: 1, 600: 0.6, 1000: 0.2}),
        ({"name": "cosine"}, {0: 1, 250: 0.5 + math.sqrt(0.125), 500: 0.5, 1000: 0}),
        ({"name": "step", "step_every": 2}, {0: 1, 199: 1, 200: 0.1, 399: 0.1, 400: 0.01}),
        ({"name": "multistep", "milestones": (1, 4)}, {99: 1, 100: 0.1, 399: 0.1, 400: 0.01}),
    ],
)
def test_schedules_take_their_defining_values(options, expected):
    schedule = ScheduleConfig(**options)
    for update, value in expected.items():
        assert rate(schedule, 1.0, update) == pytest.approx(value, abs=1e-12)


@given(
    st.sampled_from(["constant", "inverse-sqrt", "cosine", "linear", "step", "multistep"]),
    st.integers(1, 50),
    st.integers(0, 5000),
)
def test_no_schedule_exceeds_the_peak_or_goes_below_zero(name, warmup, update):
    schedule = ScheduleConfig(name=name, warmup_updates=warmup, milestones=(2, 3))
    assert 0 <= rate(schedule, 1e-3, update) <= 1e-3 * (1 + 1e-12)


def test_cpl_adam_follows_its_formula_and_leaves_parameters_without_gradient_alone():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(5, 3)) * 1e-7  # so small that where eps is added decides
    start = rng.normal(size=3)
    moved, still = (nn.Parameter(torch.tensor(start)) for _ in range(2))
    optimizer = CplAdam([moved, still], lr=0.01, eps=1e-8, weight_decay=0.1)
    p, m, v = start.copy(), np.zeros(3), np.zeros(3)
    for t, g in enumerate(gradients, 1):
        moved.grad = torch.tensor(g)
        optimizer.step()
        p -= 0.01 * 0.1 * p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p -= 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
    np.testing.assert_allclose(moved.detach(), p, rtol=1e-12)
    assert still.detach().numpy().tobytes() == start.tobytes()


def test_cpl_adam_and_adamw_agree_when_eps_does_not_matter():
    results = []
    for name in ("adamw", "cpl-adam"):
        torch.manual_seed(0)
        model = nn.Linear(4, 2).double()
        optimizer = build_optimizer(model, OptimConfig(optimizer=name, lr=0.1, weight_decay=0.01, eps=0))
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.ones(3, 4).double()).square().sum().backward()
            optimizer.step()
        results.append(model.weight.detach().clone())
    torch.testing.assert_close(*results, rtol=1e-12, atol=0)


def test_parameters_get_the_rate_of_their_longest_prefix():
    text = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    model = nn.ModuleDict({"text": text, "x": nn.Linear(1, 1)})
    config = OptimConfig(lr=1e-3, group_lr={"text": 1e-4, "text.b": 0.0})
    groups = build_optimizer(model, config).param_groups
    scale = {parameter: group["scale"] for group in groups for parameter in group["params"]}
    found = [scale[module.weight] for module in (model["x"], text["a"], text["b"])]
    assert found == pytest.approx([1, 0.1, 0])


def test_a_prefix_that_fits_no_parameter_is_refused_with_those_that_exist():
    with pytest.raises(UserError, match="'fc'; names begin with weight, bias"):
        build_optimizer(nn.Linear(1, 1), OptimConfig(group_lr={"fc": 1e-3}))


@pytest.mark.parametrize("name", ["adamw", "cpl-adam"])
def test_optimizer_state_survives_by_name_in_another_instance(name):
    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()

    config = OptimConfig(optimizer=name, lr=0.1, group_lr={"1": 0.05})
    first, second = (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for _ in range(2))
    optimizers = [build_optimizer(model, config) for model in (first, second)]
    step(first, optimizers[0])
    second.load_state_dict(first.state_dict())
    restore_optimizer(second, optimizers[1], optimizer_tensors(first, optimizers[0]), Path("x.safetensors"))
    for pair in zip((first, second), optimizers, strict=True):
        step(*pair)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_weight_average_is_applied_inside_the_block_only():
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    average = WeightAverage(model, 0.75)
    with torch.no_grad():
        model.weight += 4
    average.update()
    with average.applied():
        torch.testing.assert_close(model.weight.detach(), before + 1)
    torch.testing.assert_close(model.weight.detach(), before + 4)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            TrainConfig,
            {"global_batch": 0},
            "train.global_batch: found 0, expected a whole number, at least 1 and",
        ),
        (
            TrainConfig,
            {"micro_batch": 0},
            "train.micro_batch: found 0, expected a whole number, at least 1 and",
        ),
        (TrainConfig, {"select": "luck"}, "train.select: found luck, expected one of validation, last, test"),
        (TrainConfig, {"precision": "int8"}, "train.precision: found int8, expected one of fp32, bf16, fp16"),
        (OptimConfig, {"lr": float("nan")}, "optim.lr: found nan, expected a number, at least 1e-12"),
        (OptimConfig, {"beta2": 1.0}, r"optim.beta2: found 1.0, expected a number, at least 0 and below 1"),
        (
            ScheduleConfig,
            {"name": "inverse-sqrt"},
            "schedule.warmup_updates: found 0, expected at least 1",
        ),
        (
            ScheduleConfig,
            {"warmup_init_lr": -1e-7},
            "optim.schedule.warmup_init_lr: found -1e-07, expected a number, at least 0",
        ),
        (
            ScheduleConfig,
            {"milestones": (3, 2)},
            r"optim.schedule.milestones: found \[3, 2\], expected numbers that increase",
        ),
    ],
)
def test_an_option_out_of_range_is_refused_by_its_name(kind, options, message):
    with pytest.raises(UserError, match=message):
        kind(**options)
