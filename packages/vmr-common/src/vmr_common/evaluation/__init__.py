"""The evaluation rule sets of the field, by name, and the tables that they give."""

from vmr_common.evaluation.clip_labels import ClipLabels
from vmr_common.evaluation.glance import Glance, measurable
from vmr_common.evaluation.packing import Packed, pack
from vmr_common.evaluation.presets import names, protocol, suiting
from vmr_common.evaluation.qvhighlights import QVHighlights
from vmr_common.evaluation.recall import PerQuery, Protocol
from vmr_common.evaluation.scores import Scores, format_table

__all__ = [
    "ClipLabels",
    "Glance",
    "Packed",
    "PerQuery",
    "Protocol",
    "QVHighlights",
    "Scores",
    "format_table",
    "measurable",
    "names",
    "pack",
    "protocol",
    "suiting",
]
