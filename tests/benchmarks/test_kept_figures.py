"""Figures that are kept in benchmarks/results/ are those of today's code, where a test can tell in seconds."""

import os
import subprocess
import sys

import flops
import pytest
from against_plain import CASES
from recording import RESULTS, read_rows
from results_page import MODELS

from folders import ROOT

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("package", ["rgn", "rgnet"])
def test_operations_are_those_that_are_counted_now(package):
    kept = [row for row in read_rows(RESULTS / "flops.csv") if row["package"] == package]
    counted = [
        (setting, what, f"{ours:.4g}", f"{authors:.4g}")
        for setting, what, ours, authors in getattr(flops, package)()
    ]
    assert [(row["setting"], row["what"], row["ours_gflop"], row["authors_gflop"]) for row in kept] == counted


def test_every_case_against_a_plain_form_is_kept_with_its_goal_and_gave_the_same_numbers():
    for path in RESULTS.glob("against-plain-*.csv"):
        rows = read_rows(path)
        assert {row["case"]: float(row["goal"]) for row in rows} == {n: c.goal for n, c in CASES.items()}
        assert all(float(row["difference"]) < 1e-3 for row in rows), path.name
        assert all(float(row["least"]) <= float(row["ratio"]) <= float(row["most"]) for row in rows), (
            path.name
        )


@pytest.mark.parametrize("name", ["flops", "parity"])
def test_every_model_is_there(name):
    assert {row["package"] for row in read_rows(RESULTS / f"{name}.csv")} == {*MODELS}


def test_the_parity_tests_write_how_far_they_were_off(tmp_path):
    path = tmp_path / "parity.csv"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "0",
        "-q",
        "tests/parity/test_cfmr.py",
        "-k",
        "losses_agree",
    ]
    environment = {**os.environ, "VMR_PARITY_ERRORS": str(path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (row,) = read_rows(path)
    assert (row["package"], row["stage"]) == ("cfmr", "losses agree")
    assert int(row["arrays"]) >= 10
    assert 0 < float(row["worst_absolute"]) < 1e-3
    assert 0 < float(row["worst_relative"]) < 1e-3
