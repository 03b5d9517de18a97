"""The training loop in one process: what it leaves behind, what it selects, what it refuses."""

import importlib.util
import json
import os
import re
import resource
import signal
from dataclasses import replace

import pytest
import torch
from torch._inductor.exc import CppCompileError

import training_toy as toy
from vmr_common.errors import UserError
from vmr_train.checkpoint import load_checkpoint, save_checkpoint
from vmr_train.config import OptimConfig, ScheduleConfig, TrainConfig
from vmr_train.device import seed_everything, select_device
from vmr_train.method import NonFiniteLoss, Progress
from vmr_train.predict import Evaluator
from vmr_train.run_folder import Events, RunFolder
from vmr_train.sampler import Plan
from vmr_train.trainer import Trainer
from vmr_train.weights import load_weights

CPU = torch.device("cpu")
CONFIG = TrainConfig(epochs=3, global_batch=8, log_updates=4, device="cpu")
OPTIM = OptimConfig(lr=0.02)
VALIDATION = toy.ToyExamples(11, seed=2)


def fit(folder, config=CONFIG, optim=OPTIM, *, task=None, train=None, resume=False, **changes):
    seed_everything(config.seed)
    options = {"validation": VALIDATION, "evaluate": toy.ToyScore(VALIDATION), **changes}
    with RunFolder(folder, resume=resume) as run:
        trainer = Trainer(
            task or toy.ToyTask(),
            train or toy.ToyExamples(45),
            config=config,
            optim=optim,
            run=run,
            describe={"package": "toy", "config": {"note": "toy"}},
            **options,
        )
        return trainer.fit(resume=resume)


def rows(folder, kind):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def weights(folder, which="last"):
    return load_checkpoint(folder, prefer=which).part("model")


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_a_run_leaves_metrics_and_both_checkpoints(tmp_path):
    result = fit(tmp_path / "run")
    epochs, intervals = rows(tmp_path / "run", "epoch"), rows(tmp_path / "run", "interval")
    assert [(r["epoch"], r["update"]) for r in epochs] == [(1, 6), (2, 12), (3, 18)]
    assert [r["update"] for r in intervals] == [4, 8, 12, 16]
    assert {"train/total", "train/fit", "train/spread", "lr", "seconds"} <= set(epochs[0])
    values = [r["validation/R@1,mIoU"] for r in epochs]
    assert result.best_value == max(values)
    assert result.best_epoch == values.index(max(values)) + 1
    assert epochs[-1]["train/total"] < 0.5 * epochs[0]["train/total"]
    last, best = (load_checkpoint(tmp_path / "run", prefer=role, package="toy") for role in ("last", "best"))
    assert (last.meta["update"], last.meta["epoch"], last.meta["batch"]) == (18, 4, 0)
    assert last.part("optim")
    assert not best.part("optim")
    assert best.meta["selection"]["value"] == result.best_value
    assert best.state == {"words": ["a", "b"], "dim": toy.DIM}
    assert torch.equal(best.state_tensors["vectors"], torch.arange(4.0).reshape(2, 2))


def test_an_epoch_is_one_short_line_and_its_row_holds_the_rest(tmp_path, caplog):
    caplog.set_level("INFO")
    fit(tmp_path / "run")
    lines = [line for line in caplog.messages if line.startswith("epoch ")]
    number = r"\d[\d.e+-]*"
    for epoch, line in enumerate(lines[:-1], 1):
        assert re.fullmatch(
            rf"epoch {epoch}/3 \| loss {number} \| validation R@1,mIoU 0\.\d{{3}} \| {number} s, 0:\d\d:\d\d left"
            r"( \| best so far)?",
            line,
        )
    assert "left" not in lines[-1]
    assert max(map(len, caplog.messages)) <= 100
    assert {"train/fit", "train/spread", "validation/R@1,mIoU", "lr"} <= set(
        rows(tmp_path / "run", "epoch")[0]
    )


def test_the_kept_value_is_what_the_kept_weights_give(tmp_path):
    result = fit(tmp_path / "run")
    task = toy.ToyTask()
    found = load_checkpoint(result.best_checkpoint)
    load_weights(task.model, found.weights, found.path)
    predictions = Evaluator(task, VALIDATION, batch_size=4, device=CPU).predict()
    assert [p.query for p in predictions] == [f"q{i}" for i in range(11)]
    assert toy.ToyScore(VALIDATION)(predictions)["R@1,mIoU"] == pytest.approx(result.best_value, abs=1e-6)


def test_same_seed_same_bits_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(tmp_path / name, replace(CONFIG, seed=seed), task=None)
    assert toy.digest(weights(tmp_path / "a")) == toy.digest(weights(tmp_path / "b"))
    assert toy.digest(weights(tmp_path / "a")) != toy.digest(weights(tmp_path / "c"))


def test_dropout_is_drawn_anew_for_every_update_and_alike_in_every_run(tmp_path):
    config = replace(CONFIG, epochs=1)
    for name in ("a", "b"):
        seed_everything(0)
        fit(tmp_path / name, config, task=toy.ToyTask(dropout=0.5))
    assert toy.digest(weights(tmp_path / "a")) == toy.digest(weights(tmp_path / "b"))


def test_accumulated_micro_batches_give_the_gradient_of_the_global_batch(tmp_path):
    fit(tmp_path / "whole")
    fit(tmp_path / "parts", replace(CONFIG, micro_batch=3))
    assert largest_difference(weights(tmp_path / "whole"), weights(tmp_path / "parts")) < 1e-6
    for a, b in zip(rows(tmp_path / "whole", "epoch"), rows(tmp_path / "parts", "epoch"), strict=True):
        assert a["train/total"] == pytest.approx(b["train/total"], rel=1e-5)


def test_summed_accumulation_adds_the_passes_means_and_clips_after_each(tmp_path):
    train, config = toy.ToyExamples(8), TrainConfig(epochs=1, global_batch=8, micro_batch=4, device="cpu")
    options = {"lr": 0.02, "clip_norm": 0.05}
    fit(tmp_path / "sum", config, OptimConfig(**options, accumulation="sum"), train=train)

    seed_everything(config.seed)
    task = toy.ToyTask()
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=0.02, weight_decay=0.0)
    plan = Plan(size=8, global_batch=8, micro_batch=4, seed=config.seed)
    norms = []
    for shard in plan.shards(1, 0):
        task.loss(train.batch(shard.indices, 1), Progress(0, 1, 1))["total"].backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(task.model.parameters(), 0.05)))
    optimizer.step()
    assert min(norms) > 0.05, "the bound must matter after each pass"
    wanted = {name: tensor.detach() for name, tensor in task.model.state_dict().items()}
    assert largest_difference(weights(tmp_path / "sum"), wanted) < 1e-7
    assert rows(tmp_path / "sum", "epoch")[0]["train/total"] > 0


@pytest.mark.e2e
def test_loader_processes_change_no_bit(tmp_path):
    fit(tmp_path / "alone", replace(CONFIG, epochs=2))
    fit(tmp_path / "workers", replace(CONFIG, epochs=2, workers=2))
    assert toy.digest(weights(tmp_path / "alone")) == toy.digest(weights(tmp_path / "workers"))


def test_resuming_a_finished_run_with_more_epochs_goes_on_as_if_never_ended(tmp_path):
    fit(tmp_path / "whole", replace(CONFIG, epochs=4))
    fit(tmp_path / "parts", replace(CONFIG, epochs=2))
    fit(tmp_path / "parts", replace(CONFIG, epochs=4), resume=True)
    assert toy.digest(weights(tmp_path / "whole")) == toy.digest(weights(tmp_path / "parts"))
    assert [r["epoch"] for r in rows(tmp_path / "parts", "epoch")] == [1, 2, 3, 4]


def test_the_time_left_of_a_resumed_run_follows_its_own_pace(tmp_path, caplog):
    caplog.set_level("INFO")
    fit(tmp_path / "run", replace(CONFIG, epochs=1))
    last = load_checkpoint(tmp_path / "run", prefer="last")
    parts = {prefix: last.part(prefix) for prefix in ("model", "optim", "ema", "state")}
    save_checkpoint(last.path, parts, {**last.meta, "seconds": 360000.0})  # a slow machine before
    fit(tmp_path / "run", replace(CONFIG, epochs=3), resume=True)
    (line,) = [line for line in caplog.messages if line.startswith("epoch 2/3")]
    assert ", 0:0" in line.partition(" left")[0]
    assert rows(tmp_path / "run", "interval")[-1]["seconds"] > 360000


def test_resuming_a_finished_run_only_reports_it_again(tmp_path):
    first = fit(tmp_path / "run")
    again = fit(tmp_path / "run", resume=True)
    assert (again.best_value, again.best_epoch) == (first.best_value, first.best_epoch)
    assert len(rows(tmp_path / "run", "epoch")) == 3


def test_the_last_epoch_can_be_selected_with_or_without_validation(tmp_path):
    config = replace(CONFIG, select="last")
    for name, changes in (("with", {}), ("without", {"validation": None, "evaluate": None})):
        result = fit(tmp_path / name, config, **changes)
        assert result.best_epoch == 3
        assert toy.digest(weights(tmp_path / name, "best")) == toy.digest(weights(tmp_path / name))
    assert result.best_value is None


@pytest.mark.parametrize(
    ("signalled", "ends"),
    [(True, KeyboardInterrupt), (False, CppCompileError)],
    ids=["asked-to-end", "at-fault"],
)
def test_a_signal_that_ends_the_compiler_too_is_an_interruption(tmp_path, signalled, ends):
    class Compiling(toy.ToyTask):
        def loss(self, batch, progress):
            if progress.update == 2:
                if signalled:
                    os.kill(os.getpid(), signal.SIGTERM)
                raise CppCompileError(["g++"], "terminated")
            return super().loss(batch, progress)

    with pytest.raises(ends):
        fit(tmp_path / "run", task=Compiling())
    assert load_checkpoint(tmp_path / "run", prefer="last").meta["update"] == 0


def test_selection_on_test_is_labelled_everywhere(tmp_path, caplog):
    caplog.set_level("INFO")
    fit(tmp_path / "run", replace(CONFIG, select="test"))
    assert load_checkpoint(tmp_path / "run").meta["selection"]["select"] == "test"
    assert "test/R@1,mIoU" in rows(tmp_path / "run", "epoch")[0]
    assert "ON TEST" in caplog.text


def test_evaluation_every_n_epochs_includes_the_last(tmp_path):
    fit(tmp_path / "run", replace(CONFIG, epochs=5, eval_every=2))
    evaluated = [r["epoch"] for r in rows(tmp_path / "run", "epoch") if "validation/R@1,mIoU" in r]
    assert evaluated == [2, 4, 5]


def test_a_metric_that_is_not_a_number_neither_wins_nor_breaks_the_files(tmp_path):
    values = iter([float("nan"), 0.3, float("nan")])
    result = fit(tmp_path / "run", evaluate=lambda _: {"R@1,mIoU": next(values)})
    assert (result.best_value, result.best_epoch) == (0.3, 2)
    assert rows(tmp_path / "run", "epoch")[0]["validation/R@1,mIoU"] is None


def test_the_weight_average_is_what_is_evaluated_and_kept(tmp_path):
    result = fit(tmp_path / "run", replace(CONFIG, epochs=2), replace(OPTIM, ema_decay=0.9))
    best, last = load_checkpoint(result.best_checkpoint), load_checkpoint(result.last_checkpoint)
    assert result.best_epoch == 2
    assert toy.digest(best.weights) == toy.digest(last.weights) == toy.digest(last.part("ema"))
    assert toy.digest(last.part("ema")) != toy.digest(last.part("model"))
    task = toy.ToyTask()
    load_weights(task.model, best.weights, best.path)
    value = toy.ToyScore(VALIDATION)(Evaluator(task, VALIDATION, batch_size=11, device=CPU).predict())[
        "R@1,mIoU"
    ]
    assert value == pytest.approx(result.best_value, abs=1e-6)


def test_clipping_bounds_the_step(tmp_path):
    # with a rate of 1 and plain momentum-free averages, the first Adam moment is the clipped gradient itself
    optim = replace(OPTIM, clip_norm=1e-3, beta1=0.0)
    fit(tmp_path / "run", replace(CONFIG, epochs=1, global_batch=45), optim)
    moments = load_checkpoint(tmp_path / "run", prefer="last").part("optim")
    norm = sum(t.square().sum() for name, t in moments.items() if name.endswith("exp_avg")).sqrt()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_to_about_the_same_result(tmp_path, precision):
    exact = fit(tmp_path / "exact")
    half = fit(tmp_path / "half", replace(CONFIG, precision=precision))
    assert half.best_value == pytest.approx(exact.best_value, abs=0.05)
    assert all(t.dtype == torch.float32 for t in weights(tmp_path / "half").values())


def test_fp16_leaves_out_overflowing_steps_and_resumes_its_loss_scale(tmp_path):
    class Steep(toy.ToyTask):
        def loss(self, batch, progress):
            # so steep that scaled gradients overflow float16 until the scale has come down
            return {name: term.float() * 100 for name, term in super().loss(batch, progress).items()}

    config = replace(CONFIG, precision="fp16", epochs=4)
    fit(tmp_path / "whole", config, task=Steep())
    assert load_checkpoint(tmp_path / "whole", prefer="last").meta["scaler"]["scale"] < 2**16
    seed_everything(0)
    fit(tmp_path / "parts", replace(config, epochs=2), task=Steep())
    seed_everything(0)
    fit(tmp_path / "parts", config, task=Steep(), resume=True)
    pair = [load_checkpoint(tmp_path / name, prefer="last") for name in ("whole", "parts")]
    assert pair[0].meta["scaler"] == pair[1].meta["scaler"]


@pytest.mark.e2e
def test_compiled_training_keeps_the_names_of_the_weights(tmp_path):
    class Compiled(toy.ToyTask):
        def __init__(self):
            super().__init__()
            # tracing without generating code: a compiler need not be installed where tests run
            compile_in_place = self.model.compile
            self.model.compile = lambda: compile_in_place(backend="eager")

    fit(tmp_path / "plain", replace(CONFIG, epochs=1))
    seed_everything(0)
    fit(tmp_path / "compiled", replace(CONFIG, epochs=1, compile=True), task=Compiled())
    assert largest_difference(weights(tmp_path / "plain"), weights(tmp_path / "compiled")) < 1e-6


def test_learning_rates_follow_the_schedule(tmp_path):
    schedule = ScheduleConfig(name="linear", warmup_updates=6)
    optim = replace(OPTIM, lr=0.01, schedule=schedule)
    fit(tmp_path / "run", replace(CONFIG, log_updates=1), optim)
    found = [row["lr"] for row in rows(tmp_path / "run", "interval")]
    expected = [0.01 * n / 6 for n in range(6)] + [0.01 * (18 - n) / 12 for n in range(6, 18)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_with_the_queries_before_any_weight_changes(tmp_path, bad):
    class Unbounded(toy.ToyTask):
        def loss(self, batch, progress):
            terms = super().loss(batch, progress)
            size = batch.x.sum()
            return {**terms, "size": size, "total": terms["total"] + size}

    task, log = Unbounded(), tmp_path / "log"
    task.log = log
    config = replace(CONFIG, micro_batch=2, checkpoint_updates=1)
    with pytest.raises(NonFiniteLoss) as caught:
        fit(tmp_path / "run", config, task=task, train=toy.ToyExamples(45, broken=[7], bad=bad))
    update, epoch, *_ = json.loads(log.read_text().splitlines()[-1])
    message = str(caught.value)
    assert f"at update {update} (epoch {epoch})" in message
    assert f"size = {bad}" in message
    assert "q7" in message
    assert "\n" not in message
    found = load_checkpoint(tmp_path / "run", prefer="last")
    assert found.meta["update"] == update
    own = {name: tensor.detach() for name, tensor in task.model.state_dict().items()}
    assert toy.digest(own) == toy.digest(found.part("model"))


def test_a_gradient_that_is_not_finite_names_the_weights(tmp_path):
    class Cliff(toy.ToyTask):
        def loss(self, batch, progress):
            terms = super().loss(batch, progress)
            flat = (self.model.second.bias * 0).sqrt().sum()  # 0, with an infinite slope: its gradient is NaN
            return {**terms, "total": terms["total"] + flat}

    with pytest.raises(NonFiniteLoss, match=r"the gradient of second\.bias is not finite at update 0 .* q"):
        fit(tmp_path / "run", task=Cliff())


def test_a_users_error_in_the_data_comes_through_unchanged(tmp_path):
    with pytest.raises(UserError, match=r"^features\.h5: video 'v7' is missing$"):
        fit(tmp_path / "run", replace(CONFIG, workers=1), train=toy.ToyExamples(45, missing=7))


def test_an_unknown_metric_is_refused_with_those_measured(tmp_path):
    with pytest.raises(UserError, match="'R@9' is not measured: R@1,mIoU, worst, queries"):
        fit(tmp_path / "run", replace(CONFIG, select_metric="R@9"))


def test_selection_without_a_split_is_refused(tmp_path):
    with pytest.raises(UserError, match="'validation', which needs a split to evaluate"):
        fit(tmp_path / "run", validation=None, evaluate=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": replace(CONFIG, seed=5)}, "cannot resume, train.seed was 0 and is now 5"),
        ({"config": replace(CONFIG, global_batch=9)}, "train.global_batch was 8 and is now 9"),
        ({"train": toy.ToyExamples(44)}, "the number of training queries was 45 and is now 44"),
        (
            {"optim": replace(OPTIM, optimizer="cpl-adam")},
            "was 'adamw' and is now 'cpl-adam'",
        ),
    ],
)
def test_a_run_that_would_not_be_the_same_cannot_be_resumed(tmp_path, changes, message):
    fit(tmp_path / "run", replace(CONFIG, epochs=1))
    with pytest.raises(UserError, match=message):
        fit(tmp_path / "run", resume=True, **changes)


def test_a_changed_vocabulary_cannot_be_resumed(tmp_path):
    class Other(toy.ToyTask):
        def state(self):
            return {"words": ["a", "c"], "dim": toy.DIM}

    fit(tmp_path / "run", replace(CONFIG, epochs=1))
    with pytest.raises(UserError, match=r"the method's state .* has changed"):
        fit(tmp_path / "run", task=Other(), resume=True)


def test_partial_files_of_a_killed_process_are_cleared_away(tmp_path):
    fit(tmp_path / "run", replace(CONFIG, epochs=1))
    left = tmp_path / "run/checkpoints/.last.safetensors.0123abcd.partial"
    left.write_bytes(b"half")
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"kind": "interval", "upd')
    fit(tmp_path / "run", replace(CONFIG, epochs=2), resume=True)
    assert not left.exists()
    assert [r["epoch"] for r in rows(tmp_path / "run", "epoch")] == [1, 2]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_tensorboard_without_its_extra_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"pip install 'vmr-train\[tensorboard\]'"):
        fit(tmp_path / "run", replace(CONFIG, tensorboard=True))


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_reads_the_numbers_of_the_metrics_over_all_sittings(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for epochs in (2, 3):
        fit(tmp_path / "run", replace(CONFIG, tensorboard=True, epochs=epochs), resume=epochs > 2)
    found = EventAccumulator(str(tmp_path / "run/tensorboard"))
    found.Reload()
    for kind, key in (("interval", "train/total"), ("epoch", "validation/R@1,mIoU")):
        shown = [(event.step, event.value) for event in found.Scalars(f"{kind}/{key}")]
        assert shown == [(row["update"], pytest.approx(row[key])) for row in rows(tmp_path / "run", kind)]
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 2


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_a_disk_that_is_full_under_tensorboard_is_one_error_and_leaves_whole_records(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunFolder(tmp_path / "run") as run:
        run.start()
        events = Events(run, wanted=True, from_update=0)
        written = 2  # the version, and from where on it counts

        def fill():
            nonlocal written
            while written < 100:
                events.write({"kind": "interval", "update": written, "lr": 0.5})
                written += 1

        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        try:
            with pytest.raises(UserError, match=r"cannot write .*tfevents.*File too large"):
                fill()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            events.close()
    [file] = (tmp_path / "run/tensorboard").iterdir()
    assert len(list(RawEventFileLoader(str(file)).Load())) == written > 20


@pytest.mark.parametrize(
    ("name", "message"),
    [("gpu", "device 'gpu' is unknown"), ("cuda:99", r"asked for, but torch finds \d+ CUDA")],
)
def test_a_device_that_is_not_there_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        select_device(name)
