"""The published splits: which files, which reader, which policy, how many records, which protocol.

File names are relative to the data root; each may also be there with ``.gz`` at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One split of one data set.

    Attributes:
        name: ``<data set>/<part>``.
        file: Annotation file, relative to the data root.
        format: Name of the reader (`annotations.FORMATS`).
        what: What the file is and who publishes it, for the message when it is missing.
        policy: Name of the policy of the published evaluation.
        protocol: Name of the protocol of the published evaluation.
        durations: Table of durations for formats that have none, relative to the data root.
        read: Published number of records in the file, None where not known.
        kept: Published number of queries after the policy, None where not known.
        official: Published number of queries of the official evaluation where the policy keeps fewer.
        generated_by: Package that generates the data set on first use, see `generated.generate`.
    """

    name: str
    file: str
    format: str
    what: str
    policy: str = "as-annotated"
    protocol: str = "strict"
    durations: str | None = None
    read: int | None = None
    kept: int | None = None
    official: int | None = None
    generated_by: str | None = None


def _charades() -> list[Entry]:
    entries = []
    for part, records, kept_2dtan, kept_cpl in (
        ("train", 12_408, 12_404, 10_602),
        ("test", 3_720, 3_720, 3_158),
    ):
        official: dict[str, Any] = {
            "file": f"charades_sta/charades_sta_{part}.txt",
            "format": "charades-sta",
            "durations": f"charades_sta/Charades_v1_{part}.csv",
            "what": "official Charades-STA moments, with Charades' Charades_v1_{train,test}.csv beside",
            "read": records,
        }
        entries += [
            Entry(
                name=f"charades-sta/{part}",
                policy="cut-then-drop",
                protocol="proposal-map",
                kept=kept_2dtan,
                **official,
            ),
            Entry(
                name=f"charades-sta-cpl/{part}",
                policy="drop-late",
                protocol="point",
                kept=kept_cpl,
                **official,
            ),
            Entry(
                name=f"charades-sta-viga/{part}",
                file=f"charades_sta/point_viga/charades_sta_{part}.txt",
                format="viga",
                durations=f"charades_sta/Charades_v1_{part}.csv",
                what="ViGA's Charades-STA file with glances (repository r-cui/ViGA)",
                protocol="viga",
                read=records,
                kept=records,
            ),
        ]
    for method, counts in (
        ("rgn", {"train": 11_675, "test": 3_548}),
        ("cfmr", {"train": 12_354, "test": 3_712, "debug": 1_000}),
    ):
        entries += [
            Entry(
                name=f"charades-sta-{method}/{part}",
                file=f"charades_sta/point_{method}/glance_{part}_charades.json",
                format="glance-list",
                what=f"{method.upper()}'s Charades-STA glances (repository CFM-MSG/Code_{method.upper()})",
                protocol="point",
                read=count,
                kept=count,
            )
            for part, count in counts.items()
        ]
    return entries


def _tacos() -> list[Entry]:
    entries = []
    for part, count in (("train", 9_790), ("val", 4_436), ("test", 4_001)):
        entries += [
            Entry(
                name=f"tacos/{part}",
                file=f"tacos/{part}.json",
                format="tacos",
                what="the TACoS moments in the layout of 2D-TAN (repository microsoft/VideoX)",
                policy="drop-then-cut",
                protocol="proposal-map",
                read=count,
                kept=count,
            ),
            Entry(
                name=f"tacos-glance/{part}",
                file=f"tacos/point/glance_{part}_tacos.json",
                format="glance-list",
                what="the TACoS glance list of RGN and CFMR (repository CFM-MSG/Code_CFMR)",
                protocol="point",
                read=count,
                kept=count,
            ),
            Entry(
                name=f"tacos-viga/{part}",
                file=f"tacos/point_viga/{part}.json",
                format="tacos",
                what="ViGA's TACoS file with glances (repository r-cui/ViGA)",
                protocol="viga",
                read=count,
                kept=count,
            ),
        ]
    return entries


def _activitynet() -> list[Entry]:
    files = (
        ("train", "train", 37_421, 37_417),
        ("val_1", "val", 17_505, 17_505),
        ("val_2", "test", 17_031, 17_031),
    )
    entries = []
    for part, file, count, kept in files:
        entries += [
            Entry(
                name=f"activitynet/{part}",
                file=f"activitynet/{file}.json",
                format="activitynet",
                what="ActivityNet Captions in the layout of 2D-TAN (repository microsoft/VideoX)",
                policy="drop-then-cut",
                protocol="proposal-map",
                read=count,
                kept=kept,
            ),
            Entry(
                name=f"activitynet-viga/{part}",
                file=f"activitynet/point_viga/{part}.json",
                format="activitynet",
                what="ViGA's ActivityNet Captions file with glances (repository r-cui/ViGA)",
                protocol="viga",
                read=count if part == "val_2" else None,
                kept=count if part == "val_2" else None,
            ),
        ]
    for part, glances in (("train", None), ("test", 17_031)):
        entries.append(
            Entry(
                name=f"activitynet-glance/{part}",
                file=f"activitynet/point/glance_{part}_activitynet.json",
                format="glance-list",
                what="the ActivityNet Captions glance list of RGN and CFMR (repository CFM-MSG/Code_CFMR)",
                protocol="point",
                read=glances,
                kept=glances,
            )
        )
    return entries


def _qvhighlights() -> list[Entry]:
    files = (
        ("train", "highlight_train_release", 7_218),
        ("val", "highlight_val_release", 1_550),
        ("test", "highlight_test_with_gt", 1_542),
        ("test-hidden", "highlight_test_release", 1_542),
    )
    return [
        Entry(
            name=f"qvhighlights/{part}",
            file=f"qvhighlights/{file}.jsonl",
            format="qvhighlights",
            what="the QVHighlights annotations (repository jayleicn/moment_detr, folder data)",
            protocol="qvhighlights",
            read=count,
            kept=count,
        )
        for part, file, count in files
    ]


def _ego4d() -> list[Entry]:
    # the second version is the one in use; queries without text are in the first count only
    counts = {"": {"train": (13_849, 13_848), "val": (4_554, 4_552)}, "-v1": {"val": (3_875, 3_874)}}
    entries = []
    for suffix, folder in (("", "v2"), ("-v1", "v1")):
        for part, file in (("train", "nlq_train"), ("val", "nlq_val"), ("test", "nlq_test_unannotated")):
            read, kept = counts[suffix].get(part, (None, None))
            entries.append(
                Entry(
                    name=f"ego4d-nlq{suffix}/{part}",
                    file=f"ego4d_nlq/{folder}/{file}.json",
                    format="ego4d-nlq",
                    what=f"official Ego4D natural-language-query annotations {folder} (under licence)",
                    policy="drop-textless",
                    protocol="ego4d-nlq",
                    read=read if (suffix, part) != ("-v1", "train") else 11_296,
                    kept=kept,
                )
            )
    return entries


def _rgnet() -> list[Entry]:
    """Ego4D and MAD as the long-video methods CONE and RGNet train and score on them."""
    ego4d: dict[str, Any] = {"format": "ego4d-nlq-whole-seconds", "protocol": "ego4d-nlq"}
    official = "official Ego4D natural-language-query annotations v1 (under licence)"
    folder = "ego4d_nlq/v1"
    return [
        Entry(
            name="ego4d-nlq-v1-rgnet/train",
            file=f"{folder}/nlq_train.json",
            what=official,
            policy="rgnet-ego4d-train",
            read=11_296,
            **ego4d,
        ),
        Entry(
            name="ego4d-nlq-v1-rgnet/val",
            file=f"{folder}/nlq_val.json",
            what=official,
            policy="drop-brief",
            read=3_875,
            kept=3_529,
            official=3_874,
            **ego4d,
        ),
        Entry(
            name="ego4d-nlq-v1-rgnet/test",
            file=f"{folder}/nlq_test_unannotated.json",
            what=official,
            policy="drop-brief",
            **ego4d,
        ),
        Entry(
            name="ego4d-naq/train",
            file="ego4d_nlq/naq/nlq_train.json",
            what="NaQ, Ego4D's narrations as queries, in the layout of nlq_train.json (for pretraining)",
            policy="rgnet-ego4d-train",
            **ego4d,
        ),
        Entry(
            name="mad-rgnet/train",
            file="mad/MAD_train.json",
            format="mad",
            what="the MAD annotations (given out by their authors on request)",
            policy="rgnet-mad-train",
            protocol="mad",
            read=280_183,
        ),
    ]


def _mad() -> list[Entry]:
    return [
        Entry(
            name=f"mad/{part}",
            file=f"mad/MAD_{part}.json",
            format="mad",
            what="the MAD annotations (given out by their authors on request)",
            protocol="mad",
            read=count,
            kept=count,
        )
        for part, count in (("train", 280_183), ("val", 32_064), ("test", 72_044))
    ]


def _shapes() -> list[Entry]:
    kinds = (
        ("shapes", "the embedded data set, generated on first use"),
        ("shapes-long", "the embedded data set of long videos, generated on first use"),
    )
    return [
        Entry(
            name=f"{name}/{part}",
            file=f"{name}/{part}.jsonl",
            format="canonical",
            what=what,
            policy="checked",
            generated_by="vmr-shapes",
        )
        for name, what in kinds
        for part in ("train", "val", "test")
    ]


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for group in (_charades, _tacos, _activitynet, _qvhighlights, _ego4d, _mad, _rgnet, _shapes)
    for entry in group()
}
