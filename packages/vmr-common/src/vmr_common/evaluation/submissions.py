"""Prediction files of other systems in, submission files of the evaluation servers out.

Read: our JSON lines and QVHighlights submissions (the same layout), Ego4D natural-language-query submissions,
and arrays in ``.npz``. Written and checked: the layouts of the QVHighlights and the Ego4D servers.
"""

from vmr_common.evaluation.ego4d_files import check_ego4d, read_ego4d, write_ego4d
from vmr_common.evaluation.qvhighlights_files import check_qvhighlights, write_qvhighlights
from vmr_common.evaluation.reading import read_any, read_npz

__all__ = [
    "check_ego4d",
    "check_qvhighlights",
    "read_any",
    "read_ego4d",
    "read_npz",
    "write_ego4d",
    "write_qvhighlights",
]
