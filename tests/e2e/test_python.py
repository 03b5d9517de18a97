"""Every paper from Python: train, load, ask, explain; the examples of all docstrings, and what wrong input is told."""

import doctest
import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import leorn
import rgn
from folders import MODELS
from leorn.object_features.shapes_file import ensure_objects
from tiny_papers import SPEC, default_of, tiny
from vmr_common import FeatureStore, Manifest, UserError, write_features
from vmr_common.splits.load import custom_split
from vmr_shapes import read_spec
from vmr_shapes.video_files import Form, write_videos
from vmr_train import api
from vmr_train import model as of_model

SENTENCE = "the red circle spins"


@pytest.fixture(scope="module")
def data(tiny_data, tmp_path_factory) -> Path:
    """A data root with the small Shapes and its objects."""
    root = tmp_path_factory.mktemp("python-data")
    shutil.copytree(tiny_data, root, dirs_exist_ok=True)
    ensure_objects(root / "shapes", read_spec(root / "shapes")).rename(root / "objects.h5")
    return root


@pytest.fixture(scope="module")
def desk(data, tmp_path_factory) -> Path:
    """A folder with a finished run of every paper, each of its default name, and the configuration of each."""
    folder = tmp_path_factory.mktemp("desk")
    for paper in MODELS:
        (folder / f"{paper}.yaml").write_text(yaml.safe_dump(tiny(paper)))
        run = importlib.import_module(paper).train(
            folder / f"{paper}.yaml", data_root=data, runs=folder / "runs"
        )
        assert run.folder == folder / "runs" / paper / default_of(paper)
        assert run.report.is_file()
        assert run.results[0]["name"] == paper
        assert repr(run).startswith(f"{run.folder}\nprotocol")
        assert "presence: AUROC 0." in repr(run)
        assert 0 <= run.results[0]["presence"]["auroc"] <= 1
    return folder


@pytest.fixture
def at_desk(desk, monkeypatch):
    monkeypatch.chdir(desk)
    monkeypatch.delenv("VMR_DATA", raising=False)
    return desk


@pytest.mark.parametrize("paper", MODELS)
def test_the_examples_of_a_papers_names_run(paper, at_desk, data, monkeypatch):
    monkeypatch.setenv("VMR_DATA", str(data))
    shutil.rmtree(f"runs/{paper}/short", ignore_errors=True)
    module = importlib.import_module(paper)
    modules = [importlib.import_module(f"{paper}.api")] + [api, of_model] * (paper == "rgn")
    found = [test for one in modules for test in doctest.DocTestFinder().find(one) if test.examples]
    names = {test.name.rpartition(".")[2] for test in found}
    assert {"load", "load_config", "train", "explain"} <= names
    for test in found:
        for example in test.examples:  # the bundled configuration would take minutes
            example.source = example.source.replace(f'.train("{default_of(paper)}"', f'.train("{paper}.yaml"')
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0, test.name
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert inspect.getdoc(getattr(module, name))


@pytest.mark.parametrize("paper", MODELS)
def test_a_video_is_an_id_an_array_or_a_file(paper, at_desk, data, tmp_path):
    # the data root comes from the checkpoint
    model = importlib.import_module(paper).load(f"runs/{paper}/{default_of(paper)}")
    assert model.root == data
    found = model.predict("test-0000", SENTENCE, k=2)
    assert found.moments.shape == (2, 2)
    assert found[0].score >= found[1].score
    # how likely it is there at all, where validation has shown that the model tells
    assert model.checkpoint.presence.split == "val.jsonl"
    assert (found.presence is not None) == model.checkpoint.presence.figures.works
    one, other = model.predict("test-0000", [SENTENCE, "the blue square grows"], k=2)
    np.testing.assert_allclose(one.moments, found.moments, atol=1e-4)
    assert other.prediction.text == "the blue square grows"
    if paper == "leorn":
        objects = model.inputs.store.objects["test-0000"]
        video = {"features": objects.features, "confidence": objects.confidence, "boxes": objects.boxes}
        file = data / "objects.h5"
    else:
        video = model.inputs.store["test-0000"]
        file = tmp_path / "own.npy"
        np.save(file, video)
    given = model.predict(video, SENTENCE, k=2, duration=found.duration)
    np.testing.assert_allclose(given.moments, found.moments, atol=1e-4)
    many = model.predict_many(["test-0001", "test-0000"], SENTENCE, k=2)
    np.testing.assert_allclose(many[1].moments, found.moments, atol=1e-4)
    assert many[1].presence == pytest.approx(found.presence, abs=1e-4)
    rows = [np.zeros((4, 3)) if paper == "leorn" else model.inputs.store["test-0001"], video]
    if paper == "leorn":
        with pytest.raises(UserError, match="reads objects"):
            model.predict_many(rows[:1], SENTENCE, durations=[9.0])
    else:
        many = model.predict_many(rows, SENTENCE, k=2, durations=[many[0].duration, found.duration])
        np.testing.assert_allclose(many[1].moments, found.moments, atol=1e-4)
    if paper == "leorn":
        with pytest.raises(UserError, match="holds 26 videos, expected one"):
            model.predict(file, SENTENCE, duration=9.0)
        with pytest.raises(UserError, match=r"found no confidence, boxes; expected arrays by name"):
            model.predict({"features": video["features"]}, SENTENCE, duration=9.0)
        assert "attention" in repr(model.explain(video, SENTENCE, duration=9.0))
        name = model.explain(video, SENTENCE, duration=9.0).text.partition(":")[0]
        np.save(tmp_path / f"{name}.npy", np.zeros((8, 40, 40, 3), np.uint8))
        seen = model.explain(video, SENTENCE, duration=9.0, frames=tmp_path)
        assert "data:image/png;base64," in seen.show()
    else:
        again = model.predict(str(file), SENTENCE, k=2, duration=found.duration)
        np.testing.assert_array_equal(again.moments, given.moments)
        np.testing.assert_array_equal(again.scores, given.scores)  # whatever the file's name
        with pytest.raises(UserError, match=r"found features \(.*, 5\), expected \(T, 16\)"):
            model.predict(video[:, :5], SENTENCE, duration=9.0)
        model._videos._rows_times_stride = lambda store, name: None
        for asked, name in ((file, r"video '.*own\.npy'"), (video, "the given features")):
            with pytest.raises(UserError, match=f"^the length of {name} is not known: give duration"):
                model.predict(asked, SENTENCE)


def test_predictions_and_explanations_are_texts_and_pages(at_desk, tmp_path):
    model = rgn.load("runs/rgn/shapes")
    found, seen = (
        model.predict("test-0000", "the <red> circle spins", k=3),
        model.explain("test-0000", SENTENCE),
    )
    assert repr(found).splitlines()[1].split() == ["rank", "start", "end", "score"]
    assert len(list(found)) == len(found[:]) == 3
    for page in (found.show(), seen.show(), found._repr_html_()):
        assert page.startswith("<figure")
        assert "<red>" not in page
    found.show().save(tmp_path / "page.html")
    assert "&lt;red&gt;" in (tmp_path / "page.html").read_text()
    assert seen["windows"].shape == (4, len(seen["times"]))
    assert "NLL" in repr(seen)


def test_wrong_questions_are_one_error_that_says_what_was_expected(at_desk, data, caplog, tmp_path):
    model = rgn.load("runs/rgn/shapes")
    with pytest.raises(UserError, match=r"video: found 'nope', expected an id in .*features.h5 \(26 videos"):
        model.predict("nope", SENTENCE)
    with pytest.raises(UserError, match="knows no word of 'zzz yyy'"):
        model.predict("test-0000", [SENTENCE, "zzz yyy"])
    caplog.clear()
    with pytest.raises(UserError, match="knows no word of 'zzz yyy'"):
        model.predict("test-0000", "zzz yyy")
    assert caplog.text == ""  # the error says it
    rows = model.inputs.store["test-0000"]
    for video in (None, 5, {"features": rows}, [[1.0, 2.0], [3.0]]):
        with pytest.raises(
            UserError, match=r"expected the id of a video .*, an array of .* \(T, D\), or the path"
        ):
            model.predict(video, SENTENCE)
    with pytest.raises(
        UserError, match=r"expected the id of a video .*, arrays by name .*, or the path of a file"
    ):
        leorn.load("runs/leorn/shapes").predict(rows, SENTENCE)
    for checkpoint in (5, None):
        with pytest.raises(
            UserError, match=f"found {checkpoint}, expected the path .* a run folder, or a .*Run"
        ):
            rgn.load(checkpoint)
    with pytest.raises(UserError, match="config: found 5, expected a bundled name, a YAML file or a Config"):
        rgn.load_config(5)
    with pytest.raises(UserError, match=r"rgn\.yaml: not a safetensors checkpoint$"):
        rgn.load("rgn.yaml")
    with pytest.raises(UserError, match=r"sentence: found \[' '\], expected words"):
        model.predict("test-0000", " ")
    with pytest.raises(UserError, match="k: found 0, expected at least 1"):
        model.predict("test-0000", SENTENCE, k=0)
    with pytest.raises(UserError, match=r"k: found 1\.5, expected a whole number"):
        model.predict("test-0000", SENTENCE, k=1.5)
    with pytest.raises(UserError, match="sentence: found 7, expected words"):
        model.predict("test-0000", 7)
    with pytest.raises(UserError, match=r"duration must be positive seconds up to 1e\+09, found 0"):
        model.predict("test-0000", SENTENCE, duration=0)
    with pytest.raises(UserError, match="holds 26 videos, expected one"):
        model.predict(data / "shapes/features.h5", SENTENCE)
    with pytest.raises(UserError, match=r"nowhere.npy: no such feature file"):
        model.predict(Path("nowhere.npy"), SENTENCE)
    with pytest.raises(
        UserError, match=r"rgn: train.epoch: unknown key train.epoch \(did you mean train.epochs\?\)"
    ):
        rgn.load_config("shapes", {"train.epoch": 3})
    with pytest.raises(UserError, match="already holds a run"):
        rgn.train("rgn.yaml", data_root=data)
    caplog.clear()
    model.predict("test-0000", "the red circle skateboards")
    assert "unknown to the model: 'skateboards'" in caplog.text
    # features that say nothing of time: the manifest's stride is the only clock
    write_features(tmp_path / "one.h5", [("a", np.ones((12, 16), np.float32))], Manifest(stride_s=2.0))
    with pytest.raises(UserError, match=r"one\.h5: other features than .* stride_s is 2\.0, was 0\.5"):
        model.predict(tmp_path / "one.h5", SENTENCE)
    other = rgn.load("runs/rgn/shapes", allow_other_features=True)
    assert other.predict(tmp_path / "one.h5", SENTENCE).duration == 24.0


@pytest.mark.parametrize("paper", MODELS)
def test_features_made_in_another_way_are_refused_or_said(
    paper, at_desk, data, tmp_path, caplog, done, refused
):
    part, fact = ("objects", "detector") if paper == "leorn" else ("features", "extractor")
    file = shutil.copyfile(
        data / ("objects.h5" if paper == "leorn" else "shapes/features.h5"), tmp_path / "f.h5"
    )
    with h5py.File(file, "r+") as changed:
        changed.attrs["manifest"] = json.dumps({**json.loads(changed.attrs["manifest"]), fact: "another"})
        del changed["test-0001"]
    folder, cli = f"runs/{paper}/{default_of(paper)}", importlib.import_module(f"{paper}.cli")
    for command, *asked in ((cli.predict, "--video", "test-0000", "--query", SENTENCE), (cli.evaluate,)):
        asked = [
            "--checkpoint",
            folder,
            *asked,
            f"--data.{part}.path",
            file,
            f"--data.{part}.missing",
            "drop",
        ]
        assert f"{fact} is 'another', was " in refused(command, *asked)
        caplog.clear()
        table = done(command, *asked, "--allow-other-features")
        assert caplog.text.count("is 'another', was") == 1
    without = [
        query for query in custom_split(data / "shapes/test.jsonl").queries if query.video == "test-0001"
    ]
    line = f"{len(without)} queries without prediction, because there are no features of the video"
    assert line in table
    changes = {f"data.{part}.path": str(file), f"data.{part}.missing": "drop"}
    model = importlib.import_module(paper).load(folder, allow_other_features=True, **changes)
    assert model.evaluate()[0]["num_without_features"] == len(without)


def test_training_goes_without_videos_that_have_no_features(at_desk, data, tmp_path, caplog):
    with FeatureStore(data / "shapes/features.h5") as store:
        kept = [(video, store[video]) for video in store.videos() if not video.endswith("-0001")]
        write_features(tmp_path / "fewer.h5", kept, store.manifest)
    changes = {"data.features.path": str(tmp_path / "fewer.h5")}
    with pytest.raises(UserError, match=r"no features for 1 video of train.*data\.features\.missing: drop"):
        rgn.train("rgn.yaml", data_root=data, runs=tmp_path, **changes)
    run = rgn.train("rgn.yaml", data_root=data, runs=tmp_path, **changes, **{"data.features.missing": "drop"})
    assert run.results[0]["num_missing"] == run.results[0]["num_without_features"] > 0
    said = [line for line in caplog.messages if "without features of their video" in line]
    assert [line.partition(":")[0] for line in said] == ["train.jsonl", "val.jsonl", "test.jsonl"]
    assert "are left out" in said[0]
    assert "count as misses" in said[2]


def test_a_run_is_resumed_on_other_features_only_where_that_is_allowed(at_desk, data, tmp_path):
    shutil.copytree("runs/rgn/shapes", tmp_path / "rgn/shapes")
    with FeatureStore(data / "shapes/features.h5") as store:
        same = [(video, store[video]) for video in store.videos()]
        write_features(tmp_path / "same.h5", same, store.manifest)
    given = {"data_root": data, "runs": tmp_path, "resume": True}
    changes = {"data.features.path": str(tmp_path / "same.h5"), "train.epochs": 2}
    with pytest.raises(
        UserError,
        match=r"cannot resume, the features were features\.h5 .* are now same\.h5 .*--allow-other-features",
    ):
        rgn.train("rgn.yaml", **given, **changes)
    run = rgn.train("rgn.yaml", **given, allow_other_features=True, **changes)
    assert json.loads((run.folder / "run.json").read_text())["epoch"] in (1, 2)


def test_commands_find_the_data_of_a_checkpoint_from_any_folder(
    at_desk, data, done, refused, monkeypatch, tmp_path
):
    from rgn import cli

    monkeypatch.chdir(tmp_path)
    asked = ["--checkpoint", at_desk / "runs/rgn/shapes", "--video", "test-0000", "--query", SENTENCE]
    assert done(cli.predict, *asked).startswith("test-0000  the red circle spins\n")
    assert "elsewhere" in refused(cli.predict, *asked, "--data-root", "elsewhere")
    monkeypatch.setenv("VMR_DATA", "environment")
    assert "environment" in refused(cli.predict, *asked)


@pytest.mark.parametrize("package", [*MODELS, "vmr_common", "vmr_train"])
def test_a_package_is_imported_at_once_and_lists_its_names(package):
    heavy = "{'torch', 'numpy', 'yaml'} & set(sys.modules)"
    code = f"import sys, {package} as p; print(dir(p) == sorted(p.__all__), *{heavy})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "True\n"


def test_features_of_a_store_and_an_index_of_its_own(at_desk, data):
    store = FeatureStore(data / "shapes/features.h5")
    model = rgn.load("runs/rgn/shapes", **{"data.features.path": str(data / "shapes/features.h5")})
    assert model.predict(store.videos()[0], SENTENCE).prediction.video == store.videos()[0]
    assert model.evaluate("validation")[0]["split"] == "val.jsonl"
    assert model.evaluate(annotations=data / "shapes/test.jsonl")[0]["num_queries"] > 0


@pytest.fixture(scope="module")
def films(data, tmp_path_factory) -> Path:
    """Two videos of the small Shapes as files without loss, beside what is no video."""
    folder = tmp_path_factory.mktemp("films")
    write_videos(folder, SPEC, ["test-0000", "test-0001"], Form(lossless=True))
    (folder / "notes.txt").write_text(f"{SENTENCE}\n\nthe blue square grows\n")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("paper", MODELS)
def test_a_video_file_is_answered_as_its_stored_features(paper, at_desk, films, cache, done):
    """Without loss a file has the pixels of the data set, so that all that follows is the same."""
    predict = importlib.import_module(f"{paper}.cli").predict
    run = ["--checkpoint", f"runs/{paper}/{default_of(paper)}", "--json", "--cache", cache]
    asked = ["--query", SENTENCE, "--query", "the blue square grows"]
    file = films / "test-0000.mkv"
    stored = [
        json.loads(line) for line in done(predict, *run[:-2], "--video", "test-0000", *asked).splitlines()
    ]
    made = [json.loads(line) for line in done(predict, *run, "--video-file", file, *asked).splitlines()]
    assert [row["query"] for row in made] == [SENTENCE, "the blue square grows"]
    assert [row["vid"] for row in made] == ["test-0000"] * 2
    for row, other in zip(made, stored, strict=True):
        np.testing.assert_allclose(row["pred_relevant_windows"], other["pred_relevant_windows"], atol=1e-4)
    model = importlib.import_module(paper).load(f"runs/{paper}/{default_of(paper)}")
    found = model.predict(file, SENTENCE, cache=cache)
    np.testing.assert_allclose(found.moments, [m[:2] for m in made[0]["pred_relevant_windows"]], atol=1e-4)
    assert model.explain(str(file), SENTENCE, cache=cache).show().startswith("<figure")


def test_many_sentences_about_many_files(at_desk, data, films, cache, done, refused):
    from rgn import cli

    run = ["--checkpoint", "runs/rgn/shapes", "--cache", cache, "--video-file", films / "test-0000.mkv"]
    two = [*run, films / "test-0001.mkv"]
    listed = done(cli.predict, *two, "--queries", films / "notes.txt", "-k", 1)
    assert [line.split("  ")[0] for line in listed.splitlines() if line.startswith("test-")] == [
        "test-0000", "test-0000", "test-0001", "test-0001",
    ]  # fmt: skip
    annotated = done(cli.predict, *two, "--queries", data / "shapes/test.jsonl", "-k", 1, "--json")
    of_both = [
        q for q in custom_split(data / "shapes/test.jsonl").queries if q.video in ("test-0000", "test-0001")
    ]
    assert [json.loads(line)["qid"] for line in annotated.splitlines()] == [query.id for query in of_both]
    assert "no query is about" in refused(cli.predict, *two, "--queries", data / "shapes/train.jsonl")
    # neither annotations nor features are needed, but the folder with the constants of the features of Shapes
    gone = [*run, "--data-root", "gone", "--query", SENTENCE, "--weights", data / "shapes"]
    assert done(cli.predict, *gone).startswith(f"test-0000  {SENTENCE}\n")


def test_answers_about_a_file_are_pages_cuts_and_markers(at_desk, films, cache, done, tmp_path):
    from rgn import cli

    run = ["--checkpoint", "runs/rgn/shapes", "--cache", cache, "--video-file", films / "test-0000.mkv"]
    wanted = ["--page", tmp_path / "out.html", "--cut", tmp_path / "cuts", "--cut-exact"]
    said = done(cli.predict, *run, "--query", SENTENCE, "-k", 2, *wanted, "--export", tmp_path / "marks.csv")
    assert len(list((tmp_path / "cuts").iterdir())) == said.count("cuts/") == 2
    assert SENTENCE in (tmp_path / "out.html").read_text()
    assert (tmp_path / "marks.csv").read_text().count(SENTENCE) == 2
    model = rgn.load("runs/rgn/shapes")
    found = model.predict(films / "test-0000.mkv", SENTENCE, cache=cache)
    assert found.page(tmp_path / "own.html").is_file()
    assert len(found.cut(tmp_path / "own", exact=True)) == 1
    assert found.export(tmp_path / "own.edl").is_file()
    with pytest.raises(UserError, match="was not given as a video file"):
        model.predict("test-0000", SENTENCE).page(tmp_path / "none.html")


def test_a_bad_file_does_not_cost_the_answers_of_others(at_desk, films, cache, tmp_path, capsys, caplog):
    from rgn import cli

    shutil.copy(films / "test-0000.mkv", tmp_path)
    (tmp_path / "bad.mp4").write_text("no video")
    run = ["--checkpoint", "runs/rgn/shapes", "--cache", cache, "--video-file", tmp_path]
    wanted = ["--page", tmp_path / "out.html", "--export", tmp_path / "marks.csv"]
    assert cli.predict([str(word) for word in [*run, "--query", SENTENCE, "--json", *wanted]]) == 2
    out, error = capsys.readouterr()
    assert [json.loads(line)["qid"] for line in out.splitlines()] == ["test-0000/0"]
    assert error.endswith("error: 1 of 2 videos could not be read, see above\n")
    assert caplog.messages[-1].startswith("failed: ")
    assert "bad.mp4" in caplog.messages[-1]
    assert SENTENCE in (tmp_path / "out.html").read_text()
    assert (tmp_path / "marks.csv").is_file()
    model = rgn.load("runs/rgn/shapes")
    with pytest.raises(UserError, match=r"bad\.mp4"):
        model.predict(tmp_path / "bad.mp4", SENTENCE, cache=cache)
    with pytest.raises(UserError, match=r"^markers: found .*x\.xyz"):
        model.predict(tmp_path / "test-0000.mkv", SENTENCE, cache=cache).export("x.xyz")


def test_two_videos_of_one_name_are_not_taken_for_one_another(at_desk, films, cache, tmp_path):
    import cdn

    other = tmp_path / "test-0000.mkv"
    shutil.copy(films / "test-0001.mkv", other)
    model = cdn.load("runs/cdn/shapes")
    first, second = (model.predict(path, SENTENCE, cache=cache) for path in (films / "test-0000.mkv", other))
    stored = [model.predict(video, SENTENCE) for video in ("test-0000", "test-0001")]
    for one, two in zip((first, second), stored, strict=True):
        np.testing.assert_allclose(one.moments, two.moments, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--page", "x.html"], "--page is for videos that --video-file names"),
        (["--video-file", "a.mp4"], "--video-file needs --query, once or several times, or --queries"),
        (["--video-file", "a.mp4", "--video", "b", "--query", "c"], "give either --video-file or --video"),
        (["--video-file", "a.mp4", "--query", " "], "--query is empty, expected a sentence"),
        (["--video-file", "a.mp4", "--query", "c", "--cut-exact"], "--cut-exact is for --cut"),
        (
            ["--video-file", "a.mp4", "--query", "c", "--export", "x.doc"],
            "expected edl, fcpxml, csv, or a path",
        ),
        (["--video-file", "gone.mp4", "--query", "c"], "gone.mp4"),
        (["--video-file", "rgn.yaml", "--query", "c"], "rgn.yaml"),
        (["--video-file", "gone.mp4", "--queries", "gone.txt"], "gone.txt: no such file"),
    ],
)
def test_what_a_question_about_files_lacks_is_said(options, message, at_desk, refused):
    from rgn import cli

    assert message in refused(cli.predict, "--checkpoint", "runs/rgn/shapes", *options)
