"""The baseline ``zero-shot``: it finds what stands out, whatever the offset and the scale of the similarities."""

import time

import numpy as np
import pytest

from vmr_common.evaluation.zero_shot import similarities, zero_shot_moments, zero_shot_predictions
from vmr_common.metrics import iou
from vmr_common.types import Query


def video(rows: int, moment: tuple[int, int], strength: float = 0.4, seed: int = 0):
    """Frames ``(rows, 64)``, all with a large part in common, and a sentence that those of the moment resemble."""
    drawn = np.random.default_rng(seed)
    sentence = drawn.standard_normal(64).astype(np.float32)
    frames = drawn.standard_normal((rows, 64)).astype(np.float32) + 3 * drawn.standard_normal(64)
    frames[slice(*moment)] += strength * sentence
    return frames.astype(np.float32), sentence


@pytest.mark.parametrize(
    ("rows", "moment"), [(30, (8, 16)), (150, (40, 90)), (3000, (700, 715)), (40, (0, 6))]
)
def test_the_moment_that_stands_out_is_found(rows, moment):
    frames, sentence = video(rows, moment, strength=1.0)
    for shift in (1.0, 40.0):  # of the frames' lengths
        moments, scores = zero_shot_moments(frames * shift, sentence * 0.1, 0.5, rows / 2)
        assert iou(moments[0], np.array(moment) / 2) > 0.85
        assert (np.diff(scores) <= 0).all()
    assert len(moments) <= 5
    assert (iou(moments[:, None], moments)[np.triu_indices(len(moments), 1)] <= 0.5).all()


def test_short_and_even_videos_have_an_answer_too():
    sentence = np.ones(2)
    for frames in (np.ones((1, 2)), np.ones((9, 2)), np.zeros((4, 2))):
        moments, scores = zero_shot_moments(frames, sentence, 1.0, 3.0)
        assert moments.tolist() == [[0, 3]]
        assert scores.tolist() == [0]
    moments, _ = zero_shot_moments(np.eye(2), np.array([0.0, 1.0]), 1.0, 1.5)
    assert moments.tolist() == [[1, 1.5]]
    black = np.array([[0.0, 0.0], [1, 1], [1, 0]])
    assert similarities(black, sentence)[0] == pytest.approx((1 + np.sqrt(0.5)) / 2)
    with pytest.raises(ValueError, match="share no space"):
        zero_shot_moments(np.ones((3, 4)), np.ones(3), 1.0, 3.0)


def test_three_hours_at_five_frames_take_no_time():
    frames, sentence = video(54_000, (9_000, 9_400), strength=1.0)
    begin = time.process_time()
    moments, _ = zero_shot_moments(frames, sentence, 0.2, 10_800.0)
    assert time.process_time() - begin < 2  # about 0.2 s
    assert iou(moments[0], [1800, 1880]) > 0.85


def test_each_query_gets_a_prediction():
    frames, sentence = video(30, (8, 16), strength=1.0)
    queries = [Query(id=str(n), video="v", text="t", duration=60.0, moments=[[16, 32]]) for n in range(3)]
    read = []
    found = zero_shot_predictions(
        queries, lambda name: read.append(name) or frames, lambda _: sentence, None, k=2
    )
    assert read == ["v"]  # once for all its queries
    assert [one.query for one in found] == ["0", "1", "2"]
    assert all(iou(one.moments[0], [16, 32]) > 0.85 for one in found)
