"""Damaged files of every kind through the commands: clean errors only."""

import subprocess
import sys

import pytest

from folders import ROOT

pytestmark = pytest.mark.e2e

SCRIPT = ROOT / "benchmarks/fuzz.py"


def fuzz(*arguments):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("kinds", "count"),
    [
        (["text", "predictions", "hdf5", "npz"], 80),
        (["folder", "safetensors", "yaml", "json"], 15),
        pytest.param(
            ["text", "predictions", "folder", "hdf5", "npz", "safetensors", "yaml", "json", "picture"],
            2000,
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_damaged_files_give_a_result_or_one_clean_error(kinds, count):
    said = fuzz("--kind", *kinds, "--count", count, "--seed", 3, "--packages", "rgn")
    ends = [line for line in said.splitlines() if "cases, seed 3: " in line]
    assert [line.split(":")[0] for line in ends] == kinds
    assert all(line.endswith("; 0 findings") for line in ends)


def test_a_case_comes_again_alone():
    assert "text: 1 cases, seed 3" in fuzz("--kind", "text", "--seed", 3, "--only", 57)
