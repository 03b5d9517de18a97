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
    policy: str = "as-annotated"  # name of the policy of the published evaluation
    protocol: str = "strict"  # name of the protocol of the published evaluation
    durations: str | None = None  # table of durations for formats that have none, relative to the data root
    read: int | None = None  # published number of records in the file, None where not known
    kept: int | None = None  # published number of queries after the policy, None where not known
    # published number of queries of the official evaluation where the policy keeps fewer
    official: int | None = None
    subset: str | None = None  # part of a file that holds several
    # package that generates the data set on first use, see `generated.generate`
    generated_by: str | None = None

    @property
    def files(self) -> list[str]:
        """All files that it is read from, the annotations first."""
        return [self.file] if self.durations is None else [self.file, self.durations]

    @property
    def made(self) -> str:
        """The data set that is generated on first use, or nothing."""
        return self.name.partition("/")[0] if self.generated_by else ""


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
    file = "charades_sta/charades_sta_{}.txt"
    official: dict[str, Any] = {"file": file, "format": "charades-sta", "durations": durations}
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
            protocol="point",
        )
    return entries


_MAD_FILE = "mad/MAD_{}.json"
_MAD: dict[str, Any] = {"format": "mad", "protocol": "mad"}
_MAP: dict[str, Any] = {"policy": "drop-then-cut", "protocol": "proposal-map"}
_GLANCES: dict[str, Any] = {"format": "glance-list", "protocol": "point"}


def _tacos() -> list[Entry]:
    parts = {"train": 9_790, "val": 4_436, "test": 4_001}
    return [
        *_entries("tacos/{}", "tacos/{}.json", parts, format="tacos", **_MAP),
        *_entries("tacos-glance/{}", "tacos/point/glance_{}_tacos.json", parts, **_GLANCES),
        *_entries("tacos-viga/{}", "tacos/point_viga/{}.json", parts, format="tacos", protocol="viga"),
    ]


def _activitynet() -> list[Entry]:
    official: dict[str, Any] = {"format": "activitynet", **_MAP}
    parts = {"train": (37_421, 37_417), "val_1": (17_505, 17_505), "val_2": (17_031, 17_031)}
    files = {"val_1": "val", "val_2": "test"}
    return [
        *_entries("activitynet/{}", "activitynet/{}.json", parts, files, **official),
        *_entries(
            "activitynet-viga/{}",
            "activitynet/point_viga/{}.json",
            {"train": None, "val_1": None, "val_2": 17_031},
            format="activitynet",
            protocol="viga",
        ),
        *_entries(
            "activitynet-glance/{}",
            "activitynet/point/glance_{}_activitynet.json",
            {"train": None, "test": 17_031},
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
        format="objects",
        protocol="qvhighlights",
    )


_NLQ = {"test": "test_unannotated"}


def _ego4d() -> list[Entry]:
    rules: dict[str, Any] = {"format": "ego4d-nlq", "policy": "drop-textless", "protocol": "ego4d-nlq"}
    # the second version is the one in use; queries without text are in the first count only
    first: dict[str, _Counts] = {"train": (11_296, None), "val": (3_875, 3_874), "test": None}
    second: dict[str, _Counts] = {"train": (13_849, 13_848), "val": (4_554, 4_552), "test": None}
    return [
        *_entries("ego4d-nlq/{}", "ego4d_nlq/v2/nlq_{}.json", second, _NLQ, **rules),
        *_entries("ego4d-nlq-v1/{}", "ego4d_nlq/v1/nlq_{}.json", first, _NLQ, **rules),
    ]


def _long_video() -> list[Entry]:
    """MAD; Ego4D and MAD as the long-video methods CONE and RGNet train and score on them."""
    ego4d: dict[str, Any] = {"format": "ego4d-nlq-whole-seconds", "protocol": "ego4d-nlq"}
    training: dict[str, Any] = {"policy": "rgnet-ego4d-train", **ego4d}
    scored: dict[str, Any] = {"policy": "drop-brief", **ego4d}
    name, file = "ego4d-nlq-v1-rgnet/{}", "ego4d_nlq/v1/nlq_{}.json"
    return [
        *_entries("mad/{}", _MAD_FILE, {"train": 280_183, "val": 32_064, "test": 72_044}, **_MAD),
        *_entries(name, file, {"train": (11_296, None)}, **training),
        *_entries(name, file, {"val": (3_875, 3_529)}, official=3_874, **scored),
        *_entries(name, file, {"test": None}, _NLQ, **scored),
        *_entries("ego4d-naq/{}", "ego4d_nlq/naq/nlq_{}.json", {"train": None}, **training),
        *_entries("mad-rgnet/{}", _MAD_FILE, {"train": (280_183, None)}, policy="rgnet-mad-train", **_MAD),
    ]


def _timelens() -> list[Entry]:
    counts = {"charades": 3_363, "activitynet": 4_500, "qvhighlights": 1_541}
    return _entries("{}-timelens/test", "timelens/{}-timelens.json", counts, format="timelens")


def _others() -> list[Entry]:
    """Data sets that none of the five papers uses."""
    cd = {"train": 11_071, "val": 859, "test-iid": 823, "test-ood": 3_375}
    files = {"test-iid": "test_iid", "test-ood": "test_ood"}
    didemo = {"train": 33_005, "val": 4_180, "test": 4_021}
    tvr = {"train": 87_175, "val": 10_895}  # the test part names no videos
    steps: dict[str, Any] = {"file": "youcook2/youcookii_annotations_trainval.json", "format": "detection"}
    hirest = {"train": None, "val": None, "test": None}
    return [
        *_entries("charades-cd/{}", "charades_cd/charades_{}.json", cd, files, format="activitynet"),
        *_entries("didemo/{}", "didemo/{}_data.json", didemo, format="didemo"),
        *_entries("tvr/{}", "tvr/tvr_{}_release.jsonl", tvr, format="objects"),
        *_entries("youcook2/{}", parts={"train": 10_337}, subset="training", **steps),
        *_entries("youcook2/{}", parts={"val": 3_492}, subset="validation", **steps),
        *_entries("hirest/{}", "hirest/all_data_{}.json", hirest, format="hirest"),
        *_entries(
            "tvsum/{}", "tvsum/tvsum_{}.jsonl", {"train": 40, "val": 10}, format="objects", protocol="tvsum"
        ),
        *_entries(
            "youtube-highlights/{}",
            "youtube_highlight/youtube_highlight_{}_release.jsonl",
            {"train": None, "val": None},
            format="objects",
            protocol="youtube-highlights",
        ),
    ]


def _shapes() -> list[Entry]:
    parts = {"train": None, "val": None, "test": None}
    rules: dict[str, Any] = {"format": "objects", "policy": "checked", "generated_by": "vmr-shapes"}
    return [
        *_entries("shapes/{}", "shapes/{}.jsonl", parts, **rules),
        *_entries("shapes-long/{}", "shapes-long/{}.jsonl", parts, **rules),
    ]


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for group in (
        _charades,
        _tacos,
        _activitynet,
        _qvhighlights,
        _ego4d,
        _long_video,
        _timelens,
        _others,
        _shapes,
    )
    for entry in group()
}
