"""The published splits: which files, which reader, which policy, how many records, which protocol.

File names are relative to the data root; each may also be there with ``.gz`` at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One split of one data set.

    Attributes:
        name: ``<data set>/<part>``.
        file: Annotation file, relative to the data root.
        format: Name of the reader (`formats.FORMATS`).
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


def _entries(name: str, file: str, parts: Mapping[str, int | None], **more: Any) -> list[Entry]:
    """One entry per part, its name in place of ``{}``, with the number of its records, all of which are kept."""
    return [
        Entry(name=name.format(part), file=file.format(part), read=count, kept=count, **more)
        for part, count in parts.items()
    ]


def _charades() -> list[Entry]:
    entries = []
    for part, records, kept_2dtan, kept_cpl in (
        ("train", 12_408, 12_404, 10_602),
        ("test", 3_720, 3_720, 3_158),
    ):
        durations = f"charades_sta/Charades_v1_{part}.csv"
        official: dict[str, Any] = {
            "file": f"charades_sta/charades_sta_{part}.txt",
            "format": "charades-sta",
            "durations": durations,
            "what": "official Charades-STA moments, with Charades' Charades_v1_{train,test}.csv beside",
            "read": records,
        }
        viga: dict[str, Any] = {
            "file": f"charades_sta/point_viga/charades_sta_{part}.txt",
            "format": "viga",
            "durations": durations,
            "what": "ViGA's Charades-STA file with glances (repository r-cui/ViGA)",
            "read": records,
        }
        map_rules: dict[str, Any] = {
            "policy": "cut-then-drop",
            "protocol": "proposal-map",
            "kept": kept_2dtan,
        }
        cpl_rules: dict[str, Any] = {"policy": "drop-late", "protocol": "point", "kept": kept_cpl}
        entries += [
            Entry(name=f"charades-sta/{part}", **map_rules, **official),
            Entry(name=f"charades-sta-cpl/{part}", **cpl_rules, **official),
            Entry(name=f"charades-sta-viga/{part}", protocol="viga", kept=records, **viga),
        ]
    glances = {
        "rgn": {"train": 11_675, "test": 3_548},
        "cfmr": {"train": 12_354, "test": 3_712, "debug": 1_000},
    }
    for method, parts in glances.items():
        entries += _entries(
            f"charades-sta-{method}/{{}}",
            f"charades_sta/point_{method}/glance_{{}}_charades.json",
            parts,
            format="glance-list",
            what=f"{method.upper()}'s Charades-STA glances (repository CFM-MSG/Code_{method.upper()})",
            protocol="point",
        )
    return entries


def _tacos() -> list[Entry]:
    parts = {"train": 9_790, "val": 4_436, "test": 4_001}
    what = "the TACoS moments in the layout of 2D-TAN (repository microsoft/VideoX)"
    rules = {"format": "tacos", "policy": "drop-then-cut", "protocol": "proposal-map"}
    glance_list = "the TACoS glance list of RGN and CFMR (repository CFM-MSG/Code_CFMR)"
    glance_rules = {"format": "glance-list", "protocol": "point"}
    viga = "ViGA's TACoS file with glances (repository r-cui/ViGA)"
    viga_rules = {"format": "tacos", "protocol": "viga"}
    return [
        *_entries("tacos/{}", "tacos/{}.json", parts, what=what, **rules),
        *_entries(
            "tacos-glance/{}", "tacos/point/glance_{}_tacos.json", parts, what=glance_list, **glance_rules
        ),
        *_entries("tacos-viga/{}", "tacos/point_viga/{}.json", parts, what=viga, **viga_rules),
    ]


def _activitynet() -> list[Entry]:
    official: dict[str, Any] = {
        "format": "activitynet",
        "what": "ActivityNet Captions in the layout of 2D-TAN (repository microsoft/VideoX)",
        "policy": "drop-then-cut",
        "protocol": "proposal-map",
    }
    # part, file, records, those kept
    files = (
        ("train", "train", 37_421, 37_417),
        ("val_1", "val", 17_505, 17_505),
        ("val_2", "test", 17_031, 17_031),
    )
    viga = "ViGA's ActivityNet Captions file with glances (repository r-cui/ViGA)"
    glance_list = "the ActivityNet Captions glance list of RGN and CFMR (repository CFM-MSG/Code_CFMR)"
    return [
        *(
            Entry(
                name=f"activitynet/{part}", file=f"activitynet/{file}.json", read=count, kept=kept, **official
            )
            for part, file, count, kept in files
        ),
        *_entries(
            "activitynet-viga/{}",
            "activitynet/point_viga/{}.json",
            {"train": None, "val_1": None, "val_2": 17_031},
            format="activitynet",
            what=viga,
            protocol="viga",
        ),
        *_entries(
            "activitynet-glance/{}",
            "activitynet/point/glance_{}_activitynet.json",
            {"train": None, "test": 17_031},
            format="glance-list",
            what=glance_list,
            protocol="point",
        ),
    ]


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


_NLQ = {"train": "nlq_train", "val": "nlq_val", "test": "nlq_test_unannotated"}


def _ego4d() -> list[Entry]:
    # records and queries; the second version is the one in use; queries without text are in the first count only
    counts: dict[tuple[str, str], tuple[int, int | None]] = {
        ("", "train"): (13_849, 13_848),
        ("", "val"): (4_554, 4_552),
        ("-v1", "train"): (11_296, None),
        ("-v1", "val"): (3_875, 3_874),
    }
    entries = []
    for suffix, folder in (("", "v2"), ("-v1", "v1")):
        for part, file in _NLQ.items():
            read, kept = counts.get((suffix, part), (None, None))
            entries.append(
                Entry(
                    name=f"ego4d-nlq{suffix}/{part}",
                    file=f"ego4d_nlq/{folder}/{file}.json",
                    format="ego4d-nlq",
                    what=f"official Ego4D natural-language-query annotations {folder} (under licence)",
                    policy="drop-textless",
                    protocol="ego4d-nlq",
                    read=read,
                    kept=kept,
                )
            )
    return entries


def _rgnet() -> list[Entry]:
    """Ego4D and MAD as the long-video methods CONE and RGNet train and score on them."""
    ego4d: dict[str, Any] = {"format": "ego4d-nlq-whole-seconds", "protocol": "ego4d-nlq"}
    official = "official Ego4D natural-language-query annotations v1 (under licence)"
    naq = "NaQ, Ego4D's narrations as queries, in the layout of nlq_train.json (for pretraining)"
    of_part: dict[str, dict[str, Any]] = {
        "train": {"policy": "rgnet-ego4d-train", "read": 11_296},
        "val": {"policy": "drop-brief", "read": 3_875, "kept": 3_529, "official": 3_874},
        "test": {"policy": "drop-brief"},
    }
    entries = [
        Entry(
            name=f"ego4d-nlq-v1-rgnet/{part}",
            file=f"ego4d_nlq/v1/{_NLQ[part]}.json",
            what=official,
            **rules,
            **ego4d,
        )
        for part, rules in of_part.items()
    ]
    file = "ego4d_nlq/naq/nlq_train.json"
    entries.append(Entry(name="ego4d-naq/train", file=file, what=naq, policy="rgnet-ego4d-train", **ego4d))
    rules = {"policy": "rgnet-mad-train", "read": 280_183, **_MAD}
    return [*entries, Entry(name="mad-rgnet/train", file="mad/MAD_train.json", **rules)]


_MAD: dict[str, Any] = {
    "format": "mad",
    "what": "the MAD annotations (given out by their authors on request)",
    "protocol": "mad",
}


def _mad() -> list[Entry]:
    return _entries("mad/{}", "mad/MAD_{}.json", {"train": 280_183, "val": 32_064, "test": 72_044}, **_MAD)


def _shapes() -> list[Entry]:
    parts = {"train": None, "val": None, "test": None}
    rules = {"format": "canonical", "policy": "checked", "generated_by": "vmr-shapes"}
    what = "the embedded data set, generated on first use"
    long = "the embedded data set of long videos, generated on first use"
    return [
        *_entries("shapes/{}", "shapes/{}.jsonl", parts, what=what, **rules),
        *_entries("shapes-long/{}", "shapes-long/{}.jsonl", parts, what=long, **rules),
    ]


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for group in (_charades, _tacos, _activitynet, _qvhighlights, _ego4d, _mad, _rgnet, _shapes)
    for entry in group()
}
