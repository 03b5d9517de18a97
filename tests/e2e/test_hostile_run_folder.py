"""Run folders in use, damaged or out of reach: one clear line, exit status 2 and nothing lost."""

import json
import resource
import shutil
from pathlib import Path

import pytest

from folders import digests
from rgn import cli


def test_a_run_folder_that_is_used_already(place, trained, refused):
    shutil.copytree(trained.place.run, place.run)
    before = digests(place.run)
    message = refused(cli.train, *place.train_arguments())
    assert "already holds a run" in message
    assert "--resume" in message
    assert digests(place.run) == before


@pytest.mark.parametrize(
    "more",
    [
        ["--train.select_metric", "luck"],
        ["--train.device", "abacus"],
        ["--protocols", "[strict, lenient]"],
        ["--data.features.dim", "99"],
        ["--data.splits.test.annotations", "none.jsonl"],
    ],
)
def test_an_earlier_run_survives_a_command_that_would_overwrite_it_but_cannot_work(
    place, trained, refused, more
):
    shutil.copytree(trained.place.run, place.run)
    before = digests(place.run)
    refused(cli.train, *place.train_arguments("--overwrite", *more))
    assert digests(place.run) == before


def test_an_earlier_run_is_replaced_with_all_its_files_and_nothing_else(place, trained, done):
    shutil.copytree(trained.place.run, place.run)
    (place.run / "notes.txt").write_text("mine")
    before = digests(place.run)
    done(cli.train, *place.train_arguments("--overwrite", "--train.seed", 3))
    after = digests(place.run)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] == after[name]} == {"notes.txt"}
    assert json.loads((place.run / "run.json").read_text())["seed"] == 3
    assert f"{place.run / '.new'}" not in "".join(map(Path.read_text, place.run.glob("re*.json")))


def test_nothing_to_resume(refused_training):
    assert "nothing to resume" in refused_training("--resume")


def test_resuming_and_overwriting_at_once(refused_training):
    assert "exclude each other" in refused_training("--resume", "--overwrite")


@pytest.mark.parametrize(
    ("more", "fragment"),
    [
        (["--train.seed", "5"], "train.seed was 0 and is now 5"),
        (["--model.hidden", "32"], "do not fit this model"),
    ],
)
def test_a_run_resumed_with_another_configuration(place, trained, refused, more, fragment):
    shutil.copytree(trained.place.run, place.run)
    before = digests(place.run)
    assert fragment in refused(cli.train, *place.train_arguments("--resume", *more))
    assert digests(place.run) == before


def test_a_run_resumed_from_a_checkpoint_cut_short(place, trained, refused):
    shutil.copytree(trained.place.run, place.run)
    last = place.run / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:5000])
    message = refused(cli.train, *place.train_arguments("--resume"))
    assert str(last) in message
    assert "cut short" in message


def test_a_file_where_the_run_folder_belongs(place, refused):
    place.runs.write_text("not a folder")
    message = refused(cli.train, *place.train_arguments())
    assert str(place.run) in message
    assert place.runs.read_text() == "not a folder"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root may write")
def test_a_run_folder_that_cannot_be_written(place, refused):
    message = refused(cli.train, *place.train_arguments("--runs", "/proc/self/runs"))
    assert "cannot write /proc/self/runs" in message


@pytest.fixture
def file_limit():
    """Lets this process write files of so many bytes at most, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_before_the_first_update(place, refused, file_limit):
    file_limit(20_000)
    message = refused(cli.train, *place.train_arguments())
    assert "cannot write" in message
    assert "last.safetensors" in message
    assert list(place.run.rglob("*.partial")) == []


def test_a_disk_that_is_full_when_the_results_are_written(place, trained, refused, file_limit):
    shutil.copytree(trained.place.run, place.run)
    (place.run / "report.html").unlink()
    before = digests(place.run)
    file_limit((trained.place.run / "report.html").stat().st_size - 500)
    message = refused(cli.train, *place.train_arguments("--resume"))
    assert "report.html" in message
    assert digests(place.run) == before
