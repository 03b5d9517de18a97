"""What is kept in memory: what was used last, and encoded videos while the weights stay."""

import pickle

import pytest
import torch
from torch import nn

from vmr_train.caches import LRUCache, VideoCache


def test_what_was_used_longest_ago_makes_room():
    kept = LRUCache(10, size=len)
    for key, value in {"a": "....", "b": "....", "c": ".."}.items():
        kept[key] = value
    assert kept.get("a") == "...."
    kept["d"] = "..."
    assert (list(kept), kept.size) == (["c", "a", "d"], 9)
    kept["a"] = "."
    assert (list(kept), kept.size) == (["c", "d", "a"], 6)


def test_the_newest_value_stays_even_if_it_is_too_large():
    kept = LRUCache(3, size=len)
    kept["small"], kept["large"] = ".", "....."
    assert list(kept) == ["large"]


def test_a_pickled_copy_starts_empty():
    kept = LRUCache(3, size=len)
    kept["a"] = "."
    copy = pickle.loads(pickle.dumps(kept))
    assert (len(copy), copy.size, copy.limit) == (0, 0, 3)


@pytest.fixture
def encoder():
    """A layer, its kept videos of 8 bytes each, two at most, and the places of all videos that it encoded."""
    layer, seen = nn.Linear(3, 2), []
    kept = VideoCache(layer, limit=16)

    def encode(places):
        seen.extend(places)
        return layer(torch.eye(3)[places]).detach().unbind()

    return layer, kept, encode, seen


def test_only_videos_not_met_before_are_encoded(encoder):
    layer, kept, encode, seen = encoder
    torch.testing.assert_close(torch.stack(kept.of(["a", "b"], encode)), layer(torch.eye(3))[:2])
    torch.testing.assert_close(torch.stack(kept.of(["b", "a"], encode)), layer(torch.eye(3))[[1, 0]])
    assert seen == [0, 1]


def test_a_batch_larger_than_the_room_is_complete(encoder):
    layer, kept, encode, seen = encoder
    torch.testing.assert_close(torch.stack(kept.of(["a", "b", "c"], encode)), layer(torch.eye(3)))
    assert list(kept) == ["b", "c"]
    kept.of(["a", "b", "c"], encode)
    assert seen == [0, 1, 2, 0]


def test_other_weights_mean_other_encodings(encoder):
    layer, kept, encode, _ = encoder
    kept.of(["a"], encode)
    layer.load_state_dict(nn.Linear(3, 2).state_dict())
    torch.testing.assert_close(kept.of(["a"], encode)[0], layer(torch.eye(3))[0])
