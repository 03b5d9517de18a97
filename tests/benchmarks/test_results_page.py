"""The results page from synthetic run folders: every figure is where it belongs, and nothing else is there."""

import csv
import functools
import importlib
import json
from types import MappingProxyType

import pytest
import results_page
import yaml
from results_page import METRICS, main

from vmr_train.cli.config import bundled_config, to_yaml

CHANCE = [0.22, 0.07, 0.01, 0.16, 0.67, 0.31, 0.08]
BIAS = [0.29, 0.16, 0.05, 0.19, 0.96, 0.72, 0.24]


@pytest.fixture(autouse=True)
def no_parity(tmp_path, monkeypatch):
    """The page reads what stands beside it; here that is nothing but what a test puts there."""
    monkeypatch.setattr(results_page, "RESULTS", tmp_path)


@functools.cache
def default_text(package):
    schema = importlib.import_module(f"{package}.config").Config
    return to_yaml(bundled_config(package, schema, schema.name))


@pytest.fixture
def make(tmp_path):
    """Makes the folder of a finished run."""

    def run(
        name,
        values,
        *,
        package="rgn",
        seed=0,
        quirks="fixed",
        split="shapes/test",
        queries=662,
        bias=BIAS,
        chance=CHANCE,
        figures=None,
        settings=MappingProxyType({}),
    ):
        folder = tmp_path / "runs" / package / name
        folder.mkdir(parents=True)
        config = yaml.safe_load(default_text(package)) | {"name": name, "quirks": quirks}
        for key, value in {"train.seed": seed, **settings}.items():
            *parts, last = key.split(".")
            inner = functools.reduce(lambda values, part: values[part], parts, config)
            inner[last] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        rows = [
            {
                "name": who,
                "protocol": rules,
                "compare": "IoU >= m",
                "split": split,
                "num_queries": queries,
                "num_missing": 0,
            }
            | {"values": dict(zip(METRICS, found if rules == "strict" else [0.99] * 7, strict=True))}
            for rules in ("point", "strict")
            for who, found in ((package, values), ("chance", chance), ("bias", bias))
        ]
        (folder / "results.json").write_text(json.dumps(rows))
        known = {
            "package": package,
            "name": name,
            "seed": seed,
            "quirks": quirks,
            "date": "2026-11-21",
            "select": "validation",
            "epoch": 7,
            "seconds": 300.0,
            "device": "cpu",
            "processes": 1,
            "threads": 1,
            "precision": "fp32",
            "parameters": 385657,
            "flops_per_query": 2.628e9,
            "versions": {"vmr-common": "0.1.0", "torch": "2", "python": "3", "processes": 1, "device": "cpu"},
        }
        (folder / "run.json").write_text(json.dumps(known | (figures or {})))
        return str(folder)

    return run


@pytest.fixture
def write(tmp_path, capsys):
    """Writes the page; gives its text and that of the README."""
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")

    def run(*arguments):
        out = tmp_path / "results.md"
        options = ["--kept", str(tmp_path / "runs.jsonl"), "--out", str(out), "--readme", str(readme)]
        status = main([*options, *arguments])
        said = capsys.readouterr()
        return (status, said.err) if status else (out.read_text(), readme.read_text())

    return run


def cells(text, start):
    """The cells of the only line that begins like this."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def around(centre):
    return [[value + step for value in centre] for step in (-0.02, 0.0, 0.02)]


def test_seeds_become_one_row_of_means_and_deviations(make, write):
    centre = [0.70, 0.50, 0.20, 0.40, 0.90, 0.80, 0.45]
    found = around(centre)
    runs = [
        make(
            f"seed{n}",
            found[n],
            seed=n,
            figures={"seconds": 120.0 * (n + 1), "date": f"2026-11-2{n}"},
        )
        for n in range(3)
    ]
    page, readme = write("--shapes", *runs)
    row = cells(page, "`rgn` (3 runs)")[1:]
    assert row[:2] == ["70.0 ± 2.0 (68.0 to 72.0)", "50.0 ± 2.0 (48.0 to 52.0)"]
    assert row[2:] == [f"{100 * value:.1f} ± 2.0" for value in centre[2:]]
    assert cells(page, "chance")[1:] == ["22.00", "7.00", "1.00", "16.00", "67.00", "31.00", "8.00"]
    assert cells(page, "best constant windows (bias)")[1:] == [f"{100 * value:.2f}" for value in BIAS]
    took = cells(page, "`rgn` | 385,657")
    assert took[1:4] == ["385,657", "2.63", "2.0 min"]  # of the shortest run
    assert took[4:] == [
        "cpu, fp32, 1 thread",
        "6, best on validation",
        "fixed",
        "0, 1, 2",
        "2026-11-20 to 2026-11-22",
    ]
    first = cells(page, "`rgn` | Re-Glance Networks")
    assert first[3:] == [
        "70.0 ± 2.0 (68.0 to 72.0) / 50.0 ± 2.0 (48.0 to 52.0)",
        "29.0 / 16.0",
        "22.0 / 7.0",
        "3",
        "-",
    ]
    assert cells(readme, "`rgn`") == first
    assert readme.startswith("before\n")
    assert readme.endswith("\nafter\n")
    assert "old" not in readme


def test_threads_and_kernels_are_named_and_are_runs_of_the_same_row(make, write, tmp_path):
    runs = []
    for threads, kernels in ((1, "AVX2"), (2, "AVX2"), (2, "DEFAULT")):
        runs.append(make(f"{threads}-{kernels}", [0.5] * 7, figures={"threads": threads}))
        path = tmp_path / f"runs/rgn/{threads}-{kernels}/results.json"
        rows = json.loads(path.read_text())
        for row in rows:
            if row["name"] == "rgn":
                row["machine"] = {"device": "cpu", "threads": threads, "cpu": "Some CPU", "kernels": kernels}
                row["machine"]["torch"] = "2"
        path.write_text(json.dumps(rows))
    page, _ = write("--shapes", *runs)
    assert cells(page, "`rgn` (3 runs)")[1] == "50.0 ± 0.0 (50.0 to 50.0)"
    took = cells(page, "`rgn` | 385,657")
    assert took[4] == "cpu, fp32, 1 and 2 threads, kernels AVX2 and DEFAULT, Some CPU"


def test_what_was_not_run_is_absent(make, write):
    run = make("one", [0.5] * 7, figures={"flops_per_query": None})
    page, _ = write("--shapes", run)
    assert cells(page, "`cfmr` | Faster")[3:] == ["-"] * 5
    assert cells(page, "`rgn` | 385,657")[2:4] == ["-", "5.0 min"]
    assert cells(page, "`rgn` (1 run)")[1:] == ["50.00"] * 7
    assert "## Charades" not in page
    assert "## Parity" not in page
    assert "## What the released quirks" not in page


def test_rows_of_one_package_name_what_tells_them_apart(make, write):
    short = make("short", [0.5] * 7, settings={"optim.lr": 0.1})
    long = make("long", [0.6] * 7, settings={"optim.lr": 0.2, "train.epochs": 30})
    page, _ = write("--clip", short, long)
    assert cells(page, "`rgn` (1 run)")[1] == "50.00"
    assert cells(page, "`rgn`, `optim.lr 0.2`, `train.epochs 30` (1 run)")[1] == "60.00"


def test_a_row_that_differs_in_many_settings_names_the_first_of_them(make, write):
    values = {"candidates": 1, "gamma": 0.25, "heads": 2, "hidden": 16, "sigma": 5.0}
    other = make("other", [0.6] * 7, settings={f"model.{name}": value for name, value in values.items()})
    page, _ = write("--clip", make("one", [0.5] * 7), other)
    named = "`model.candidates 1`, `model.gamma 0.25`, `model.heads 2`, `model.hidden 16` and 1 more"
    assert cells(page, f"`rgn`, {named} (1 run)")[1] == "60.00"


def test_each_test_split_has_a_table_of_its_own(make, write):
    shapes = make("shapes", [0.5] * 7)
    long = make("long", [0.3] * 7, package="rgnet", split="shapes-long/test", queries=633, chance=[0.01] * 7)
    page, _ = write("--shapes", long, shapes)
    titles = [line for line in page.splitlines() if line.startswith("**")]
    assert [title.partition(",")[0] for title in titles] == ["**shapes/test**", "**shapes-long/test**"]
    assert "633 queries" in titles[1]
    assert cells(page, "`rgnet` | RGNet")[3] == "30.00 / 30.00 (shapes-long)"


def test_a_run_from_before_a_field_existed_is_like_one_with_its_default(make, write, tmp_path):
    old, new = make("old", [0.5] * 7), make("new", [0.6] * 7, seed=1)
    path = tmp_path / "runs/rgn/old/config.yaml"
    config = yaml.safe_load(path.read_text())
    del config["train"]["tf32"]
    path.write_text(yaml.safe_dump(config))
    page, _ = write("--shapes", old, new)
    assert cells(page, "`rgn` (2 runs)")[1] == "55.0 ± 7.1 (50.0 to 60.0)"


def test_quirks_are_compared_where_nothing_else_differs(make, write):
    released = make("r", [0.60] * 7, quirks="released", package="cdn")
    fixed = make("f", [0.61] * 7, package="cdn")
    alone = make("x", [0.62] * 7, quirks="released", package="cdn", settings={"optim.lr": 0.3})
    page, _ = write("--shapes", released, fixed, alone)
    part = page.partition("## What the released quirks are worth")[2]
    assert cells(part, "`cdn`, shapes/test | released")[2:5] == ["0", "60.00", "60.00"]
    assert cells(part, "`cdn`, shapes/test | fixed")[2:5] == ["0", "61.00", "61.00"]
    assert "62.00" not in part


def test_runs_that_differ_by_their_quirks_alone_stand_in_that_table_only(make, write):
    shipped = make("f", [0.70] * 7, quirks="fixed", package="cdn")
    page, _ = write("--shapes", shipped, make("r", [0.60] * 7, quirks="released", package="cdn"))
    tables, _, quirks = page.partition("## What the released quirks are worth")
    assert "70.00" in tables
    assert "60.00" not in tables
    assert "60.00" in quirks


def test_parity_comes_from_what_the_tests_wrote(make, write, tmp_path):
    head = ["package", "stage", "arrays", "worst_absolute", "worst_relative"]
    with (tmp_path / "parity.csv").open("w", newline="") as file:
        rows = [
            ["rgn", "losses agree", 18, "3.1e-06", "2.0e-07"],
            ["rgn", "gradients agree", 90, "1e-05", "4e-05"],
        ]
        csv.writer(file).writerows([head, *rows])
    page, readme = write("--shapes", make("one", [0.5] * 7))
    assert cells(page, "`rgn` | losses agree")[2:] == ["18", "3.1e-06", "2.0e-07"]
    assert cells(readme, "`rgn`")[-1] == "108 recorded arrays within 4e-05"


def test_sections_that_are_not_given_stay(make, write):
    write("--shapes", make("one", [0.5] * 7), "--clip", make("two", [0.4] * 7, split="c/test"))
    page, _ = write("--clip", make("three", [0.3] * 7, split="c/test"))
    again, _ = write()
    assert page == again
    assert [cells(part, "`rgn` (1 run)")[1] for part in page.split("\n## ")[1:3]] == ["50.00", "30.00"]


def test_a_run_joins_the_row_of_those_kept_and_replaces_its_equal(make, write):
    write("--shapes", make("one", [0.5] * 7), make("two", [0.6] * 7, seed=1))
    page, _ = write("--shapes", make("again", [0.4] * 7), make("three", [0.8] * 7, seed=2))
    assert cells(page, "`rgn` (3 runs)")[1] == "60.0 ± 20.0 (40.0 to 80.0)"


def test_no_folder_of_the_machine_is_kept(make, write, tmp_path):
    write("--long", make("one", [0.5] * 7, settings={"data.features.path": "/home/me/clip.h5"}))
    assert "clip.h5" in (tmp_path / "runs.jsonl").read_text()
    assert "/home" not in (tmp_path / "runs.jsonl").read_text()


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ({"seed": 0}, "a seed was given twice"),
        ({"seed": 1, "chance": [0.5] * 7}, "evaluated on different queries"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(make, write, second, complaint):
    status, said = write("--shapes", make("one", [0.5] * 7), make("two", [0.5] * 7, **second))
    assert status == 2
    assert complaint in said


def test_a_run_that_has_not_finished_is_refused(make, write, tmp_path):
    run = make("one", [0.5] * 7)
    (tmp_path / "runs/rgn/one/run.json").unlink()
    status, said = write("--shapes", run)
    assert status == 2
    assert "found no run.json" in said
