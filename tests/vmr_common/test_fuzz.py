"""Damaged annotation and prediction files through the commands: clean errors only."""

import subprocess
import sys

import pytest

from folders import ROOT

SCRIPT = ROOT / "benchmarks/fuzz.py"


@pytest.mark.parametrize("files", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files_give_a_result_or_one_clean_error(files):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--files", str(files), "--seed", "3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.startswith(f"{files} files, seed 3: ")
    assert done.stdout.endswith("; 0 failures\n")
