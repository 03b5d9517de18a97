"""The named rule sets of the field; docs/metrics.md says who uses which and what each is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vmr_common.errors import UserError
from vmr_common.evaluation.qvhighlights import qvhighlights
from vmr_common.evaluation.recall import Protocol, Suppression


def strict() -> Protocol:
    """Our default: true union, float64 seconds, ``>=``, nothing clamped or rounded, every query counts.

    Example:
        >>> strict().describe()
        'IoU >= m in seconds'
    """
    return Protocol(name="strict")


def proposal_map(nms: float = 0.5) -> Protocol:
    """Official evaluation of 2D-TAN, CDN and LEORN.

    Seconds, hull, strictly above the threshold, after suppression; the mean overlap is that of the first
    survivor. Targets are cut to the video here as in the methods' readers, which also leave out those that
    then do not start before they end (see `vmr_common.splits.policies`).

    Args:
        nms: Suppression threshold: 0.5 in most configurations; 0.4 on TACoS (2D-TAN, CDN) and 0.45 on
            Charades-STA (2D-TAN with pooling).

    Example:
        >>> proposal_map(nms=0.4).describe()
        'IoU > m in seconds, after NMS 0.4'
    """
    return Protocol(
        name="proposal-map",
        thresholds=(0.1, 0.3, 0.5, 0.7),
        miou_ranks=(1,),
        compare=">",
        union="hull",
        clamp_gt=True,
        nms=Suppression(threshold=nms),
    )


def point() -> Protocol:
    """Runner of the point-supervised methods CPL, RGN and CFMR.

    Fractions of the duration; windows in float32 and limited to [0, 1], targets in float64 and NOT cut, so
    that they may end past the video; ``(intersection + 1e-10) / (hull + 1e-10)``; at or above the threshold;
    no suppression. With fewer than five windows the second rank is their number, and named so (``R@4``).

    Example:
        >>> point().describe()
        'IoU >= m in fractions'
    """
    return Protocol(
        name="point",
        thresholds=(0.1, 0.3, 0.5, 0.7, 0.9),
        union="hull",
        eps=1e-10,
        precision="mixed",
        units="fractions",
        clamp_predictions=True,
        cap_ranks=True,
    )


def viga() -> Protocol:
    """Evaluation of ViGA.

    Fractions in float32; targets rounded to four decimals and limited to [0, 1]; hull; at or above the
    threshold; recalls rounded to four decimals. Its second mean overlap is that of the window AT rank 5
    (key ``rank 5,mIoU``), not of the best of five.

    Example:
        >>> viga().describe()
        'IoU >= m in fractions, float32'
    """
    return Protocol(
        name="viga",
        union="hull",
        miou="rank",
        precision="float32",
        units="fractions",
        round_to=4,
        clamp_gt=True,
        clamp_predictions=True,
        decimals=4,
    )


def ego4d_nlq(ranks: tuple[int, ...] = (1, 5)) -> Protocol:
    """Official evaluation of Ego4D natural language queries: seconds in the clip, hull, strictly above.

    Only queries that have a prediction count, so an incomplete file scores higher; the table's header shows
    how many are missing.

    Args:
        ranks: The challenge gives 1 and 5; CONE and RGNet add 10, 50 and 100.

    Example:
        >>> ego4d_nlq().describe()
        'IoU > m in seconds, over queries with a prediction'
    """
    return Protocol(
        name="ego4d-nlq",
        thresholds=(0.3, 0.5),
        ranks=ranks,
        miou_ranks=(1,),
        compare=">",
        union="hull",
        denominator="predictions",
    )


def mad() -> Protocol:
    """Evaluation of MAD in its zero-shot script, CONE and RGNet: float32 seconds, hull, strictly above.

    Whether targets are ``timestamps`` or ``ext_timestamps`` is the reader's choice, and suppression the
    system's. The originals refuse a file that lacks a query; here it is a miss, and counted in the header.

    Example:
        >>> mad().describe()
        'IoU > m in seconds, float32'
    """
    return Protocol(
        name="mad",
        thresholds=(0.1, 0.3, 0.5),
        ranks=(1, 5, 10, 50, 100),
        miou_ranks=(),
        compare=">",
        union="hull",
        precision="float32",
    )


def mad_vlg() -> Protocol:
    """Evaluation of MAD in the VLG-Net baseline: as `mad`, but at or above the threshold, and with 0.7.

    Example:
        >>> mad_vlg().thresholds
        (0.1, 0.3, 0.5, 0.7)
    """
    return replace(mad(), name="mad-vlg", compare=">=", thresholds=(0.1, 0.3, 0.5, 0.7))


_PRESETS: dict[str, Callable[[], Protocol]] = {
    "strict": strict,
    "proposal-map": proposal_map,
    "point": point,
    "viga": viga,
    "ego4d-nlq": ego4d_nlq,
    "mad": mad,
    "mad-vlg": mad_vlg,
    "qvhighlights": qvhighlights,
}


def names() -> tuple[str, ...]:
    """The names that `protocol` knows.

    Example:
        >>> "strict" in names()
        True
    """
    return tuple(_PRESETS)


def protocol(name: str) -> Protocol:
    """The rule set of that name.

    Raises:
        UserError: if there is none; names the known ones.

    Example:
        >>> protocol("point").compare
        '>='
    """
    if name not in _PRESETS:
        raise UserError(f"unknown protocol {name!r}; known: {', '.join(_PRESETS)}")
    return _PRESETS[name]()
