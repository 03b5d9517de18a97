"""The scripts and notebooks of examples/ run from their first line to their last, on the small Shapes."""

import ast
import json
import os
import runpy
import sys

import pytest
import yaml

import rgn
from folders import ROOT
from tiny_papers import tiny

SCRIPTS = {
    "train_and_predict": ["rgn.yaml"],
    "own_features": ["own", "1"],
    "own_metrics": ["cdn.yaml"],
    "compare_runs": ["rgn.yaml"],
    "own_loss": ["rgn.yaml"],
    "search_videos": ["cfmr.yaml"],
}
SAID = {
    "train_and_predict": "NLL",
    "own_features": "truth: (",
    "own_metrics": "mean IoU of the best of five",
    "compare_runs": "95 % interval",
    "own_loss": "the new term stands in",
    "search_videos": "videos in the index",
}
NOTEBOOKS = sorted(path.name for path in (ROOT / "examples").glob("*.ipynb"))


@pytest.fixture
def bench(tmp_path, tiny_data, monkeypatch):
    """An own folder with configurations of the small Shapes, and the data root in the environment."""
    for paper in ("rgn", "cfmr", "cdn"):
        (tmp_path / f"{paper}.yaml").write_text(yaml.safe_dump(tiny(paper)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VMR_DATA", str(tiny_data))
    return tmp_path


def test_every_example_is_run_here_and_short():
    paths = {path.stem: path for path in (ROOT / "examples").glob("*.py")}
    assert set(paths) == set(SCRIPTS)
    assert all(len(path.read_text().splitlines()) <= 80 for path in paths.values())
    assert len(NOTEBOOKS) == 2


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs(name, bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *SCRIPTS[name]])
    monkeypatch.setattr(rgn.losses, "total", rgn.losses.total)  # one of them puts another in its place
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert SAID[name] in capsys.readouterr().out
    if name == "own_loss":
        rows = map(json.loads, (bench / "runs/rgn/short-answers/metrics.jsonl").read_text().splitlines())
        assert any("train/short" in row for row in rows)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_shows_what_its_cells_end_in(name, bench, monkeypatch):
    monkeypatch.setenv("VMR_EXAMPLE_CONFIG", "rgn.yaml")
    monkeypatch.setenv("VMR_EXAMPLE_CONFIGS", "cfmr.yaml,cdn.yaml")
    path = ROOT / "examples" / name
    assert os.path.getsize(path) < 10_000
    shown, names = [], {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            body = ast.parse("".join(cell["source"])).body
            last = [body.pop()] if isinstance(body[-1], ast.Expr) else []
            exec(compile(ast.Module(body, []), name, "exec"), names)
            for one in last:
                value = eval(compile(ast.Expression(one.value), name, "eval"), names)
                shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))
    assert any(one.startswith("<figure") for one in shown)
