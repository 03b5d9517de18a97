"""Whatever a user gives by mistake ends in one clear line, exit status 2 and nothing lost."""

import hashlib
import json
import pickle
import resource
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from rgn import cli
from vmr_common.files import read_json_lines


@pytest.fixture
def refused_training(refused, place):
    """What training answers after nothing or something has been changed at `place`; no run may be left."""

    def run(*more: str) -> str:
        message = refused(cli.train, *place.train_arguments(*more))
        assert not place.run.exists()
        return message

    return run


@pytest.fixture
def checkpoint(trained, tmp_path) -> Path:
    """A copy of the best weights of a finished run."""
    return shutil.copy(trained.place.run / "checkpoints" / "best.safetensors", tmp_path / "mine.safetensors")


@pytest.fixture
def asked(checkpoint, tiny_data) -> list[str]:
    """What eval and predict need at least."""
    return ["--checkpoint", str(checkpoint), "--data-root", str(tiny_data)]


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def change_config(place, **changes) -> None:
    values = yaml.safe_load(place.config.read_text())
    place.config.write_text(yaml.safe_dump({**values, **changes}))


def change_rows(place, split: str, change) -> Path:
    path = place.data / "shapes" / f"{split}.jsonl"
    rows = [row for _, row in read_json_lines(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
    return path


def change_first(place, split: str, **changes) -> Path:
    return change_rows(place, split, lambda rows: [{**rows[0], **changes}, *rows[1:]])


# configuration


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"epochs": 3}, ["unknown key epochs", "accepted: name, quirks, protocols"]),
        ({"model": {"hiden": 16}}, ["unknown key model.hiden", "did you mean model.hidden"]),
        ({"model": {"hidden": "wide"}}, ["model.hidden", "wide"]),
        ({"model": {"hidden": 30}}, ["model.hidden", "30", "multiple of model.heads (4)"]),
        ({"model": 3}, ["model must hold keys and values", "3"]),
        ({"model": [16]}, ["model must hold keys and values", "16"]),
        ({"model": {"dropout": 1.5}}, ["model.dropout", "1.5"]),
        ({"loss": {"theta": -1}}, ["loss.theta", "-1"]),
        ({"optim": {"lr": 0}}, ["optim.lr", "0"]),
        ({"optim": {"lr": ".nan"}}, ["optim.lr", "nan"]),
        ({"train": {"epochs": 0}}, ["train.epochs", "0"]),
        ({"train": {"epochs": 1.5}}, ["train.epochs", "1.5"]),
        ({"train": {"select": "luck"}}, ["train.select", "luck", "validation"]),
        ({"train": {"select_metric": "R@1"}}, ["train.select_metric", "'R@1'", "R@1,mIoU"]),
        ({"train": {"device": "abacus"}}, ["device 'abacus'", "expected auto, cpu, cuda"]),
        ({"quirks": "both"}, ["quirks", "both", "released"]),
        ({"protocols": []}, ["protocols"]),
        ({"protocols": ["strict", "lenient"]}, ["lenient", "proposal-map"]),
        ({"name": ""}, ["name"]),
        ({"name": "../../elsewhere"}, ["name", "../../elsewhere"]),
        ({"data": None}, ["data must hold keys and values"]),
        ({"data": {"clips": 8}}, ["required", "data.features.path", "data.word_vectors"]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_configuration_that_cannot_work(place, refused_training, changes, fragments):
    change_config(place, **changes)
    message = refused_training()
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_an_unknown_option(refused_training):
    assert "--model.hiden" in refused_training("--model.hiden", "16")


def test_an_option_without_its_value(refused_training):
    assert "--model.hidden" in refused_training("--model.hidden")


def test_a_configuration_file_that_is_not_there(place, refused):
    message = refused(cli.train, "--cfg", place.config.with_name("none.yaml"))
    assert "none.yaml" in message
    assert "no such file" in message


def test_a_name_that_is_no_bundled_configuration(refused):
    message = refused(cli.train, "--cfg", "charade")
    assert "charades" in message
    assert "shapes" in message


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"- a\n- b\n", "expected keys and values"),
        (b"", "expected keys and values"),
        (b"name: [tiny\n", "not YAML"),
        (b"name: !!python/object/apply:os.system ['true']\n", "not YAML"),
        (b"name: caf\xe9\n", "not UTF-8"),
        (b"\x80\x04\x95", "not UTF-8"),
        (b"1: 2\n", "unknown key 1"),
    ],
    ids=["list", "empty", "cut-short", "python-object", "latin-1", "pickle", "number-as-key"],
)
def test_a_configuration_file_of_another_kind(place, refused_training, content, fragment):
    place.config.write_bytes(content)
    message = refused_training()
    assert fragment in message
    assert "tiny.yaml" in message


def test_a_split_and_annotations_at_once(refused_training):
    assert "not both" in refused_training("--data.splits.train.split", "shapes/train")


def test_a_split_that_does_not_exist(refused_training):
    more = ["--data.splits.test.annotations", "null", "--data.splits.test.split", "shapes/exam"]
    message = refused_training(*more)
    assert "'shapes/exam'" in message
    assert "shapes/test" in message


def test_a_cuda_device_where_there_is_none(refused_training):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert "torch finds 0 CUDA devices" in refused_training("--train.device", "cuda")


# annotations


def test_a_data_root_that_is_not_there(place, refused_training):
    shutil.rmtree(place.data)
    message = refused_training()
    assert "train.jsonl" in message
    assert "no such file" in message


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"windows": [[4.0, 1.0]]}, ["start", "4", "1"]),
        ({"windows": [[1.0, float("nan")]]}, ["windows"]),
        ({"windows": "all"}, ["windows"]),
        ({"duration": -1.0}, ["duration", "-1"]),
        ({"duration": "long"}, ["duration", "long"]),
        ({"query": ""}, ["sentence is empty"]),
        ({"query": None}, ["query"]),
        ({"video_id": ""}, ["video_id"]),
        ({"query_id": "train-0001_0"}, ["train-0001_0", "twice"]),
        ({"point": "soon"}, ["point"]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_record_that_cannot_be_right(place, refused_training, changes, fragments):
    path = change_first(place, "train", **changes)
    message = refused_training()
    assert str(path) in message
    assert [fragment for fragment in fragments if fragment not in message] == []


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "train.jsonl"),
        (b'{"query_id": "caf\xe9"}\n', "not UTF-8"),
        (b"\x80\x04\x95\x00", "train.jsonl"),
        (b'{"query_id": "0", "video_id"', "train.jsonl"),
    ],
    ids=["empty", "latin-1", "pickle", "cut-short"],
)
def test_an_annotation_file_of_another_kind(place, refused_training, content, fragment):
    (place.data / "shapes" / "train.jsonl").write_bytes(content)
    assert fragment in refused_training()


def test_training_queries_without_a_glance(place, refused_training):
    change_rows(place, "train", lambda rows: [{k: v for k, v in row.items() if k != "point"} for row in rows])
    message = refused_training()
    assert "RGN learns from glances" in message
    assert "train-0000_0" in message


def test_training_queries_of_unknown_words_only(place, refused_training):
    change_rows(place, "train", lambda rows: [{**row, "query": "qwertz uiop"} for row in rows])
    message = refused_training()
    assert "words.txt" in message
    assert "wanted words" in message


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluated_queries_of_unknown_words_only(place, refused_training, split):
    change_rows(place, split, lambda rows: [{**row, "query": "qwertz uiop"} for row in rows])
    message = refused_training()
    assert f"{split}.jsonl: the model knows no word of any" in message


def test_selection_on_validation_where_nothing_is_held_out(refused_training):
    message = refused_training("--data.splits.validation", "null", "--data.splits.held_out", "0")
    assert "train.select is validation" in message


def test_too_few_videos_to_hold_some_out(place, refused_training):
    change_rows(place, "train", lambda rows: [row for row in rows if row["video_id"] == "train-0000"])
    message = refused_training("--data.splits.validation", "null")
    assert "too few videos" in message


# features and words


def features_of(place) -> Path:
    return place.data / "shapes" / "features.h5"


def test_a_truncated_feature_file(place, refused_training):
    path = features_of(place)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in refused_training()


def test_a_video_without_features(place, refused_training):
    with h5py.File(features_of(place), "a") as file:
        del file["test-0002"]
    message = refused_training()
    assert "'test-0002'" in message
    assert "test.jsonl" in message


def test_features_of_another_width(refused_training):
    message = refused_training("--data.features.dim", "512")
    assert "has width 16, expected 512" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_not_a_number(place, refused_training, value):
    with h5py.File(features_of(place), "a") as file:
        file["val-0001"][2, 3] = value
    message = refused_training()
    assert "'val-0001'" in message
    assert "NaN" in message


def test_a_video_without_rows(place, refused_training):
    with h5py.File(features_of(place), "a") as file:
        del file["train-0003"]
        file["train-0003"] = np.zeros((0, 16), dtype=np.float32)
    assert "'train-0003'" in refused_training()


def test_features_made_by_another_extractor(refused_training):
    message = refused_training("--data.features.made_for", "{extractor: CLIP ViT-B/32, fps: 1}")
    assert "Shapes pixel statistics" in message
    assert "CLIP ViT-B/32" in message


def test_a_manifest_field_that_does_not_exist(refused_training):
    message = refused_training("--data.features.made_for", "{extracter: CLIP}")
    assert "'extracter'" in message
    assert "extractor" in message


@pytest.mark.parametrize("kind", ["missing", "text", "folder"])
def test_a_feature_path_that_holds_none(place, refused_training, kind):
    path = features_of(place)
    path.unlink()
    if kind == "text":
        path.write_text("these are no features\n")
    elif kind == "folder":
        path.mkdir()
    assert str(path) in refused_training()


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (pickle.dumps({"red": [0.1, 0.2]}), "GloVe text"),
        (b"red 0.1 0.2 0.3\ngreen 0.1\n", "words.txt:2"),
        (b"red 0.1 inf\n", "'red'"),
        (b"", "no vectors"),
        (None, "no such file"),
    ],
    ids=["pickle", "ragged", "infinite", "empty", "missing"],
)
def test_word_vectors_of_another_kind(place, refused_training, content, fragment):
    path = place.data / "shapes" / "words.txt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    message = refused_training()
    assert str(path) in message
    assert fragment in message


# the run folder


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


def test_nothing_to_resume(place, refused_training):
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


def test_a_disk_that_is_full_when_the_results_are_written(place, trained, refused, file_limit, capsys):
    shutil.copytree(trained.place.run, place.run)
    (place.run / "report.html").unlink()
    before = digests(place.run / "checkpoints")
    file_limit((trained.place.run / "report.html").stat().st_size - 500)
    message = refused(cli.train, *place.train_arguments("--resume"))
    assert "report.html" in message
    assert list(place.run.rglob("*.partial")) == []
    assert digests(place.run / "checkpoints") == before


# checkpoints


def rewrite(path: Path, **changes) -> None:
    """Changes keys of the description that a checkpoint holds."""
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["vmr"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    save_file(tensors, path, metadata={"vmr": json.dumps({**meta, **changes})})


def test_no_checkpoint_at_all(refused):
    for arguments in ([], ["--checkpoint"]):
        assert "checkpoint" in refused(cli.evaluate, *arguments)
        assert "checkpoint" in refused(cli.predict, "--video", "v", "--query", "a", *arguments)


def test_a_checkpoint_that_is_not_there(refused, tmp_path):
    assert "no such checkpoint" in refused(cli.evaluate, "--checkpoint", tmp_path / "none.safetensors")
    assert "holds no checkpoint" in refused(cli.evaluate, "--checkpoint", tmp_path)


def test_a_checkpoint_of_another_package(asked, checkpoint, refused):
    rewrite(checkpoint, package="cfmr")
    message = refused(cli.evaluate, *asked)
    assert "'cfmr'" in message
    assert "'rgn'" in message


def test_a_checkpoint_cut_short(asked, checkpoint, refused):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    message = refused(cli.predict, *asked, "--video", "test-0000", "--query", "the red circle spins")
    assert str(checkpoint) in message
    assert "cut short" in message


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path(self.path),))

    def __init__(self, path):
        self.path = str(path)


def test_a_pickle_as_checkpoint_is_never_loaded(asked, checkpoint, refused, tmp_path):
    checkpoint.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert "never loaded" in refused(cli.evaluate, *asked)
    torch.save({"model": torch.zeros(2)}, checkpoint)
    assert "never loaded" in refused(cli.evaluate, *asked)
    assert not (tmp_path / "sprung").exists()


def test_safetensors_that_are_no_checkpoint(asked, checkpoint, refused):
    save_file({"weight": torch.zeros(2)}, checkpoint)
    assert "not a checkpoint of ours" in refused(cli.evaluate, *asked)


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"describe": {}}, "holds no configuration"),
        ({"describe": None}, "holds no configuration"),
        ({"state": {}}, "'words'"),
        ({"state": {"words": 3}}, "words"),
        ({"state": {"words": ["red", "red"]}}, "words"),
        ({"format": 99}, "99"),
    ],
    ids=str,
)
def test_a_checkpoint_with_a_damaged_description(asked, checkpoint, refused, changes, fragment):
    rewrite(checkpoint, **changes)
    message = refused(cli.evaluate, *asked)
    assert str(checkpoint) in message
    assert fragment in message


def test_a_checkpoint_whose_configuration_is_of_another_version(asked, checkpoint, refused):
    with safe_open(checkpoint, framework="pt") as file:
        describe = json.loads(file.metadata()["vmr"])["describe"]
    describe["config"]["model"]["depth"] = 3
    rewrite(checkpoint, describe=describe)
    message = refused(cli.evaluate, *asked)
    assert "unknown key model.depth" in message
    assert str(checkpoint) in message


def test_a_checkpoint_of_other_sizes_than_asked_for(asked, refused):
    message = refused(cli.evaluate, *asked, "--model.hidden", "32")
    assert "do not fit this model" in message
    assert "found" in message


def test_a_configuration_beside_a_checkpoint(asked, refused):
    assert "the checkpoint holds its configuration" in refused(cli.evaluate, *asked, "--cfg", "shapes")


# evaluation and prediction


@pytest.mark.parametrize(
    ("more", "fragment"),
    [
        (["--split", "exam"], "'exam'"),
        (["--annotations", "none.jsonl"], "none.jsonl"),
        (["--protocols", "[lenient]"], "lenient"),
        (["--protocols", "[]"], "protocols"),
        (["--train.eval_batch", "0"], "train.eval_batch"),
    ],
)
def test_an_evaluation_that_cannot_be_done(asked, refused, more, fragment):
    assert fragment in refused(cli.evaluate, *asked, *more)


def test_predictions_that_cannot_be_written_do_not_cost_the_scores(asked, refused, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status = cli.evaluate([*asked, "--out", str(tmp_path / "file" / "out.jsonl")])
    captured = capsys.readouterr()
    assert status == 2
    assert "error: cannot write" in captured.err
    assert "chance" in captured.out


@pytest.mark.parametrize(
    ("more", "fragments"),
    [
        (["--video", "test-0000", "--query", "the red circle spins", "-k", "-1"], ["-k", "-1"]),
        (["--video", "test-0000", "--query", "the red circle spins", "-k", "some"], ["k: ", "some"]),
        (["--video", "test-0000", "--query", "the red circle spins", "--duration", "0"], ["--duration", "0"]),
        (
            ["--video", "test-0000", "--query", "the red circle spins", "--duration", "-3"],
            ["--duration", "-3"],
        ),
        (
            ["--video", "test-0000", "--query", "the red circle spins", "--duration", "nan"],
            ["duration", "nan"],
        ),
        (["--video", "test-9999", "--query", "the red circle spins"], ["'test-9999'", "features.h5"]),
        (["--video", "", "--query", "the red circle spins"], ["--video"]),
        (["--video", "test-0000", "--query", " "], ["--query"]),
        (["--video", "test-0000", "--query", "qwertz"], ["no word of the query"]),
        (["--video", "test-0000"], ["--query"]),
        (["--query", "the red circle spins"], ["--video"]),
        ([], ["--video", "--query"]),
        (["--queries", "none.jsonl"], ["none.jsonl"]),
        (["--queries", "q.jsonl", "--video", "test-0000"], ["either --queries"]),
        (["--queries", "q.jsonl", "--duration", "3"], ["either --queries"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_request_that_cannot_be_answered(asked, refused, more, fragments):
    message = refused(cli.predict, *asked, *more)
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_a_length_that_is_not_known_is_asked_for(asked, place, refused):
    for split in ("train", "val", "test"):
        (place.data / "shapes" / f"{split}.jsonl").unlink()
    with h5py.File(features_of(place), "a") as file:
        del file.attrs["manifest"]
    request = ["--data-root", place.data, "--video", "test-0000", "--query", "the red circle spins"]
    assert "give --duration" in refused(cli.predict, *asked, *request)


# import


@pytest.fixture
def imported(place, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("red\nspins\n")
    given = [
        "--cfg",
        place.config,
        "--data-root",
        place.data,
        "--words",
        words,
        "--out",
        tmp_path / "out.safetensors",
    ]
    return lambda weights, *more: [*given, "--weights", weights, *more]


def test_released_weights_that_are_not_there(imported, refused, tmp_path):
    assert "no such file" in refused(cli.import_official, *imported(tmp_path / "none.pt"))


@pytest.mark.parametrize(
    "content",
    [b"", b"text", b"PK\x03\x04 cut short", b"\x80\x02}q\x00.", b"\x80\x04K\x01", bytes(range(256))],
    ids=["empty", "text", "zip", "old", "no-end", "noise"],
)
def test_released_weights_of_another_kind(imported, refused, tmp_path, content):
    for suffix in (".pt", ".safetensors", ".npz"):
        weights = tmp_path / f"weights{suffix}"
        weights.write_bytes(content)
        assert str(weights) in refused(cli.import_official, *imported(weights))


def test_a_pickle_as_released_weights_is_never_run(imported, refused, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert str(weights) in refused(cli.import_official, *imported(weights))
    torch.save({"model_parameters": Trap(tmp_path / "sprung")}, weights)
    assert str(weights) in refused(cli.import_official, *imported(weights))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("tensors", "fragment"),
    [
        ({"head.weight": torch.zeros(2)}, "'head.weight'"),
        ({"mask_vec": torch.zeros(2)}, "words"),
        ({"fc_comp.bias": torch.zeros(3)}, "do not fit this model"),
        ({"fc_comp.bias": torch.zeros(())}, "the weights expect 0"),
    ],
    ids=["other names", "no classifier", "nothing else", "scalar"],
)
def test_released_weights_that_do_not_fit(imported, refused, tmp_path, tensors, fragment):
    weights = tmp_path / "weights.pt"
    torch.save({"model_parameters": tensors}, weights)
    assert fragment in refused(cli.import_official, *imported(weights))
    assert not (tmp_path / "out.safetensors").exists()


def test_a_word_list_that_cannot_be_right(imported, refused, tmp_path):
    weights, words = tmp_path / "weights.pt", tmp_path / "words.txt"
    torch.save({"fc_comp.bias": torch.zeros(3)}, weights)
    words.write_text("red\nqwertz\n")
    assert "'qwertz'" in refused(cli.import_official, *imported(weights))
    words.write_text("red\nred\n")
    assert "twice" in refused(cli.import_official, *imported(weights))
    words.write_bytes(b"\xff\n")
    assert "not UTF-8" in refused(cli.import_official, *imported(weights))
