"""The encoder of an index sees what the model saw in training."""

import functools

import torch

from cfmr.data import keep, stack_clips
from cfmr.model import flat_concepts
from vmr_train.prepared import PreparedFeatures


def test_features_are_standardised_as_in_training(standardising_encoder, encoder, store):
    video = store.videos()[50]
    clips = PreparedFeatures(store, functools.partial(keep, clips=16))
    kept = standardising_encoder.preprocessor.normalise(clips)
    expected = flat_concepts(standardising_encoder.model.encode_video(stack_clips([kept[video]])))
    found = standardising_encoder.encode_videos([store[video]])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not torch.allclose(found, encoder.encode_videos([store[video]]), atol=1e-3)


def test_another_scale_is_another_model_to_an_index(standardising_encoder, encoder):
    assert standardising_encoder.hash() != encoder.hash()
