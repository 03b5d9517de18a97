"""CFMR over a collection: an ordinary index of `vmr-search`, whose ranking inside one video is the model's own."""

import shutil
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cfmr.index.commands import _example, _questions, _with_features
from cfmr.index.corpus import measure
from cfmr.retriever import CFMRRetriever
from vmr_common.errors import UserError
from vmr_common.metrics import iou
from vmr_common.types import Query
from vmr_search import Filter, Search
from vmr_search.building import build, extend
from vmr_search.folder import CorpusIndex, open_index
from vmr_train.splits import SplitConfig

QUERIES = ["word1 word2", "word3", "word4 word5 word6 word7", "word8 word9", "word10 word2 word3", "word20"]


@pytest.fixture
def index(tmp_path, encoder, store, durations) -> CorpusIndex:
    return build(tmp_path / "index", CFMRRetriever(encoder), store, durations, batch=40)


def search(index) -> Search:
    return Search(index.engine, index.retriever)


def test_search_by_sentence_needs_nothing_but_the_index(tmp_path, index):
    moved = tmp_path / "elsewhere"
    shutil.copytree(index.folder, moved)
    assert [list(one) for one in search(open_index(moved)).many(QUERIES, 5)] == [
        list(one) for one in search(index).many(QUERIES, 5)
    ]


def test_search_in_one_video_is_the_models_own_ranking(index, encoder, store):
    vectors = encoder.encode_videos([store["v007"]])[0]
    query = encoder.encode_queries(QUERIES[:1])[0]
    scores = (vectors @ query).numpy()
    hit = search(index)(QUERIES[0], 1, where=Filter(videos=frozenset(["v007"])))[0]
    assert hit.video == "v007"
    assert hit.score == pytest.approx(scores.max(), abs=2e-3)
    proposal = np.abs(encoder.moments * store.length("v007") - [hit.start, hit.end]).sum(axis=1).argmin()
    assert scores[proposal] == pytest.approx(hit.score, abs=2e-3)


def test_moments_of_one_video_overlap_at_most_as_much_as_asked_for(index):
    for hits in search(index).many(QUERIES, 200, nms=0.3):
        for video in {hit.video for hit in hits}:
            windows = np.array([[hit.start, hit.end] for hit in hits if hit.video == video])
            overlap = iou(windows[:, None], windows[None], union="true") - np.eye(len(windows))
            assert overlap.max(initial=0) <= 0.3 + 1e-9


def test_videos_are_encoded_alike_alone_and_together(encoder, store):
    together = encoder.encode_videos([store[video] for video in store.videos()[:8]])
    alone = torch.cat([encoder.encode_videos([store[video]]) for video in store.videos()[:8]])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_building_again_does_nothing_and_another_model_is_refused(
    index, encoder, other_encoder, store, durations
):
    state = index.engine.manifest
    again = build(index.folder, CFMRRetriever(encoder), store, durations)
    assert again.engine.manifest == state
    with pytest.raises(UserError, match="built by model"):
        build(index.folder, CFMRRetriever(other_encoder), store, durations)
    assert extend(index, store, durations) == 0


def test_recall_counts_what_the_annotations_can_tell(index, encoder, durations, caplog):
    texts = {"v001": QUERIES[0], "v002": QUERIES[1], "v003": "qwertz"}

    def asked(glance, moments=()):
        facts = {"moments": moments, "glance": glance}
        return [
            Query(id=video, video=video, text=text, duration=durations[video], **facts)
            for video, text in texts.items()
        ]

    found = measure(index, encoder, asked(1.0))
    assert (found.queries, found.located, found.right) == (3, 3, "holds the glance")
    holding = np.mean(
        [start * durations["v001"] <= 1 <= end * durations["v001"] for start, end in encoder.moments]
    )
    assert found.moment_chance[1] == pytest.approx(holding / len(index.engine), rel=0.2)
    assert "no word that the model knows in 1 of 3 queries, which are misses: v003 ('qwertz')" in caplog.text
    hidden = measure(index, encoder, asked(None))
    assert (hidden.video, hidden.moment, hidden.located) == (found.video, {}, 0)
    assert hidden.text().endswith("no row of moments: the annotations hold neither moments nor glances")
    mixed = measure(index, encoder, [*asked(1.0, [[0.0, 1.0]])[:1], *asked(1.0)[1:]])
    assert (mixed.located, mixed.right) == (1, "IoU >= 0.5")
    assert mixed.text().endswith("rows of moments: 1 of the sentences, those with a target")


def test_an_example_for_the_next_command_generates_no_data(tmp_path):
    splits = SimpleNamespace(test=SplitConfig(split="shapes/test"))
    encoder = SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(splits=splits)))
    assert _example(encoder, tmp_path) == '"..."'
    assert not list(tmp_path.iterdir())


def test_videos_without_features_are_left_out_and_named(caplog):
    assert _with_features(["a", "b"], {"a"}) == ["a"]
    assert "1 of 2 videos are left out, without features: 'b'" in caplog.text


def test_questions_are_looked_for_under_the_data_root_first(tmp_path, monkeypatch, encoder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    given = Namespace(queries="q.txt", data_root="root")
    lacking = r"^root/q\.txt: no such file; looked for under root .* current folder$"
    with pytest.raises(UserError, match=lacking), _questions(given, encoder):
        pass
    for folder, count in ((tmp_path, 1), (tmp_path / "root", 2)):
        (folder / "q.txt").write_text("word1\n" * count)
        with _questions(given, encoder) as asked:
            assert asked.count == count


def test_the_words_that_are_unknown_are_named_once(tmp_path, encoder, caplog):
    (tmp_path / "q.txt").write_text("word1 x\nword1\nx y word1\n")
    with _questions(Namespace(queries=str(tmp_path / "q.txt"), data_root=None), encoder):
        assert caplog.messages == ["2 words in 2 of 3 queries are unknown to the model: 'x', 'y'"]
