"""The second stage: stretches of long videos, one score of two, what is said where there is no such moment."""

from types import SimpleNamespace

import numpy as np
import pytest

from search_toy import WordRetriever, corpus
from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_common.features.store import FeatureStore, write_features
from vmr_search import Filter, FoundVideo, Search
from vmr_search.method_grounder import MethodGrounder
from vmr_search.methods import methods, open_method, package_of


class FirstRows:
    """A method that calls the first two seconds right, and its score the first number of the features."""

    package = "toy"
    inputs = SimpleNamespace(store={})

    def __init__(self, presence=None):
        self.presence, self.asked = presence, []

    def predict_many(self, videos, sentence, k=5, *, durations=None, manifest=None):
        self.asked.append((videos, durations))
        answers = []
        for rows in videos:
            moments, scores = np.array([[0.0, 2.0], [4.0, 6.0]]), np.array([rows[0, 0], rows[0, 0] - 1.0])
            answers.append(SimpleNamespace(moments=moments[:k], scores=scores[:k], presence=self.presence))
        return answers


@pytest.fixture
def store(tmp_path):
    """A row a second: of `kitchen` and `garden` the value is that of the row, 100 seconds of `long`."""
    rows = {"kitchen": 6, "garden": 4, "long": 100}
    write_features(
        tmp_path / "f.h5",
        [(name, np.arange(count, dtype=np.float32)[:, None] + 5 * (name == "garden")) for name, count in rows.items()],
        Manifest(stride_s=1.0),
    )  # fmt: skip
    return FeatureStore(tmp_path / "f.h5")


def found(video, duration, *windows):
    spans, scores = [window[:2] for window in windows], [window[2] for window in windows]
    return FoundVideo(video, duration, np.array(spans, float), np.array(scores, np.float32))


def test_a_long_video_is_read_around_its_best_window(store):
    method = FirstRows()
    grounder = MethodGrounder(method, store, context=10.0)
    videos = [
        found("long", 100.0, (0, 4, 0.1), (70, 74, 0.9)),
        found("kitchen", 6.0, (0, 4, 0.5)),
        found("lost", 9.0, (0, 4, 0.4)),
        found("long", 100.0, (98, 100, 0.3)),
    ]
    answers = grounder.ground("red", videos)
    assert answers[2] is None
    (rows, durations), *_ = method.asked
    assert [len(one) for one in rows] == [10, 6, 10]
    assert durations == [10.0, 6.0, 10.0]
    assert answers[0].moments.tolist() == [[67.0, 69.0], [71.0, 73.0]]
    assert answers[1].moments.tolist() == [[0.0, 2.0], [4.0, 6.0]]
    assert answers[3].moments[0].tolist() == [90.0, 92.0]


def test_the_fused_score_is_of_both_stages_in_units_of_their_spread(store):
    grounder = MethodGrounder(FirstRows(), store, weight=0.25)
    videos = [found("kitchen", 6.0, (0, 4, 0.9), (1, 2, 0.2)), found("garden", 4.0, (0, 4, 0.5))]
    scores = grounder.fuse("red", videos, grounder.ground("red", videos))
    first = np.array([0.9, 0.2, 0.5, 0.5], np.float32).astype(float)  # the first window is half of (0, 2)
    second = np.array([0.0, -1.0, 5.0, 4.0])
    wanted = 0.75 * (first - first.mean()) / first.std() + 0.25 * (second - second.mean()) / second.std()
    np.testing.assert_allclose(np.concatenate(scores), wanted)
    assert grounder.fuse("red", [], []) == []
    assert MethodGrounder(FirstRows(), store).fuse("red", videos[:1], grounder.ground("red", videos[:1]))


@pytest.mark.parametrize(("presence", "note"), [(0.2, "probably no such moment"), (0.5, ""), (None, "")])
def test_a_best_answer_that_is_hardly_there_is_said_to_be_none(store, presence, note):
    search = Search(corpus(), WordRetriever(), grounder=MethodGrounder(FirstRows(presence), store))
    results = search("red circle", k=3, videos=3, where=Filter(after=0.5))
    assert note in results.note
    assert bool(results.note) == bool(note)
    assert {hit.video for hit in results} <= {"kitchen", "garden"}
    assert {hit.presence for hit in results} == {presence}


def test_without_a_video_that_has_features_it_is_said(store):
    with pytest.raises(UserError, match="none of 1 found videos has features there"):
        MethodGrounder(FirstRows(), store).ground("red", [found("lost", 9.0, (0, 4, 0.4))])


@pytest.mark.parametrize(
    ("settings", "named"), [({"weight": 2.0}, "weight: found"), ({"context": 0.0}, "context: found")]
)
def test_impossible_settings_are_named(store, settings, named):
    with pytest.raises(UserError, match=named):
        MethodGrounder(FirstRows(), store, **settings)


RECORDED = "e2e/checkpoints-0.1"


def test_a_checkpoint_says_which_paper_wrote_it(request, tmp_path):
    folder = request.config.rootpath / "tests" / RECORDED
    assert {package_of(folder / f"{name}.safetensors") for name in methods()} == set(methods())
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.safetensors").write_bytes((folder / "cdn.safetensors").read_bytes())
    assert package_of(tmp_path) == "cdn"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "no such checkpoint"),
        (b"", "not a whole safetensors file"),
        (b"PK\x03\x04not safetensors", "not a safetensors checkpoint"),
        ((2).to_bytes(8, "little") + b"{}", "no checkpoint of a paper"),
        (b'{"__metadata__":{"vmr":"{\\"package\\":7}"}}', "key package"),
        (b'{"__metadata__":{"vmr":"{\\"package\\":\\"other\\"}"}}', "'other', which is not installed"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, named):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(len(content).to_bytes(8, "little") + content if content[:2] == b'{"' else content)
    with pytest.raises(UserError, match=named):
        open_method(path)


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint"):
        package_of(tmp_path)
