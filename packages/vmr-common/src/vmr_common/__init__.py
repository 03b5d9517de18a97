"""Video moment retrieval: annotations, splits, features, text, temporal IoU metrics and protocols.

The modules below this package need numpy, h5py and tqdm only. Public names are imported on their first use.

Example:
    >>> import vmr_common
    >>> float(vmr_common.iou([2.0, 6.0], [4.0, 8.0]).round(3))
    0.333
"""

from typing import TYPE_CHECKING

from vmr_common.errors import UserError
from vmr_common.lazy import lazy_names
from vmr_common.version import __version__

if TYPE_CHECKING:
    from vmr_common.evaluation import Protocol, Scores, format_table, protocol
    from vmr_common.evaluation.paired import format_differences, paired_differences
    from vmr_common.features.manifest import Manifest
    from vmr_common.features.store import FeatureStore, write_features
    from vmr_common.metrics import average_precision, iou, nms
    from vmr_common.predictions import read_predictions
    from vmr_common.splits.load import Split, custom_split, load_split
    from vmr_common.types import Prediction, Query, write_predictions

__all__ = [
    "FeatureStore",
    "Manifest",
    "Prediction",
    "Protocol",
    "Query",
    "Scores",
    "Split",
    "UserError",
    "__version__",
    "average_precision",
    "custom_split",
    "format_differences",
    "format_table",
    "iou",
    "load_split",
    "nms",
    "paired_differences",
    "protocol",
    "read_predictions",
    "write_features",
    "write_predictions",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "vmr_common.errors": "UserError",
        "vmr_common.evaluation": "Protocol Scores format_table protocol",
        "vmr_common.evaluation.paired": "format_differences paired_differences",
        "vmr_common.features.manifest": "Manifest",
        "vmr_common.features.store": "FeatureStore write_features",
        "vmr_common.metrics": "average_precision iou nms",
        "vmr_common.splits.load": "Split custom_split load_split",
        "vmr_common.predictions": "read_predictions",
        "vmr_common.types": "Prediction Query write_predictions",
        "vmr_common.version": "__version__",
    },
)
