"""The published splits: which files, which reader, which policy, how many records, which protocol.

File names are relative to the data root; each may also be there with ``.gz`` at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One split of one data set."""

    name: str  # `<data set>/<part>`
    file: str  # annotation file, relative to the data root
    format: str  # name of the reader (`formats.FORMATS`)
    what: str  # what the file is and who publishes it, for the message when it is missing
    policy: str = "as-annotated"  # name of the policy of the published evaluation
    protocol: str = "strict"  # name of the protocol of the published evaluation
    durations: str | None = None  # table of durations for formats that have none, relative to the data root
    read: int | None = None  # published number of records in the file, None where not known
    kept: int | None = None  # published number of queries after the policy, None where not known
    # published number of queries of the official evaluation where the policy keeps fewer
    official: int | None = None
    # package that generates the data set on first use, see `generated.generate`
    generated_by: str | None = None


_Counts = int | None | tuple[int | None, int | None]
"""Published numbers of records and of queries kept; one number where all records are kept."""


def _entries(
    name: str,
    file: str,
    parts: Mapping[str, _Counts],
    files: Mapping[str, str] | None = None,
    durations: str | None = None,
    **rules: Any,
) -> list[Entry]:
    """One entry per part, its name in place of ``{}``; in the names of files that of `files`, where there is one."""
    entries = []
    for part, counts in parts.items():
        read, kept = counts if isinstance(counts, tuple) else (counts, counts)
        path = file.format((files or {}).get(part, part))
        table = durations and durations.format(part)
        entries.append(
            Entry(name=name.format(part), file=path, durations=table, read=read, kept=kept, **rules)
        )
    return entries


def _charades() -> list[Entry]:
    durations = "charades_sta/Charades_v1_{}.csv"
    official: dict[str, Any] = {
        "file": "charades_sta/charades_sta_{}.txt",
        "format": "charades-sta",
        "durations": durations,
        "what": "official Charades-STA moments, with Charades' Charades_v1_{train,test}.csv beside",
    }
    kept_2dtan = {"train": (12_408, 12_404), "test": (3_720, 3_720)}
    kept_cpl = {"train": (12_408, 10_602), "test": (3_720, 3_158)}
    entries = [
        *_entries(
            "charades-sta/{}", parts=kept_2dtan, policy="cut-then-drop", protocol="proposal-map", **official
        ),
        *_entries("charades-sta-cpl/{}", parts=kept_cpl, policy="drop-late", protocol="point", **official),
        *_entries(
            "charades-sta-viga/{}",
            "charades_sta/point_viga/charades_sta_{}.txt",
            {"train": 12_408, "test": 3_720},
            format="viga",
            protocol="viga",
            durations=durations,
            what="ViGA's Charades-STA file with glances (repository r-cui/ViGA)",
        ),
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


_MAD_FILE = "mad/MAD_{}.json"
_MAD: dict[str, Any] = {
    "format": "mad",
    "what": "the MAD annotations (given out by their authors on request)",
    "protocol": "mad",
}
_MAP: dict[str, Any] = {"policy": "drop-then-cut", "protocol": "proposal-map"}
_GLANCES: dict[str, Any] = {"format": "glance-list", "protocol": "point"}


def _tacos() -> list[Entry]:
    parts = {"train": 9_790, "val": 4_436, "test": 4_001}
    what = "the TACoS moments in the layout of 2D-TAN (repository microsoft/VideoX)"
    glances = "the TACoS glance list of RGN and CFMR (repository CFM-MSG/Code_CFMR)"
    viga = "ViGA's TACoS file with glances (repository r-cui/ViGA)"
    return [
        *_entries("tacos/{}", "tacos/{}.json", parts, what=what, format="tacos", **_MAP),
        *_entries("tacos-glance/{}", "tacos/point/glance_{}_tacos.json", parts, what=glances, **_GLANCES),
        *_entries(
            "tacos-viga/{}", "tacos/point_viga/{}.json", parts, what=viga, format="tacos", protocol="viga"
        ),
    ]


def _activitynet() -> list[Entry]:
    official: dict[str, Any] = {
        "format": "activitynet",
        "what": "ActivityNet Captions in the layout of 2D-TAN (repository microsoft/VideoX)",
        **_MAP,
    }
    parts = {"train": (37_421, 37_417), "val_1": (17_505, 17_505), "val_2": (17_031, 17_031)}
    files = {"val_1": "val", "val_2": "test"}
    return [
        *_entries("activitynet/{}", "activitynet/{}.json", parts, files, **official),
        *_entries(
            "activitynet-viga/{}",
            "activitynet/point_viga/{}.json",
            {"train": None, "val_1": None, "val_2": 17_031},
            format="activitynet",
            what="ViGA's ActivityNet Captions file with glances (repository r-cui/ViGA)",
            protocol="viga",
        ),
        *_entries(
            "activitynet-glance/{}",
            "activitynet/point/glance_{}_activitynet.json",
            {"train": None, "test": 17_031},
            what="the ActivityNet Captions glance list of RGN and CFMR (repository CFM-MSG/Code_CFMR)",
            **_GLANCES,
        ),
    ]


def _qvhighlights() -> list[Entry]:
    return _entries(
        "qvhighlights/{}",
        "qvhighlights/highlight_{}.jsonl",
        {"train": 7_218, "val": 1_550, "test": 1_542, "test-hidden": 1_542},
        {
            "train": "train_release",
            "val": "val_release",
            "test": "test_with_gt",
            "test-hidden": "test_release",
        },
        format="qvhighlights",
        what="the QVHighlights annotations (repository jayleicn/moment_detr, folder data)",
        protocol="qvhighlights",
    )


_NLQ = {"test": "test_unannotated"}
_NLQ_V1 = "official Ego4D natural-language-query annotations v1 (under licence)"


def _ego4d() -> list[Entry]:
    rules: dict[str, Any] = {"format": "ego4d-nlq", "policy": "drop-textless", "protocol": "ego4d-nlq"}
    # the second version is the one in use; queries without text are in the first count only
    first: dict[str, _Counts] = {"train": (11_296, None), "val": (3_875, 3_874), "test": None}
    second: dict[str, _Counts] = {"train": (13_849, 13_848), "val": (4_554, 4_552), "test": None}
    what = _NLQ_V1.replace("v1", "v2")
    return [
        *_entries("ego4d-nlq/{}", "ego4d_nlq/v2/nlq_{}.json", second, _NLQ, what=what, **rules),
        *_entries("ego4d-nlq-v1/{}", "ego4d_nlq/v1/nlq_{}.json", first, _NLQ, what=_NLQ_V1, **rules),
    ]


def _long_video() -> list[Entry]:
    """MAD; Ego4D and MAD as the long-video methods CONE and RGNet train and score on them."""
    ego4d: dict[str, Any] = {"format": "ego4d-nlq-whole-seconds", "protocol": "ego4d-nlq"}
    naq = "NaQ, Ego4D's narrations as queries, in the layout of nlq_train.json (for pretraining)"
    training: dict[str, Any] = {"policy": "rgnet-ego4d-train", **ego4d}
    scored: dict[str, Any] = {"policy": "drop-brief", **ego4d}
    name, file = "ego4d-nlq-v1-rgnet/{}", "ego4d_nlq/v1/nlq_{}.json"
    return [
        *_entries("mad/{}", _MAD_FILE, {"train": 280_183, "val": 32_064, "test": 72_044}, **_MAD),
        *_entries(name, file, {"train": (11_296, None)}, what=_NLQ_V1, **training),
        *_entries(name, file, {"val": (3_875, 3_529)}, what=_NLQ_V1, official=3_874, **scored),
        *_entries(name, file, {"test": None}, _NLQ, what=_NLQ_V1, **scored),
        *_entries("ego4d-naq/{}", "ego4d_nlq/naq/nlq_{}.json", {"train": None}, what=naq, **training),
        *_entries("mad-rgnet/{}", _MAD_FILE, {"train": (280_183, None)}, policy="rgnet-mad-train", **_MAD),
    ]


def _shapes() -> list[Entry]:
    parts = {"train": None, "val": None, "test": None}
    rules: dict[str, Any] = {"format": "canonical", "policy": "checked", "generated_by": "vmr-shapes"}
    what = "the embedded data set, generated on first use"
    long = "the embedded data set of long videos, generated on first use"
    return [
        *_entries("shapes/{}", "shapes/{}.jsonl", parts, what=what, **rules),
        *_entries("shapes-long/{}", "shapes-long/{}.jsonl", parts, what=long, **rules),
    ]


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for group in (_charades, _tacos, _activitynet, _qvhighlights, _ego4d, _long_video, _shapes)
    for entry in group()
}
