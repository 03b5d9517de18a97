"""Figures of the code itself: its size, and what a reader of one paper has to open elsewhere.

    uv run python benchmarks/figures.py [--run --data-root data] [PACKAGE ...]

Prints, as csv: lines and code lines per package (without blank lines, comments and docstrings); and per paper the names
that it imports from other packages, those that its method code imports, and the share of its method code that lies in
its own folder. With ``--run`` it also starts a training of each paper with its default configuration, stops it in its
first loss, and counts our own functions on the stack from the command to that loss, and our files that making a batch,
the loss of that batch and the prediction for it run through (the run folder is temporary; data sets are generated below
``--data-root``).

Method code: the code lines of the modules that are reached by import from the paper's ``data``, ``model``, ``losses``
and ``method``, of its own package and of vmr_train, without those of `GENERIC`.
"""

from __future__ import annotations

import argparse
import ast
import csv
import importlib
import io
import sys
import tempfile
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAPERS = ("rgn", "cfmr", "cdn", "leorn", "rgnet")
STARTS = ("data", "model", "losses", "method")
GENERIC = (
    # the loop around a method, and what every method has
    *(
        f"vmr_train.{name}"
        for name in ("checkpoint", "cli", "config", "device", "distributed", "fingerprint", "flops")
    ),
    *(f"vmr_train.{name}" for name in ("history", "interrupt", "loading", "method", "optim", "predict")),
    *(
        f"vmr_train.{name}"
        for name in ("preprocessing", "released_weights", "report", "run_files", "run_folder")
    ),
    *(
        f"vmr_train.{name}"
        for name in ("run_swap", "same_run", "sampler", "schedules", "state", "step", "trainer", "weights")
    ),
    # how a run reads its splits, features and words
    *(
        f"vmr_train.{name}"
        for name in ("content_words", "feature_files", "caches", "prepared", "ranges", "rng", "splits")
    ),
    *(f"vmr_train.{name}" for name in ("given_features", "unknown_words", "video_files", "word_lookup")),
    # whether a video shows the sentence at all, fitted behind the training
    "vmr_train.presence",
    # layers without a paper's identity
    *(
        f"vmr_train.layers.{name}"
        for name in ("batch_norm", "recompute", "rows_of_all", "sparse_map_conv", "sparse_map_plan")
    ),
    # reading of files
    "leorn.object_features",
    "rgnet.query_features",
)


def modules() -> dict[str, Path]:
    """Every module under ``packages/*/src`` by its name."""
    found = {}
    for source in sorted(ROOT.glob("packages/*/src")):
        for path in sorted(source.rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def code_lines(path: Path) -> int:
    """Lines that hold code: not blank, no comment, no docstring."""
    text = path.read_text()
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of every import of a file, wherever it stands; the name is empty for ``import module``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def method_modules(paper: str) -> set[str]:
    """The modules of a paper's method code, see the head of this file."""
    waiting, found = [f"{paper}.{name}" for name in STARTS if f"{paper}.{name}" in MODULES], set()
    while waiting:
        name = waiting.pop()
        if name in found or any(name == part or name.startswith(f"{part}.") for part in GENERIC):
            continue
        found.add(name)
        for module, what in imports(MODULES[name]):
            target = f"{module}.{what}" if f"{module}.{what}" in MODULES else module
            if target in MODULES and target.split(".")[0] in (paper, "vmr_train"):
                waiting.append(target)
    return found


def foreign_names(paper: str, modules: Iterable[str]) -> set[tuple[str, str]]:
    """The names that those modules that are a paper's import from our other packages."""
    return {
        found
        for name in modules
        if name.split(".")[0] == paper
        for found in imports(MODULES[name])
        if found[0].split(".")[0].startswith("vmr_")
    }


def ours(frame: FrameType) -> str | None:
    """The file of a frame if it is one of ours, else None."""
    name = frame.f_code.co_filename
    return name.partition("/src/")[2] if "/packages/" in name and "/src/" in name else None


class Stop(BaseException):
    """Ends the run that is watched."""


def touched(function: Callable[[], Any]) -> tuple[Any, set[str]]:
    """What a function returns, and our files that its call ran through."""
    files: set[str] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and (name := ours(frame)):
            files.add(name)

    sys.setprofile(watch)
    try:
        return function(), files
    finally:
        sys.setprofile(None)


def watched_run(paper: str, data_root: str) -> tuple[list[str], dict[str, set[str]]]:
    """The stack from the command to the first loss, and the files that a batch, a loss and a prediction run through."""
    entry = importlib.import_module(f"{paper}.__main__").COMMANDS["train"]
    held: dict[str, Any] = {}

    def watch(frame: FrameType, event: str, _: Any) -> None:
        name = ours(frame)
        if event != "call" or name is None or held.get("stack"):
            return
        if frame.f_code.co_name == "batch" and "dataset" not in held and name.startswith(f"{paper}/"):
            held["dataset"], held["asked"] = (
                frame.f_locals["self"],
                (frame.f_locals["indices"], frame.f_locals["epoch"]),
            )
        if frame.f_code.co_name == "loss" and name == f"{paper}/method.py":
            held["method"], held["arguments"] = (
                frame.f_locals["self"],
                (frame.f_locals["batch"], frame.f_locals["progress"]),
            )
            stack, above = [], frame
            while above is not None:
                if place := ours(above):
                    stack.append(f"{place}:{above.f_code.co_name}")
                above = above.f_back
            held["stack"] = stack[::-1]
            raise Stop

    with tempfile.TemporaryDirectory() as runs:
        sys.setprofile(watch)
        try:
            entry(["--runs", runs, "--data-root", data_root, "--train.device", "cpu", "--train.workers", "0"])
        except Stop:
            pass
        finally:
            sys.setprofile(None)
    import torch

    method, files = held["method"], {}
    batch, files["batch"] = touched(lambda: held["dataset"].batch(*held["asked"]))
    _, files["loss"] = touched(lambda: method.loss(*held["arguments"]))
    method.model.eval()
    with torch.no_grad():
        batch = held["dataset"].batch(held["asked"][0], None)
        _, files["prediction"] = touched(lambda: method.predict(batch))
    return held["stack"], files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("papers", nargs="*", default=PAPERS, metavar="PACKAGE")
    parser.add_argument("--run", action="store_true", help="start a training of each paper as well")
    parser.add_argument("--data-root", default="data")
    options = parser.parse_args()
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["package", "files", "lines", "code lines"])
    for package in sorted({name.split(".")[0] for name in MODULES}):
        paths = [path for name, path in MODULES.items() if name.split(".")[0] == package]
        lines = sum(len(path.read_text().splitlines()) for path in paths)
        table.writerow([package, len(paths), lines, sum(map(code_lines, paths))])
    print()
    table.writerow(
        [
            *("paper", "names from other packages", "of its method code"),
            *("method code in its own package, %", "method code elsewhere"),
        ]
    )
    for paper in options.papers:
        reached = method_modules(paper)
        own = sum(code_lines(MODULES[name]) for name in reached if name.split(".")[0] == paper)
        others = {name: code_lines(MODULES[name]) for name in sorted(reached) if name.split(".")[0] != paper}
        others = {name: lines for name, lines in others.items() if lines}
        share = f"{100 * own / (own + sum(others.values())):.0f}"
        names = (len(foreign_names(paper, modules)) for modules in (MODULES, reached))
        table.writerow([paper, *names, share, " ".join(f"{n}:{c}" for n, c in others.items())])
    if not options.run:
        return
    print()
    table.writerow(
        ["paper", "frames to the loss", "files of a batch", "of a loss", "of a prediction", "details"]
    )
    for paper in options.papers:
        stack, files = watched_run(paper, options.data_root)
        details = [
            " > ".join(stack),
            *(f"{what}: {' '.join(sorted(names))}" for what, names in files.items()),
        ]
        table.writerow([paper, len(stack), *(len(names) for names in files.values()), "; ".join(details)])


if __name__ == "__main__":
    main()
