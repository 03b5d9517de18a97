"""The promises that only real processes can show: kills, signals, several ranks, a full disk."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import training_toy as toy
from folders import digests
from processes import PATIENCE_S
from training_runs import Run
from vmr_train import interrupt
from vmr_train.checkpoint import load_checkpoint

pytestmark = pytest.mark.e2e


def bits(folder, role):
    """Everything in a checkpoint that must not depend on how the run went."""
    found = load_checkpoint(folder, prefer=role)
    meta = {k: v for k, v in found.meta.items() if k not in ("seconds", "versions", "train")}
    return toy.digest(found.tensors), json.dumps(meta, sort_keys=True)


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def assert_same_run(a, b):
    assert rows(a) == rows(b)
    for role in ("last", "best"):
        assert bits(a, role) == bits(b, role), role


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Finished runs that others are compared with, by their options."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = {}

    def get(**options):
        key = json.dumps(options, sort_keys=True)
        if key not in done:
            run = Run(folder / f"run{len(done)}", **options)
            assert run.end() == [0], run.text()
            done[key] = run.folder
        return done[key]

    return get


@pytest.mark.parametrize("attempt", range(6))
def test_killed_at_any_instant_a_run_resumes_to_the_same_bits(tmp_path, uninterrupted, attempt):
    # saving after every update makes it likely that a kill meets a checkpoint half written
    options = {"train": {"checkpoint_updates": 1 + attempt % 3}, "task": {"dropout": 0.3, "slow": 0.003}}
    whole = uninterrupted(task={"dropout": 0.3})
    draws, kills = random.Random(attempt), 0
    run = Run(tmp_path / "run", **options)
    for _ in range(3):
        run.wait_for(len(run.updates()) + draws.randint(1, 9))
        time.sleep(draws.uniform(0, 0.02))
        run.ranks[0].kill()
        kills += run.end() == [-signal.SIGKILL]
        run = Run(tmp_path / "run", "--resume", **options)
    assert run.end() == [0], run.text()
    assert kills >= 1
    assert_same_run(run.folder, whole)


@pytest.mark.parametrize("number", interrupt.ENDING)
def test_a_signal_finishes_the_update_saves_and_exits_130(tmp_path, uninterrupted, number):
    whole = uninterrupted(task={"dropout": 0.3})
    run = Run(tmp_path / "run", task={"dropout": 0.3, "slow": 0.05})
    run.wait_for(9)
    os.kill(run.ranks[0].pid, number)
    assert run.end() == [130], run.text()
    done = len(run.updates())
    meta = load_checkpoint(run.folder, prefer="last").meta
    assert (meta["update"], meta["epoch"], meta["batch"]) == (done, 2, done - 6)
    assert f"stopped after update {done} (epoch 2), saved in {run.folder}" in run.text()
    assert "--resume" in run.text()
    assert "Traceback" not in run.text()
    run = Run(tmp_path / "run", "--resume", task={"dropout": 0.3})
    assert run.end() == [0], run.text()
    assert_same_run(run.folder, whole)


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    # as nohup has it; the process inherits what is ignored
    run = Run(tmp_path / "run", "--ignore", "SIGHUP", task={"slow": 0.02})
    run.wait_for(3)
    os.kill(run.ranks[0].pid, signal.SIGHUP)
    assert run.end() == [0], run.text()


def test_a_cluster_may_repeat_its_signal_and_only_the_users_second_one_ends_at_once(tmp_path):
    run = Run(tmp_path / "run", train={"epochs": 1}, task={"slow": 3})
    run.wait_for(1)
    for number in (signal.SIGXCPU, signal.SIGXCPU, signal.SIGTERM):
        os.kill(run.ranks[0].pid, number)
        time.sleep(0.6)
    assert run.end() == [130], run.text()
    assert "saved in" in run.text()
    assert load_checkpoint(run.folder, prefer="last").meta["update"] == 1


def test_a_signal_during_evaluation_leaves_it_to_be_done_after_resuming(tmp_path, uninterrupted):
    run = Run(tmp_path / "run", train={"eval_batch": 1}, task={"dropout": 0.3, "slow_predict": 1})
    while not run.log.with_suffix(".log.predict").exists() and run.ranks[0].is_alive():
        time.sleep(0.01)
    os.kill(run.ranks[0].pid, signal.SIGINT)
    assert run.end() == [130], run.text()
    meta = load_checkpoint(run.folder, prefer="last").meta
    assert (meta["update"], meta["epoch"], meta["batch"]) == (6, 1, 6)
    assert not (run.folder / "checkpoints/best.safetensors").exists()
    run = Run(tmp_path / "run", "--resume", task={"dropout": 0.3})
    assert run.end() == [0], run.text()
    assert_same_run(run.folder, uninterrupted(task={"dropout": 0.3}))


def test_a_second_signal_ends_at_once_with_the_last_checkpoint_untouched(tmp_path):
    run = Run(tmp_path / "run", task={"slow": 10 * PATIENCE_S})
    run.wait_for(1)
    before = (run.folder / "checkpoints/last.safetensors").read_bytes()
    os.kill(run.ranks[0].pid, signal.SIGINT)
    os.kill(run.ranks[0].pid, signal.SIGINT)  # relayed by a launcher: the same keystroke
    time.sleep(1)
    assert run.ranks[0].is_alive()
    os.kill(run.ranks[0].pid, signal.SIGINT)
    assert run.end() == [130], run.text()  # long before the update would have been finished
    assert len(run.updates()) == 1
    assert (run.folder / "checkpoints/last.safetensors").read_bytes() == before


def test_ctrl_c_does_not_kill_the_loader_processes_before_the_save(tmp_path, uninterrupted):
    run = Run(tmp_path / "run", train={"workers": 1}, task={"dropout": 0.3, "slow": 0.05})
    run.wait_for(3)
    children = Path(f"/proc/{run.ranks[0].pid}/task/{run.ranks[0].pid}/children").read_text().split()
    for pid in (*map(int, children), run.ranks[0].pid):  # a terminal sends it to all of them
        os.kill(pid, signal.SIGINT)
    assert run.end() == [130], run.text()
    assert "saved in" in run.text()
    assert "Traceback" not in run.text()
    run = Run(tmp_path / "run", "--resume", task={"dropout": 0.3})
    assert run.end() == [0], run.text()
    assert_same_run(run.folder, uninterrupted(task={"dropout": 0.3}))


def test_a_loss_that_is_not_finite_exits_2_with_one_line(tmp_path):
    run = Run(tmp_path / "run", examples={"broken": [7]})
    assert run.end() == [2]
    last = run.text().strip().splitlines()[-1]
    assert last.startswith("error: the loss is not finite at update")
    assert "q7" in last
    assert "Traceback" not in run.text()


def test_a_disk_that_fills_up_ends_the_run_with_the_previous_checkpoint_whole(tmp_path):
    # the first checkpoint (no optimiser state yet) fits under the limit, the second does not
    run = Run(tmp_path / "run", train={"checkpoint_updates": 3}, file_limit=4000)
    assert run.end() == [2], run.text()
    assert "error: cannot write" in run.text()
    assert "last.safetensors: File too large" in run.text()
    assert load_checkpoint(run.folder, prefer="last").meta["update"] == 0
    assert [p.name for p in (run.folder / "checkpoints").iterdir()] == ["last.safetensors"]
    run = Run(tmp_path / "run", "--resume")
    assert run.end() == [0], run.text()


@pytest.fixture
def earlier(tmp_path, uninterrupted):
    """A finished run that others are to replace, and the hashes of its files."""
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted(optim={"lr": 0.01}), folder)
    return folder, digests(folder)


def test_an_overwrite_that_is_killed_leaves_the_earlier_run_and_can_be_resumed(earlier, uninterrupted):
    folder, before = earlier
    run = Run(folder, "--overwrite", train={"checkpoint_updates": 2}, task={"dropout": 0.3, "slow": 0.02})
    run.wait_for(9)
    run.ranks[0].kill()
    assert run.end() == [-signal.SIGKILL]
    assert {**digests(folder), **before} == digests(folder)
    run = Run(folder, "--resume", task={"dropout": 0.3})
    assert run.end() == [0], run.text()
    assert "going on with the run that is to replace the one there" in run.text()
    assert_same_run(folder, uninterrupted(task={"dropout": 0.3}))
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"file_limit": 4000}, "cannot write"), ({"examples": {"broken": [7]}}, "the loss is not finite")],
    ids=["full disk", "not finite"],
)
def test_an_overwrite_that_cannot_finish_leaves_the_earlier_run_as_it_was(earlier, options, said):
    folder, before = earlier
    run = Run(folder, "--overwrite", **options)
    assert run.end() == [2], run.text()
    assert said in run.text()
    assert {**digests(folder), **before} == digests(folder)
    assert load_checkpoint(folder).meta["optim"]["lr"] == 0.01


def test_a_stopped_overwrite_says_how_to_go_on(earlier):
    folder, before = earlier
    run = Run(folder, "--overwrite", task={"slow": 0.05})
    run.wait_for(3)
    os.kill(run.ranks[0].pid, signal.SIGTERM)
    assert run.end() == [130], run.text()
    assert "the same command with --resume instead of --overwrite goes on from there" in run.text()
    assert {**digests(folder), **before} == digests(folder)


def close(a, b, tolerance):
    a, b = (load_checkpoint(folder, prefer="last").part("model") for folder in (a, b))
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a) < tolerance


@pytest.mark.parametrize("options", [{}, {"train": {"micro_batch": 3}}, {"task": {"unused": True}}], ids=str)
def test_two_processes_train_and_evaluate_as_one(tmp_path, uninterrupted, options):
    # 45 = 5 * 8 + 5 queries: the last update is uneven over the ranks, and 11 evaluated ones are too
    whole = uninterrupted()
    both = {
        **options,
        "train": {"unused_parameters": "task" in options, "eval_batch": 3, **options.get("train", {})},
    }
    run = Run(tmp_path / "run", ranks=2, **both)
    assert run.end() == [0, 0], run.text()
    theirs, ours = ([r for r in rows(folder) if r["kind"] == "epoch"] for folder in (whole, run.folder))
    for a, b in zip(theirs, ours, strict=True):
        assert a["train/total"] == pytest.approx(b["train/total"], rel=1e-5)
        assert a["validation/R@1,mIoU"] == pytest.approx(b["validation/R@1,mIoU"], abs=1e-5)
        assert b["validation/queries"] == 11
    if "task" not in options:  # the unused layer changes what is drawn for the initial weights
        assert close(run.folder, whole, 1e-6)
    seen = [query for rank in (0, 1) for u, e, _, ids in run.updates(rank) if e == 1 for query in ids]
    assert sorted(seen) == sorted(f"q{i}" for i in range(45))


def test_a_rank_left_without_queries_keeps_step(tmp_path, uninterrupted):
    options = {"train": {"global_batch": 11, "epochs": 2}}  # 45 = 4 * 11 + 1
    run = Run(tmp_path / "run", ranks=2, **options)
    assert run.end() == [0, 0], run.text()
    assert close(run.folder, uninterrupted(**options), 1e-6)


def test_unused_parameters_are_named_when_several_processes_would_wait_for_them(tmp_path):
    run = Run(tmp_path / "run", ranks=2, task={"unused": True})
    assert run.end() == [1, 1]
    assert "2 parameters got no gradient (first unused.weight)" in run.text()
    assert "train.unused_parameters" in run.text()


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_and_names_its_queries(tmp_path):
    run = Run(tmp_path / "run", ranks=2, examples={"broken": [7]})
    assert run.end() == [2, 2], run.text()
    assert "q7" in run.text()


def test_what_fails_on_rank_0_fails_on_all(tmp_path):
    (tmp_path / "run").write_text("in the way")
    run = Run(tmp_path / "run", ranks=2)
    assert run.end() == [2, 2], run.text()
    assert "expected a run folder, found a file" in run.text()


def stop_and_wait(run, seconds=0.5):
    """Stops one of two ranks without a word, as a cut link does, once the other waits for it."""
    run.wait_for(4)
    os.kill(run.ranks[1].pid, signal.SIGSTOP)
    time.sleep(seconds)


def status_of_the_other(run):
    """Rank 0's exit status; the stopped one is killed after it."""
    run.ranks[0].join(PATIENCE_S)
    run.ranks[1].kill()
    return run.end()[0]


def lines_of(run):
    assert "Traceback" not in run.text()
    return [line for line in run.text().splitlines() if line.startswith(("error:", "interrupted"))]


def test_a_peer_that_does_not_answer_ends_the_wait_after_the_time_limit(tmp_path):
    run = Run(tmp_path / "run", ranks=2, train={"peer_timeout": 3}, task={"slow": 0.02})
    stop_and_wait(run)
    assert status_of_the_other(run) == 1, run.text()
    [line] = lines_of(run)
    assert "process 0: another process is gone, or did not answer within 3 s (train.peer_timeout)" in line
    assert load_checkpoint(run.folder, prefer="last").meta["update"] == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_peer_that_dies_ends_the_others_with_one_line(tmp_path, number):
    run = Run(tmp_path / "run", ranks=2, task={"slow": 0.02})
    run.wait_for(4)
    os.kill(run.ranks[0].pid, number)
    assert run.end() == [-number, 1], run.text()
    [line] = lines_of(run)
    assert "process 1: another process is gone" in line


def test_a_peer_that_never_comes_ends_the_wait_for_it(tmp_path):
    run = Run(tmp_path / "run", ranks=2, alone=True, train={"peer_timeout": 2})
    assert run.end() == [1], run.text()
    [line] = lines_of(run)
    assert "did not answer within 2 s" in line
    assert not run.folder.exists()


def test_a_second_signal_is_answered_while_waiting_for_a_peer(tmp_path):
    run = Run(tmp_path / "run", ranks=2, task={"slow": 0.02})
    stop_and_wait(run)
    for _ in range(2):
        os.kill(run.ranks[0].pid, signal.SIGTERM)
        time.sleep(1)
    assert status_of_the_other(run) == 130, run.text()
    assert lines_of(run) == ["interrupted: stopped at once; the last checkpoint stays as it was"]
    assert load_checkpoint(run.folder, prefer="last").meta["update"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_one_signal_ends_the_wait_for_a_peer_that_no_longer_answers(tmp_path, number):
    run = Run(tmp_path / "run", ranks=2, grace=1, task={"slow": 0.02})
    stop_and_wait(run)
    os.kill(run.ranks[0].pid, number)
    assert status_of_the_other(run) == 130, run.text()
    assert lines_of(run) == [
        "interrupted: stopped: another process does not answer; the last checkpoint stays as it was"
    ]


def test_what_takes_one_rank_longer_than_the_time_limit_is_waited_for(tmp_path):
    train = {"peer_timeout": 1, "epochs": 1, "eval_batch": 3}
    run = Run(tmp_path / "run", "--slow-score", "3", ranks=2, train=train, task={"slow_predict": 0.6})
    assert run.end() == [0, 0], run.text()


@pytest.mark.parametrize(
    "options",
    [
        {"train": {"select_metric": "R@9"}},
        {"optim": {"group_lr": {"third": 1}}},
        {"examples": {"broken": [7]}},
    ],
    ids=str,
)
def test_what_is_wrong_on_all_ranks_is_said_once(tmp_path, options):
    run = Run(tmp_path / "run", ranks=2, **options)
    assert run.end() == [2, 2], run.text()
    assert len(lines_of(run)) == 1, run.text()


def test_under_torchrun_ctrl_c_stops_all_ranks_at_the_same_update(tmp_path, uninterrupted):
    run = Run(tmp_path / "first", ranks=0, task={"slow": 0.1})
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with run.output.open("w") as output:
        process = subprocess.Popen(
            [*launcher, toy.__file__, *run.arguments], stdout=output, stderr=output, env=environment
        )
    deadline = time.monotonic() + PATIENCE_S
    while len(run.updates()) < 3:
        assert process.poll() is None, run.text()
        assert time.monotonic() < deadline, run.text()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) != 0
    updates = [run.updates(rank)[-1][0] + 1 for rank in (0, 1)]
    meta = load_checkpoint(run.folder, prefer="last").meta
    assert updates == [meta["update"]] * 2, run.text()
    assert meta["update"] < 24
    assert f"stopped after update {meta['update']}" in run.text()
    again = Run(run.folder, "--resume", ranks=2)
    assert again.end() == [0, 0], again.text()
    assert close(run.folder, uninterrupted(), 1e-6)
    assert [r["epoch"] for r in rows(run.folder) if r["kind"] == "epoch"] == [1, 2, 3, 4]


def test_torch_draws_the_same_dropout_whatever_was_drawn_before():
    # what resuming rests on: the generator is set from the position alone
    from vmr_train.device import update_seed

    torch.manual_seed(update_seed(0, 5, 0, 0))
    first = torch.rand(3)
    torch.rand(100)
    torch.manual_seed(update_seed(0, 5, 0, 0))
    assert torch.equal(torch.rand(3), first)
    assert len({update_seed(0, u, r, m) for u in range(5) for r in range(5) for m in range(5)}) == 125
