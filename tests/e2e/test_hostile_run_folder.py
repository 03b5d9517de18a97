"""Run folders in use, damaged or out of reach: one clear line, exit status 2 and nothing lost."""

import json
import os
import re
import resource
import shutil
from pathlib import Path

import h5py
import pytest

from folders import digests
from rgn.training import command as train
from vmr_train.checkpoint import load_checkpoint, save_checkpoint


def test_a_run_folder_that_is_used_already(place, trained, refused):
    shutil.copytree(trained.place.run, place.run)
    before = digests(place.run)
    message = refused(train, *place.train_arguments())
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
    refused(train, *place.train_arguments("--overwrite", *more))
    assert digests(place.run) == before


def test_an_earlier_run_is_replaced_with_all_its_files_and_nothing_else(place, trained, done):
    shutil.copytree(trained.place.run, place.run)
    (place.run / "notes.txt").write_text("mine")
    before = digests(place.run)
    done(train, *place.train_arguments("--overwrite", "--train.seed", 3))
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
        (["--train.select", "last"], "train.select was 'validation' and is now 'last'"),
        (["--model.hidden", "32"], "model.hidden was 16 and is now 32"),
        (["--quirks", "released"], "quirks was 'fixed' and is now 'released'"),
        (["--loss.alpha_2", "4"], "loss.alpha_2 was 5.0 and is now 4.0"),
        (["--data.clips", "12"], "data.clips was 8 and is now 12"),
        (["--optim.weight_decay", "0.1"], "optim.weight_decay was 0.0 and is now 0.1"),
        (
            ["--protocols", "[point, strict]"],
            "protocols was ['strict', 'point'] and is now ['point', 'strict']",
        ),
        (["--data.splits.train.annotations", "shapes/test.jsonl"], "the training queries were"),
        (["--data.splits.validation.annotations", "shapes/test.jsonl"], "the validation queries were"),
    ],
)
def test_a_run_resumed_with_another_configuration(place, trained, refused, more, fragment):
    shutil.copytree(trained.place.run, place.run)
    before = digests(place.run)
    assert fragment in refused(train, *place.train_arguments("--resume", *more))
    assert digests(place.run) == before


def change_features(place):
    times = place.features.stat()
    with h5py.File(place.features, "r+") as file:
        video = sorted(file)[-1]
        file[video][0, 0] += 0.5
    os.utime(place.features, ns=(times.st_atime_ns, times.st_mtime_ns))


def change_moments(place):
    path = place.data / "shapes/train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["windows"] = [[0.0, rows[3]["duration"] / 2]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change_word_vectors(place):
    path = place.data / "shapes/words.txt"
    word, first, *rest = path.read_text().split(" ")
    path.write_text(" ".join([word, str(float(first) + 1), *rest]))


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (change_features, r"the features were features\.h5 \(.*\) and are now features\.h5 \("),
        (
            change_moments,
            r"the training queries were .* \(72 queries, hash \w{12}\) and are now .* \(72 queries, hash",
        ),
        (change_word_vectors, r"the word vectors or query features were words\.txt"),
    ],
)
def test_a_run_resumed_on_other_data(place, trained, refused, change, fragment):
    shutil.copytree(trained.place.run, place.run)
    before = digests(place.run)
    change(place)
    message = refused(train, *place.train_arguments("--resume", "--train.epochs", 2))
    assert "cannot resume" in message
    assert re.search(fragment, message)
    assert digests(place.run) == before


def test_a_run_goes_on_with_the_same_data_elsewhere_and_says_what_else_is_new(place, trained, done, caplog):
    shutil.copytree(trained.place.run, place.run)
    place.features.rename(place.data / "copy.h5")
    os.utime(place.data / "copy.h5", (0, 0))
    (place.data / "shapes/words.txt").rename(place.data / "words.txt")
    more = ["--data.features.path", "copy.h5", "--data.word_vectors", "words.txt", "--protocols", "[strict]"]
    with caplog.at_level("INFO"):
        done(train, *place.train_arguments("--resume", *more, "--passes_per_chunk", 1, "--optim.lr", 0.002))
    assert "data.features.path was 'shapes/features.h5' and is now 'copy.h5'" in caplog.text
    assert "optim.lr was 0.001 and is now 0.002" in caplog.text


def test_a_run_of_an_earlier_version_goes_on_with_a_warning(place, trained, done, caplog):
    shutil.copytree(trained.place.run, place.run)
    last = place.run / "checkpoints/last.safetensors"
    found = load_checkpoint(last)
    describe = {
        **found.meta["describe"],
        "features": {"files": ["features.h5"], "hash": "stat:0", "manifest": None},
    }
    del describe["words"]
    meta = {key: value for key, value in found.meta.items() if key != "format"}
    save_checkpoint(
        last, {part: found.part(part) for part in ("model", "optim", "state")}, {**meta, "describe": describe}
    )
    done(train, *place.train_arguments("--resume"))
    assert "of an earlier version, cannot tell whether the features were the same" in caplog.text


def test_a_run_resumed_from_a_checkpoint_cut_short(place, trained, refused):
    shutil.copytree(trained.place.run, place.run)
    last = place.run / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:5000])
    message = refused(train, *place.train_arguments("--resume"))
    assert str(last) in message
    assert "cut short" in message


def test_a_file_where_the_run_folder_belongs(place, refused):
    place.runs.write_text("not a folder")
    message = refused(train, *place.train_arguments())
    assert str(place.run) in message
    assert place.runs.read_text() == "not a folder"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root may write")
def test_a_run_folder_that_cannot_be_written(place, refused):
    message = refused(train, *place.train_arguments("--runs", "/proc/self/runs"))
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
    message = refused(train, *place.train_arguments())
    assert "cannot write" in message
    assert "last.safetensors" in message
    assert list(place.run.rglob("*.partial")) == []


@pytest.mark.parametrize("name", ["predictions.jsonl", "report.json", "report.html"])
def test_a_disk_that_is_full_when_the_results_are_written(place, trained, refused, file_limit, name):
    shutil.copytree(trained.place.run, place.run)
    before = digests(place.run)
    file_limit((trained.place.run / name).stat().st_size - 500)
    message = refused(train, *place.train_arguments("--resume"))
    assert name in message
    assert digests(place.run) == before


def test_an_overwrite_goes_on_with_its_own_configuration_once_there_is_space(
    place, trained, refused, done, file_limit
):
    shutil.copytree(trained.place.run, place.run)
    before = digests(place.run)
    # the first checkpoint, without a state of the optimiser, fits under the limit; the next one does not
    file_limit((trained.place.run / "checkpoints/best.safetensors").stat().st_size + 2000)
    message = refused(train, *place.train_arguments("--overwrite", "--train.seed", 3))
    assert ".new/checkpoints/last.safetensors" in message
    assert {**digests(place.run), **before} == digests(place.run)
    file_limit(-1)
    where = ["--name", "tiny", "--data-root", place.data, "--runs", place.runs]
    done(train, *where, "--resume")
    assert json.loads((place.run / "run.json").read_text())["seed"] == 3
    assert digests(place.run).keys() == before.keys()
    assert ".new" not in (place.run / "report.json").read_text()
