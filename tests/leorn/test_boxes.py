"""Frames with boxes: lines lie on the box, say how strong it is, and leave the rest alone."""

import io

import numpy as np
import pytest
from PIL import Image

from leorn.boxes import box_strip, draw_boxes, resize

GREY = np.full((100, 200, 3), 100, np.uint8)


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_box_changes_the_pixels_on_its_edge_and_no_others():
    drawn = draw_boxes(GREY, [[0.1, 0.2, 0.5, 0.8]], [1.0], colour=(255, 0, 0))
    line, shadow = np.zeros((100, 200), bool), np.zeros((100, 200), bool)
    line[20:80, 20:100] = True
    line[23:77, 23:97] = False
    shadow[19:81, 19:101] = True
    shadow[20:80, 20:100] = False
    np.testing.assert_array_equal((drawn != GREY).any(axis=-1), line | shadow)
    assert (drawn[line] == (255, 0, 0)).all()
    assert (drawn[shadow] == 40).all()
    assert (GREY == 100).all()  # the frame itself is left alone


def test_stronger_boxes_are_clearer_wider_and_on_top():
    changes = [
        np.abs(draw_boxes(GREY, [[0.1, 0.1, 0.9, 0.9]], [s]).astype(int) - 100) for s in (0.0, 0.1, 0.5, 1.0)
    ]
    assert [c.max() for c in changes] == sorted({c.max() for c in changes})
    assert not changes[0].any()
    assert (changes[3].any(axis=-1)).sum() > (changes[1].any(axis=-1)).sum()
    same = [[0.1, 0.1, 0.9, 0.9]] * 2
    np.testing.assert_array_equal(draw_boxes(GREY, same, [1.0, 0.1]), draw_boxes(GREY, same, [0.1, 1.0]))


def test_boxes_beyond_the_frame_are_cut_and_wrong_shapes_refused():
    drawn = draw_boxes(GREY, [[-0.5, -0.5, 0.5, 0.5], [2, 2, 3, 3]], [1, 1])
    changed = (drawn != GREY).any(axis=-1)
    assert changed[48, 10]
    assert not changed[52:].any()
    assert not changed[0, 0]  # the edge there lies outside
    with pytest.raises(ValueError, match=r"found \(100, 200, 3\), \(1, 3\) and \(1,\)"):
        draw_boxes(GREY, [[0, 0, 1]], [1])
    with pytest.raises(ValueError, match="found 2, 1, 2"):
        box_strip(np.stack([GREY] * 2), np.zeros((1, 1, 4)), np.zeros((2, 1)))


@pytest.mark.parametrize("box", [[0.6, 0.1, 0.2, 0.9], [0.5, 0.5, 0.5, 0.9], [np.nan, 0.1, 0.2, -np.inf]])
def test_a_box_that_encloses_nothing_is_not_drawn(box):
    assert (draw_boxes(GREY, [box], [1]) == GREY).sum() >= GREY.size - 3 * 2 * 42  # a shadow at the most


def test_the_lines_of_a_tiny_or_endless_box_stay_inside_of_it():
    changed = (draw_boxes(GREY, [[0.5, 0.5, 0.51, 0.52], [-1e300, 0.9, 1e300, np.inf]], [1, 1]) != GREY).any(
        axis=-1
    )
    assert changed[50:52, 100:102].all()
    changed[49:53, 99:103] = False  # with its shadow
    assert not changed[:88].any()
    assert changed[89:93].all()
    assert not changed[93:].any()


def test_small_frames_grow_by_whole_factors_and_large_ones_shrink():
    frame = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    grown = resize(frame, 7)
    assert grown.shape == (6, 9, 3)
    np.testing.assert_array_equal(grown[::3, ::3], frame)
    assert resize(GREY, 50).shape == (50, 100, 3)


def test_a_strip_shows_every_frame_in_order_of_time():
    frames = np.stack([np.full((20, 30, 3), level, np.uint8) for level in (10, 60, 120)])
    boxes = np.tile([0.0, 0.0, 0.5, 1.0], (3, 1, 1))
    sheet = decoded(box_strip(frames, boxes, [[0.0], [1.0], [0.0]], height=40, columns=2))
    assert sheet.shape == (2 * 40 + 4, 2 * 60 + 4, 3)
    assert (sheet[:40, :60] == 10).all()
    assert (sheet[:40, 64 + 32 :] == 60).all()
    assert (sheet[0, 64] != 60).any()
    assert (sheet[44:, :60] == 120).all()
    assert (sheet[44:, 64:] == 255).all()
    assert (sheet[40:44] == 255).all()
