"""What a training may write, replace and delete in its run folder, and who may be there with it."""

import os
import signal

import pytest

import training_toy as toy
from folders import digests
from training_runs import Run, processes
from vmr_common.errors import UserError
from vmr_train.checkpoint import load_checkpoint
from vmr_train.report import load_report
from vmr_train.run_files import ALL, BEST, CONFIG, FILES, METRICS, NEW, READY, current, find_checkpoint
from vmr_train.run_folder import RunFolder

EVENTS = "tensorboard/events.out.tfevents."


def write(folder, mark, **options):
    with RunFolder(folder, **options) as run:
        toy.write_run(run, mark)


def marks(folder):
    """What our commands read of a run folder: the mark in each of its files."""
    contents = {name: current(folder, name) for name in FILES}
    found = {name: path.read_bytes() for name, path in contents.items() if path.exists()}
    return {
        name: next(mark for mark in ("old", "new") if mark.encode() in content)
        for name, content in found.items()
    }


@pytest.fixture
def folder(tmp_path):
    """A finished run with files of somebody else at every place."""
    path = tmp_path / "run"
    write(path, "old")
    for name in (
        "notes.txt",
        "checkpoints/epoch9.safetensors",
        "tensorboard/mine.csv",
        ".metrics.jsonl.partial",
    ):
        (path / name).write_text("mine")
    return path


def foreign(folder):
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.read_bytes() == b"mine"
    )


def test_an_earlier_run_is_neither_overwritten_nor_continued_unasked(folder):
    before = digests(folder)
    with pytest.raises(UserError, match=r"already holds a run .*--resume to continue it, --overwrite"):
        RunFolder(folder)
    assert digests(folder) == before


def test_an_overwritten_run_stays_whole_until_the_new_one_takes_its_place(folder):
    before, theirs = digests(folder), foreign(folder)
    with RunFolder(folder, overwrite=True) as run:
        run.start()
        run.write_config({"name": "new"})
        assert {**digests(folder), **before} == digests(folder)
        assert find_checkpoint(folder) == folder / BEST
        toy.write_run(run, "new")
    assert marks(folder) == dict.fromkeys(FILES, "new")
    assert foreign(folder) == theirs
    assert (folder / f"{EVENTS}new").is_file()
    assert not (folder / f"{EVENTS}old").exists()
    assert not (folder / NEW).exists()
    assert not (folder / READY).exists()


def test_what_the_earlier_run_has_beyond_the_new_one_goes_with_it(folder):
    with RunFolder(folder, overwrite=True) as run:
        run.start()
        run.write_config({"name": "new"})
        run.finish()
    assert marks(folder) == {CONFIG: "new"}
    assert sorted(path.name for path in folder.iterdir() if path.name in ALL) == [
        "checkpoints",
        CONFIG,
        "tensorboard",
    ]


def test_a_run_that_ends_before_its_first_checkpoint_leaves_the_earlier_one_alone(folder):
    before = digests(folder)
    with RunFolder(folder, overwrite=True) as run:
        run.start()
        run.write_config({"name": "new"})
    assert digests(folder) == before


@pytest.mark.parametrize("flags", [{"overwrite": True}, {"resume": True}], ids=str)
def test_files_that_no_run_wrote_are_not_overwritten(tmp_path, flags):
    (tmp_path / "results.json").write_text("mine")
    with pytest.raises(UserError, match=r"holds results\.json, but nothing shows that a run wrote it"):
        RunFolder(tmp_path, **flags)
    assert (tmp_path / "results.json").read_text() == "mine"


def killed_before(step, folder):
    """Whether the process that overwrites the run was killed before this step, or done already."""
    process = processes.Process(target=toy.replace_run, args=(folder, "new", step))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.e2e
def test_killed_before_any_step_on_the_disk_either_run_is_there_whole(folder):
    before, theirs = digests(folder), foreign(folder)
    step, seen = 1, set()
    while killed_before(step, folder):
        read = marks(folder)
        assert set(read) == set(FILES), step
        assert len(set(read.values())) == 1, (step, read)
        seen |= set(read.values())
        assert foreign(folder) == theirs
        if "old" in read.values():
            assert {**digests(folder), **before} == digests(folder)
        with RunFolder(folder, resume=True):  # the next who opens it moves on what is left to be moved
            pass
        assert not (folder / READY).exists()
        assert marks(folder) == read
        if "new" in read.values():
            assert (folder / f"{EVENTS}new").is_file()
            assert not (folder / f"{EVENTS}old").exists()
            write(folder, "old", overwrite=True)
            before = digests(folder)
        step += 5
    assert seen == {"old", "new"}
    assert marks(folder) == dict.fromkeys(FILES, "new")
    assert not (folder / NEW).exists()


@pytest.mark.parametrize("name", [*ALL, BEST, ".lock", NEW, ".final", READY])
@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}], ids=str)
def test_a_symbolic_link_in_a_run_folder_is_refused_before_anything_is_written(tmp_path, name, flags):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    if flags:
        write(folder, "old")
        if (folder / name).is_dir():
            (folder / name).rename(folder / "moved")
        (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    elsewhere.mkdir()
    (elsewhere / ".last.safetensors.01234567.partial").write_text("mine")
    (folder / name).symlink_to(elsewhere if "." not in name[1:] else elsewhere / "new.txt")
    before = digests(folder), digests(elsewhere)
    with pytest.raises(UserError, match=r"is a symbolic link|expected a folder of a run"):
        write(folder, "new", **flags)
    assert (digests(folder), digests(elsewhere)) == before


def test_the_run_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    write(tmp_path / "run", "old")
    write(tmp_path / "run", "new", overwrite=True)
    assert marks(tmp_path / "disk") == dict.fromkeys(FILES, "new")


@pytest.mark.parametrize("name", [METRICS, "checkpoints"])
def test_a_link_that_appears_while_a_run_is_trained_is_not_followed(tmp_path, name):
    with RunFolder(tmp_path / "run") as run:
        run.start()
        (tmp_path / "elsewhere").mkdir()
        if name == "checkpoints":
            (run.path / name).rmdir()
        (run.path / name).symlink_to(tmp_path / "elsewhere" / ("" if name == "checkpoints" else "rows"))
        with pytest.raises(UserError, match="is a symbolic link"):
            run.append({"kind": "epoch"})
        with pytest.raises(UserError, match="is a symbolic link"):
            run.guard()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", [METRICS, CONFIG, BEST])
def test_a_pipe_or_folder_where_a_file_of_a_run_belongs_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UserError, match=r"expected a file of a run, found something else"):
            RunFolder(tmp_path, **flags)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"kind": "epoch", "update": 3}', r"metrics\.jsonl:2: key 'epoch' is missing"),
        (
            '{"kind": "epoch", "update": 3, "epoch": "1"}',
            r":2: key epoch: found '1', expected a whole number",
        ),
        ('{"kind": ["epoch"], "update": 3, "epoch": 1}', r":2: key kind: .* expected text"),
        ('{"kind": "interval", "update": true, "epoch": 1}', r":2: key update: found True"),
        (
            '{"kind": "epoch", "update": 3, "epoch": 1, "train/total": [1]}',
            r":2: key train/total: .* a finite number",
        ),
        ('{"kind": "epoch", "update": 3, "epoch": 1, "lr": "high"}', r":2: key lr: found 'high'"),
    ],
)
def test_a_row_of_wrong_types_is_named_by_those_who_read_it(tmp_path, row, message):
    RunFolder(tmp_path).close()  # a training has been there
    good = '{"kind": "epoch", "update": 1, "epoch": 1, "lr": null, "later": [1]}'
    (tmp_path / METRICS).write_text(f"{good}\n{row}\n{good}\n")
    before = digests(tmp_path)
    with RunFolder(tmp_path, resume=True) as run, pytest.raises(UserError, match=message):
        run.keep_rows(lambda row: True)
    with pytest.raises(UserError, match=message):
        load_report(tmp_path)
    assert digests(tmp_path) == before


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(UserError, match="nothing to resume, no such run folder"):
        RunFolder(tmp_path / "run", resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a run folder, found a file"):
        RunFolder(tmp_path / "file")


def test_a_folder_that_cannot_be_written_is_the_users_error():
    with pytest.raises(UserError, match=r"cannot write /proc/run"):
        RunFolder("/proc/run").start()


@pytest.mark.e2e
def test_a_second_training_in_a_run_folder_is_refused_until_the_first_has_died(tmp_path):
    first = Run(tmp_path / "run", task={"slow": 10})
    first.wait_for(1)
    before = digests(first.folder)
    holder = rf"another process is at work there \('training, process {first.ranks[0].pid} on "
    for flags in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(UserError, match=holder):
            RunFolder(first.folder, **flags)
    with pytest.raises(UserError, match="already holds a run"):
        RunFolder(first.folder)
    assert digests(first.folder) == before
    first.ranks[0].kill()
    first.end()
    with RunFolder(first.folder, resume=True):
        assert load_checkpoint(first.folder, prefer="last").meta["update"] == 0
