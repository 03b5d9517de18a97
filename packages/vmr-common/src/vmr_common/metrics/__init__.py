"""Temporal overlap, suppression, recall, average precision and AUROC: pure functions on numpy arrays.

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
from vmr_common.metrics.precision import average_precision, match, step_precision, trapezoid_precision
from vmr_common.metrics.separation import auroc, recall_at_false_alarms, weighted_auroc

__all__ = [
    "Booleans",
    "Compare",
    "Floats",
    "Integers",
    "Union",
    "auroc",
    "average_precision",
    "best_at",
    "hits",
    "iou",
    "match",
    "nms",
    "recall_at_false_alarms",
    "step_precision",
    "trapezoid_precision",
    "weighted_auroc",
]
