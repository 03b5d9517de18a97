"""Finished runs as the results page takes them: read from run folders, kept as JSON lines, grouped over seeds."""

import dataclasses
import importlib
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmr_common.errors import UserError
from vmr_common.io import read_json, read_json_lines, write_json_lines
from vmr_common.schema import conform
from vmr_train.cli.config import completed_config, to_dict
from vmr_train.cli.write_report import RunFigures
from vmr_train.cli.yaml_text import read_yaml
from vmr_train.report.json_form import ScoresRow
from vmr_train.run_files import CONFIG, FIGURES, RESULTS

PROTOCOL = "strict"  # the one that every configuration evaluates by
CELL = ("seed", "threads", "kernels")  # what may differ between the runs of a row, and rounding with it
NAMED = 4  # settings that tell rows apart are named up to this number
SECTIONS = ("shapes", "clip", "long")
SEEDLESS = (  # what may differ between the runs of one row
    ("name",),
    ("train", "seed"),
    ("train", "device"),
    ("train", "workers"),
    ("train", "log_updates"),
    ("train", "checkpoint_updates"),
    ("train", "tensorboard"),
    ("train", "peer_timeout"),
)


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        section: Of the page: shapes, clip or long.
        figures: What its run.json holds, and the processor and its kernels where results.json names them.
        config: Its configuration.
        split: Name of the evaluated split.
        queries: Their number.
        missing: How many had no prediction.
        scores: Fractions by metric of the model, chance and bias, under `PROTOCOL`.
    """

    section: str
    figures: dict[str, Any]
    config: dict[str, Any]
    split: str
    queries: int
    missing: int
    scores: dict[str, dict[str, float]]

    @property
    def package(self) -> str:
        return str(self.figures["package"])

    @property
    def cell(self) -> str:
        """Its row, and which of the row's runs it is."""
        of = [self.figures.get(key) for key in CELL]
        return json.dumps([self.section, self.package, self.split, self.settings, of], sort_keys=True)

    @property
    def settings(self) -> dict[str, Any]:
        """All that makes the row, by dotted key."""
        return {
            ".".join(key): value
            for key, value in flat(self.config)
            if key not in SEEDLESS and value is not None
        }


def flat(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Any]]:
    """The leaves of nested mappings with their path."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def read_run(folder: Path, section: str) -> Run:
    """A run folder.

    Raises:
        UserError: if the run has not finished, or was not evaluated by `PROTOCOL`.
    """
    if not (folder / FIGURES).is_file():
        raise UserError(f"{folder}: expected the folder of a finished run, found no {FIGURES}")
    figures = conform(read_json(folder / FIGURES), RunFigures, str(folder / FIGURES))
    found = conform(read_json(folder / RESULTS), list[ScoresRow], str(folder / RESULTS))
    rows = [row for row in found if row["protocol"] == PROTOCOL]
    if not rows:
        others = ", ".join(dict.fromkeys(row["protocol"] for row in found)) or "none"
        advice = "the test split has no moments" if others in ("none", "glance") else "add it to `protocols`"
        raise UserError(f"{folder / RESULTS}: scores under {others}, expected protocol {PROTOCOL}; {advice}")
    if any(value is None for row in rows for value in row["values"].values()):
        raise UserError(f"{folder / RESULTS}: holds figures that are not numbers")
    model = rows[0]
    machine = {key: model["machine"][key] for key in ("kernels", "cpu")} if "machine" in model else {}
    return Run(
        section=section,
        figures={**figures, **machine},
        config=portable(completed(figures["package"], read_yaml(folder / CONFIG, str(folder / CONFIG)))),
        split=model["split"],
        queries=model["num_queries"],
        missing=model["num_missing"],
        scores={"model" if row is model else row["name"]: row["values"] for row in rows},
    )


def completed(package: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the defaults of fields that came later than the run, so that old and new runs are alike.

    Raises:
        UserError: if today's schema does not know it.
    """
    schema = importlib.import_module(f"{package}.config").Config
    return to_dict(completed_config(config, schema, package))


def portable(value: Any) -> Any:
    """A configuration without the folders of the machine where it ran."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def update(path: Path, given: Mapping[str, Sequence[Path]], packages: Sequence[str]) -> list[Run]:
    """All runs, by section, package and seed: those kept, and the given ones in the place of equal cells of a row."""
    kept = [Run(**row) for _, row in read_json_lines(path)] if path.is_file() else []
    added = [read_run(folder, section) for section, folders in given.items() for folder in folders]
    replaced = {run.cell for run in added}
    runs = [run for run in kept if run.cell not in replaced] + added
    runs.sort(key=lambda run: (SECTIONS.index(run.section), packages.index(run.package), run.figures["seed"]))
    if given:
        write_json_lines(path, [dataclasses.asdict(run) for run in runs])
    return runs


@dataclass(frozen=True)
class Row:
    """The runs of one package and configuration, which differ by seed, threads or kernels."""

    runs: list[Run]

    @property
    def first(self) -> Run:
        return self.runs[0]

    def values(self, metric: str) -> list[float]:
        return [run.scores["model"][metric] for run in self.runs]

    def figures(self, key: str) -> list[Any]:
        """A figure of every run that has it."""
        return [run.figures[key] for run in self.runs if run.figures.get(key) is not None]


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """Groups runs over seeds, threads and kernels.

    Raises:
        UserError: if one of these is there twice.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps([run.package, run.split, run.queries, run.settings], sort_keys=True)
        groups.setdefault(key, []).append(run)
    for group in groups.values():
        cells = [tuple(run.figures.get(key) for key in CELL) for run in group]
        if len(set(cells)) < len(cells):
            seeds = [run.figures["seed"] for run in group]
            raise UserError(f"{group[0].package} on {group[0].split}: a seed was given twice among {seeds}")
    return [Row(group) for group in groups.values()]


def differences(rows: Sequence[Row]) -> list[str]:
    """What tells each row from the first one of its package: the settings that differ, or nothing."""
    first: dict[str, Row] = {}
    notes = []
    for row in rows:
        mine, other = row.first.settings, first.setdefault(row.first.package, row).first.settings
        changed = [key for key in sorted({*mine, *other}) if mine.get(key) != other.get(key)]
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        notes.append(", ".join(f"`{key} {mine.get(key)}`" for key in changed[:NAMED]) + more)
    return notes


def quirk_pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of equal settings but for the quirks: (released, fixed)."""

    def key(row: Row) -> str:
        rest = {name: value for name, value in row.first.settings.items() if name != "quirks"}
        return json.dumps([row.first.package, row.first.split, row.first.queries, rest], sort_keys=True)

    fixed = {key(row): row for row in rows if row.first.config["quirks"] == "fixed"}
    released = [row for row in rows if row.first.config["quirks"] == "released"]
    return [(row, fixed[key(row)]) for row in released if key(row) in fixed]


def spread(values: Sequence[float], form: str, *, bounds: bool = False) -> str:
    """Mean and sample deviation over runs, with `bounds` the least and the greatest too, or the one value."""
    mean = format(statistics.fmean(values), form)
    if len(values) == 1:
        return mean
    said = f"{mean} ± {format(statistics.stdev(values), form)}"
    return f"{said} ({format(min(values), form)} to {format(max(values), form)})" if bounds else said
