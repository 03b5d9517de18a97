"""What docs/data.md tells a newcomer to type works as it is written there."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from folders import MODELS, ROOT
from vmr_shapes import ensure
from vmr_shapes.spec import SHORT

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Bring your own data\n", 1)[1].split("\n## ", 1)[0]


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def typed(line, folder):
    program, *arguments = shlex.split(line)
    program = sys.executable if program == "python" else str(Path(sys.executable).with_name(program))
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    (program,) = blocks("python")
    assert len(program.strip().splitlines()) <= 25
    (tmp_path / "make_mine.py").write_text(program)
    return tmp_path


def test_videos_of_ones_own_are_described_checked_and_converted(folder):
    first, *_ = blocks("")
    shown = "".join(typed(line, folder) for line in first.strip().splitlines())
    assert "mine/features: 50 videos, 32 columns, 60 rows" in shown
    assert re.search(r"^train\.jsonl +80 +40 +60\.0", shown, re.MULTILINE)
    assert "40 videos, all well" in shown
    assert "features.h5: 50 videos written as float32" in shown
    assert "objects.h5: 50 videos of 2 objects per frame written" in shown


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder after the first block of commands, with the page's configurations and its word vectors."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "make_mine.py").write_text(blocks("python")[0])
    for line in blocks("")[0].strip().splitlines():
        typed(line, folder)
    for text in blocks("yaml"):
        (name,) = re.findall(r"^name: (\S+)$", text, re.MULTILINE)
        (folder / f"{name}.yaml").write_text(text)
    # as `vmr-shapes` makes them, without its videos
    ensure(folder / "data/shapes", replace(SHORT, train=1, val=1, test=1))
    return folder


TRAININGS = [line for line in blocks("")[1].splitlines() if "-train" in line.split()[0]]
LONGEST = "rgnet"  # half a minute; the others take some seconds each


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(
            line, marks=[pytest.mark.slow] if line.startswith(LONGEST) else [], id=line.split("-")[0]
        )
        for line in TRAININGS
    ],
)
def test_every_paper_learns_from_videos_of_ones_own(line, prepared, monkeypatch, capsys):
    monkeypatch.chdir(prepared)
    program, *arguments = shlex.split(line)
    package = program.removesuffix("-train")
    # in this process, so that torch is loaded once for all
    assert importlib.import_module(f"{package}.training").command(arguments) == 0
    assert "split test.jsonl, 20 queries, 0 without prediction" in capsys.readouterr().out
    results = json.loads((prepared / f"runs/{package}/mine-{package}/results.json").read_text())
    recall = {row["name"]: row["values"]["R@1,IoU@0.3"] for row in results}
    assert recall[package] >= 1.25 * max(recall["chance"], recall["bias"]), recall


def test_the_page_trains_every_paper_and_scores_what_it_leaves():
    assert sorted(line.split("-")[0] for line in TRAININGS) == MODELS
    first, *_, score = blocks("")[1].strip().splitlines()
    assert first == "vmr-shapes"
    predictions = shlex.split(score)[1]
    assert re.fullmatch(r"runs/(\w+)/mine-\1/predictions\.jsonl", predictions)
