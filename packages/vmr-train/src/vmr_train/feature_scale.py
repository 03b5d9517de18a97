"""The scale of feature columns as a part of what a model learns: measured before training, kept in checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vmr_common.errors import UserError
from vmr_common.features.pooling import FeatureNormalizer, FeaturesByVideo, Standardised
from vmr_common.types import Query
from vmr_train.checkpoint import Checkpoint, require_finite


def measured_scale(features: FeaturesByVideo, queries: Sequence[Query]) -> FeatureNormalizer:
    """The scale of the feature columns over the videos of training queries."""
    return FeatureNormalizer.measure(features, dict.fromkeys(query.video for query in queries))


def stored_scale(checkpoint: Checkpoint, columns: int | None) -> FeatureNormalizer | None:
    """The scale of the feature columns that a checkpoint holds.

    Args:
        checkpoint: Of a task.
        columns: Of the features, where they are standardised; None where they are not, and there is no scale.

    Raises:
        UserError: if it holds none, or not one number for each column (a deviation above 0).
    """
    if columns is None:
        return None
    names = ("feature_mean", "feature_std")
    found = {name: tensor for name, tensor in checkpoint.state_tensors.items() if name in names}
    if len(found) < len(names):
        raise UserError(
            f"{checkpoint.path}: data.standardise is on, but it holds no feature_mean and feature_std"
        )
    for name, tensor in found.items():
        if tensor.shape != (columns,) or tensor.dtype != torch.float32:
            raise UserError(
                f"{checkpoint.path}: state.{name}: found {tensor.dtype} {tuple(tensor.shape)}, expected one float32 "
                f"number for each of {columns:,} feature columns"
            )
    require_finite(found, checkpoint.path, "numbers of the tensor")
    mean, std = (found[name] for name in names)
    if not (std > 0).all():
        raise UserError(f"{checkpoint.path}: state.feature_std: found a deviation of 0 or less")
    return FeatureNormalizer(mean.numpy(), std.numpy())


def scale_tensors(scale: FeatureNormalizer | None) -> dict[str, Tensor]:
    """What a checkpoint keeps of a scale ``(D,)``; nothing where features are not standardised."""
    if scale is None:
        return {}
    return {"feature_mean": torch.from_numpy(scale.mean), "feature_std": torch.from_numpy(scale.std)}


def scaled(features: FeaturesByVideo, scale: FeatureNormalizer | None) -> FeaturesByVideo:
    """The features as a model reads them."""
    return features if scale is None else Standardised(features, scale)
