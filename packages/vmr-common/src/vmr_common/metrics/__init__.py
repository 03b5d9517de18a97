"""Temporal overlap, suppression, recall and average precision: pure functions on numpy arrays.

The rule sets of published evaluations are built from these in `vmr_common.evaluation`. Windows are
``[start, end]`` along the last axis, in any one unit. Everything is batched over queries: loops run at most
over ranks, thresholds or distinct proposals.
"""

from vmr_common.metrics.overlap import (
    Booleans,
    Compare,
    Floats,
    Integers,
    Union,
    best_at,
    hits,
    iou,
    nms,
)
from vmr_common.metrics.precision import average_precision, match, step_precision

__all__ = [
    "Booleans",
    "Compare",
    "Floats",
    "Integers",
    "Union",
    "average_precision",
    "best_at",
    "hits",
    "iou",
    "match",
    "nms",
    "step_precision",
]
