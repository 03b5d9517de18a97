"""The search of long videos against its plain form, and what it must not depend on."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from rgnet.config import SearchConfig
from rgnet.matching import matching_scores
from rgnet.model import Frames, RGNet, Tokens
from rgnet.search import ranking
from rgnet.search.search import LongVideoSearch, TextVectors
from rgnet.windows import video_windows
from rgnet_toy import SECONDS, WINDOW, network, searcher, text, video

CONFIG = SearchConfig(windows=4, window_batch_size=3)


def plain(model: RGNet, config: SearchConfig, features: torch.Tensor, query: TextVectors):
    """Every window as a padded batch of its own pairs, everything decoded, nothing shared."""
    windows = video_windows(len(features), WINDOW)
    longest = int(windows[:, 1].max())
    frames = torch.zeros(len(windows), longest, features.shape[1])
    mask = torch.zeros(len(windows), longest, dtype=torch.bool)
    for row, (first, length) in enumerate(windows.tolist()):
        frames[row, :length], mask[row, :length] = features[first : first + length], True
    tokens = Tokens.padded([query.tokens] * len(windows))
    with torch.no_grad():
        output = model(tokens, Frames(frames, mask))
    retrieval = output.retrieval.sigmoid().double().numpy()
    spans, probability = output.spans[-1], output.logits[-1].softmax(-1)[..., 0]
    unit = frames / frames.norm(dim=-1, keepdim=True)
    matching = matching_scores(unit @ query.sentence, spans, mask.sum(1)).double().numpy()
    order = np.argsort(-retrieval, kind="stable")
    best = order[: config.windows]
    score = retrieval[best, None]
    rows = ranking.candidate_rows(
        spans.double().numpy()[best], probability.double().numpy()[best] * score, matching[best] * score,
        windows[best], SECONDS,
    )  # fmt: skip
    return order, retrieval, rows


def found(model, config, requests):
    search = searcher(model, config)
    prepared = {id(features): search.prepare(features, features) for features, _ in requests}
    return search.search([(prepared[id(features)], query) for features, query in requests])


def by_start(rows: np.ndarray) -> np.ndarray:
    """Rows in an order that rounding does not change; scores of one window may be as good as equal."""
    return rows[np.lexsort(rows.T[::-1])]


def assert_same(one, other):
    np.testing.assert_array_equal(one.order, other.order)
    np.testing.assert_allclose(one.retrieval, other.retrieval, atol=1e-5)
    np.testing.assert_allclose(by_start(one.rows), by_start(other.rows), atol=3e-4)


@pytest.mark.parametrize("rows", [1, 3, 9, 10, 26, 47, 100])
def test_the_search_finds_what_the_plain_form_finds(rows):
    model, features = network(), video(rows)
    for words in (1, 3, 6):
        query = text(words)
        one = found(model, CONFIG, [(features, query)])[0]
        order, retrieval, candidates = plain(model, CONFIG, features, query)
        if rows > WINDOW // 2:  # shorter videos have two windows that are the same
            np.testing.assert_array_equal(one.order, order)
        np.testing.assert_allclose(one.retrieval, retrieval, atol=1e-5)
        np.testing.assert_allclose(by_start(one.rows), by_start(candidates), atol=3e-4)


@pytest.mark.parametrize("pairs", [1, 2, 7, 64])
def test_results_do_not_depend_on_how_many_windows_go_together(pairs):
    model, features, query = network(), video(83), text(4)
    config = SearchConfig(windows=4, window_batch_size=pairs)
    assert_same(found(model, config, [(features, query)])[0], found(model, CONFIG, [(features, query)])[0])


def test_fixed_results_do_not_depend_on_the_rest_of_the_batch():
    model, videos = network(), [video(31), video(64), video(7)]
    requests = [(videos[n % 3], text(1 + n, n)) for n in range(8)]
    config = SearchConfig(windows=4, window_batch_size=64)
    together = found(model, config, requests)
    backwards = found(model, config, requests[::-1])[::-1]
    for request, one, turned in zip(requests, together, backwards, strict=True):
        assert_same(one, found(model, config, [request])[0])
        assert_same(one, turned)


def test_released_results_do_depend_on_the_rest_of_the_batch():
    model, features = network(released=True), video(47)
    alone = found(model, CONFIG, [(features, text(5))])[0]
    together = found(model, CONFIG, [(features, text(5)), (features, text(1))])[0]
    assert np.abs(alone.retrieval - together.retrieval).max() > 1e-3


def test_moments_are_ranked_by_the_proposal_score_alone_without_sentence_vectors():
    model, features = network(), video(60)
    search = searcher(model, CONFIG)
    one = search.search([(search.prepare(features, None), text(4, sentence=False))])[0]
    rows, _ = one.ranked(CONFIG)
    assert not one.matched
    assert (rows[:, ranking.MATCHING] == 0).all()
    assert (np.diff(rows[:, ranking.PROPOSAL]) <= 0).all()
    np.testing.assert_array_equal(rows[:, ranking.FUSED], rows[:, ranking.PROPOSAL])


def test_kept_moments_are_unlike_each_other_and_know_their_window():
    model, features = network(), video(90)
    one = found(model, CONFIG, [(features, text(4))])[0]
    rows, windows = one.ranked(CONFIG)
    assert set(windows.tolist()) <= set(one.order[: CONFIG.windows].tolist())
    for number, row in enumerate(rows):
        for other in rows[:number]:
            shared = max(0.0, min(row[1], other[1]) - max(row[0], other[0]))
            assert shared <= 0.5 * (max(row[1], other[1]) - min(row[0], other[0]))


def test_coarse_selection_of_all_windows_changes_nothing_and_of_few_scores_those_alone():
    model, features, query = network(), video(95), text(4)
    whole = found(model, CONFIG, [(features, query)])[0]
    count = len(whole.order)
    all_of_them = SearchConfig(windows=4, window_batch_size=3, coarse_windows=count)
    assert_same(found(model, all_of_them, [(features, query)])[0], whole)
    few = SearchConfig(windows=4, window_batch_size=3, coarse_windows=6)
    search = searcher(model, few)
    prepared = search.prepare(features, features)
    one = search.search([(prepared, query)])[0]
    chosen = np.argsort(-search.coarse_scores(prepared, query), kind="stable")
    assert set(one.order[:6].tolist()) == set(chosen[:6].tolist())
    assert one.order[6:].tolist() == chosen[6:].tolist()
    examined = np.isfinite(one.retrieval)
    assert sorted(one.order[:6].tolist()) == np.flatnonzero(examined).tolist()
    np.testing.assert_allclose(one.retrieval[examined], whole.retrieval[examined], atol=1e-5)


def test_coarse_scores_are_the_three_best_cosines_of_each_window():
    model, features, query = network(), video(33), text(4)
    search = searcher(model, CONFIG)
    scores = search.coarse_scores(search.prepare(features, features), query)
    cosines = (features / features.norm(dim=1, keepdim=True)) @ query.sentence
    for score, (first, length) in zip(scores, video_windows(33, WINDOW).tolist(), strict=True):
        wanted = cosines[first : first + length].sort(descending=True).values[:3].sum()
        assert score == pytest.approx(wanted.item(), abs=1e-5)


@pytest.mark.e2e
def test_three_hours_are_searched():
    # 5 rows per second
    model, features = network(), video(54_000)
    search = LongVideoSearch(
        model, SearchConfig(windows=5, window_batch_size=8), window=900, feature_stride=0.2
    )
    one = search.search([(search.prepare(features, features), text(6))])[0]
    assert len(one.order) == 121
    assert one.rows.shape == (5 * 4, 4)
    assert np.isfinite(one.rows).all()
    assert one.rows[:, 1].max() <= 54_000 * 0.2 * 1.01 + 180


def test_the_kept_state_is_bounded_by_the_best_windows_not_by_the_video(monkeypatch):
    model, kept = network(), []
    features, query = video(3_000), text(3)
    search = searcher(model, SearchConfig(windows=3, window_batch_size=4))
    keep = search._keep
    monkeypatch.setattr(search, "_keep", lambda pairs, *rest: (keep(pairs, *rest), kept.append(len(pairs))))
    search.search([(search.prepare(features, features), query)])
    assert len(kept) > 100
    assert max(kept) == 3


MEMORY = """
import resource, numpy as np, torch
from rgnet.config import ModelConfig, SearchConfig
from rgnet.search.search import LongVideoSearch, TextVectors
from rgnet.model import RGNet
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
model = RGNet(ModelConfig(position_temperature=100.0), frame_dim=512, token_dim=512).eval()
features = torch.from_numpy(np.random.default_rng(0).normal(size=(36_000, 512)).astype(np.float32))
search = LongVideoSearch(model, SearchConfig(windows=30), window=900, feature_stride=0.2)
before = peak()
found = search.search([(search.prepare(features, features), TextVectors(torch.ones(25, 512), torch.ones(512)))])
assert len(found[0].order) == 81
print(peak() - before)
"""


@pytest.mark.slow
def test_two_hours_at_full_size_take_less_than_two_gigabytes_above_the_features():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.0
