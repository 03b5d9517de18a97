"""The scale of feature columns as a part of what a model learns: measured before training, kept in checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vmr_common.errors import UserError
from vmr_common.pooling import ColumnScale, FeaturesByVideo, Standardised
from vmr_common.records import Query
from vmr_common.training.checkpoint import Checkpoint


def measured_scale(features: FeaturesByVideo, queries: Sequence[Query]) -> ColumnScale:
    """The scale of the feature columns over the videos of training queries."""
    return ColumnScale.measure(features, dict.fromkeys(query.video for query in queries))


def stored_scale(checkpoint: Checkpoint) -> ColumnScale:
    """The scale of the feature columns that a checkpoint holds.

    Raises:
        UserError: if it holds none.
    """
    mean, std = (checkpoint.state_tensors.get(f"feature_{name}") for name in ("mean", "std"))
    if mean is None or std is None:
        raise UserError(
            f"{checkpoint.path}: data.standardise is on, but it holds no feature_mean and feature_std"
        )
    return ColumnScale(mean.numpy(), std.numpy())


def scale_tensors(scale: ColumnScale | None) -> dict[str, Tensor]:
    """What a checkpoint keeps of a scale ``(D,)``; nothing where features are not standardised."""
    if scale is None:
        return {}
    return {"feature_mean": torch.from_numpy(scale.mean), "feature_std": torch.from_numpy(scale.std)}


def scaled(features: FeaturesByVideo, scale: ColumnScale | None) -> FeaturesByVideo:
    """The features as a model reads them."""
    return features if scale is None else Standardised(features, scale)
