"""The named rule sets of the field; docs/metrics.md says who uses which and what each is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vmr_common.errors import UserError
from vmr_common.evaluation.clip_labels import ClipLabels
from vmr_common.evaluation.glance import Glance, measurable
from vmr_common.evaluation.qvhighlights import QVHighlights
from vmr_common.evaluation.recall import Protocol
from vmr_common.types import Query

# The zero-shot script of MAD, CONE and RGNet. Suppression is the system's own. The originals refuse a file that lacks
# a query; here it is a miss, and counted in the header.
_MAD = Protocol(
    name="mad",
    thresholds=(0.1, 0.3, 0.5),
    ranks=(1, 5, 10, 50, 100),
    miou_ranks=(),
    compare=">",
    union="hull",
    precision="float32",
)

_PROTOCOLS = (
    # our default: true union, float64 seconds, >=, nothing clamped or rounded, every query counts
    Protocol(name="strict"),
    # Official evaluation of 2D-TAN, CDN and LEORN: strictly above the threshold, after suppression; the mean overlap is
    # that of the first survivor. Targets are cut to the video here as in the methods' readers, which also leave out
    # those that then do not start before they end (see `splits.policies`). Suppression is 0.5 in most configurations;
    # 0.4 on TACoS (2D-TAN, CDN) and 0.45 on Charades-STA (2D-TAN with pooling).
    Protocol(
        name="proposal-map",
        thresholds=(0.1, 0.3, 0.5, 0.7),
        miou_ranks=(1,),
        compare=">",
        union="hull",
        clamp_gt=True,
        nms=0.5,
    ),
    # Runner of CPL, RGN and CFMR: windows in float32 and limited to [0, 1], targets in float64 and NOT cut, so that
    # they may end past the video; (intersection + 1e-10) / (hull + 1e-10); no suppression. With fewer than five
    # windows the second rank is their number, and named so (R@4).
    Protocol(
        name="point",
        thresholds=(0.1, 0.3, 0.5, 0.7, 0.9),
        union="hull",
        eps=1e-10,
        precision="mixed",
        units="fractions",
        clamp_predictions=True,
        cap_ranks=True,
    ),
    # ViGA: targets rounded to four decimals and limited to [0, 1]; recalls rounded to four decimals. The second mean
    # overlap is that of the window AT rank 5 (key `rank 5,mIoU`), not of the best of five.
    Protocol(
        name="viga",
        union="hull",
        miou="rank",
        precision="float32",
        units="fractions",
        round_to=4,
        clamp_gt=True,
        clamp_predictions=True,
        decimals=4,
    ),
    # Official evaluation of Ego4D natural language queries, seconds in the clip. Only queries that have a prediction
    # count, so an incomplete file scores higher; the table's header shows how many are missing. The challenge gives
    # ranks 1 and 5; CONE and RGNet add 10, 50 and 100.
    Protocol(
        name="ego4d-nlq",
        thresholds=(0.3, 0.5),
        miou_ranks=(1,),
        compare=">",
        union="hull",
        denominator="predictions",
    ),
    _MAD,
    # the VLG-Net baseline on MAD
    replace(_MAD, name="mad-vlg", compare=">=", thresholds=(0.1, 0.3, 0.5, 0.7)),
    QVHighlights(
        name="qvhighlights",
        ranks=(1,),
        miou_ranks=(),
        union="hull",
    ),
    # UMT on TVSum, and QD-DETR, CG-DETR and others after it; papers give it per domain, and the mean of the domains
    ClipLabels(name="tvsum", top=5, above="median"),
    # the same runner on YouTube Highlights
    ClipLabels(name="youtube-highlights"),
    Glance(name="glance"),
)
_BY_NAME = {rules.name: rules for rules in _PROTOCOLS}


def names() -> tuple[str, ...]:
    """The names that `protocol` knows.

    Example:
        >>> "strict" in names()
        True
    """
    return tuple(_BY_NAME)


def protocol(name: str) -> Protocol:
    """The rule set of that name.

    Raises `UserError` if there is none; names the known ones.

    Example:
        >>> protocol("proposal-map").describe()
        'IoU > m in seconds, after NMS 0.5'
    """
    if name not in _BY_NAME:
        raise UserError(f"unknown protocol {name!r}; known: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def suiting(name: str, queries: Sequence[Query]) -> str:
    """The name of the protocol that suits queries: `name` where any has a moment, else one for what they have.

    Labels of clips by several annotators are those of TVSum, others those of YouTube Highlights; else there may be
    glances. Where there is nothing it is `name`.

    Example:
        >>> suiting("strict", [Query(id="1", video="v", text="a dog runs", duration=30.0, glance=4.0)])
        'glance'
    """
    by = measurable(queries)
    labels = [query.saliency for query in queries if query.saliency is not None]
    if by != "moments" and labels:
        return "tvsum" if labels[0].shape[1] > 1 else "youtube-highlights"
    return "glance" if by == "glance" else name
