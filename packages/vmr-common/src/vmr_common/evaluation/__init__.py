"""The evaluation rule sets of the field, by name, and the tables that they give."""

from vmr_common.evaluation.packing import Packed, pack
from vmr_common.evaluation.presets import (
    ego4d_nlq,
    mad,
    mad_vlg,
    names,
    point,
    proposal_map,
    protocol,
    strict,
    viga,
)
from vmr_common.evaluation.qvhighlights import QVHighlights, qvhighlights
from vmr_common.evaluation.recall import PerQuery, Protocol, Suppression
from vmr_common.evaluation.scores import Scores, format_table

__all__ = [
    "Packed",
    "PerQuery",
    "Protocol",
    "QVHighlights",
    "Scores",
    "Suppression",
    "ego4d_nlq",
    "format_table",
    "mad",
    "mad_vlg",
    "names",
    "pack",
    "point",
    "proposal_map",
    "protocol",
    "qvhighlights",
    "strict",
    "viga",
]
