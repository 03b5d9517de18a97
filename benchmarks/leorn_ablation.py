"""What each part of LEORN's object reasoning is worth on Shapes: it is trained without the part, everything else alike.

    uv run python benchmarks/leorn_ablation.py --data-root data --runs runs [--seeds 3] [--epochs 6] [--only language]

Every row is a run of ``leorn-train``; a run that is there already is not made again, so that the command can be
interrupted and repeated. The table, means over the seeds, goes to the terminal and to
``benchmarks/results/leorn-ablation.csv``.
"""

import argparse
import statistics
import sys
from pathlib import Path

from recording import RESULTS, write_rows

from leorn.training import command as train
from vmr_common.io import read_json
from vmr_common.schema import conform
from vmr_train.report.json_form import ScoresRow

PARTS = {
    "all": [],
    "language": ["--model.reasoning.language", "false"],
    "self-attention": ["--model.reasoning.self_attention", "false"],
    "attentive-pool": ["--model.reasoning.attentive_pool", "false"],
    "boxes": ["--model.reasoning.boxes", "false"],
    "sentinel": ["--model.reasoning.sentinel", "false"],
    "shift": ["--model.reasoning.shift", "0"],
}
MEASURES = ("R@1,IoU@0.3", "R@1,IoU@0.5", "R@1,IoU@0.7", "R@1,mIoU", "R@5,IoU@0.5")


def scores(options, part, seed):
    """Of a run without `part`, which is trained if it is not there."""
    name = f"ablation-{part}-{options.epochs}-{seed}"
    results = Path(options.runs) / "leorn" / name / "results.json"
    if not results.is_file():
        given = [
            "--cfg",
            options.cfg,
            "--data-root",
            options.data_root,
            "--runs",
            options.runs,
            "--name",
            name,
        ]
        given += [
            "--train.seed",
            str(seed),
            "--train.epochs",
            str(options.epochs),
            "--overwrite",
            *PARTS[part],
        ]
        if train(given):
            sys.exit(f"the run {name} failed")
    return conform(read_json(results), list[ScoresRow], str(results))[0]["values"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cfg", default="shapes")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    rows = []
    for part in options.only:
        found = [scores(options, part, seed) for seed in range(options.seeds)]
        means = {name: round(100 * statistics.fmean(one[name] for one in found), 2) for name in MEASURES}
        rows.append(
            {
                "without": "" if part == "all" else part,
                "seeds": options.seeds,
                "epochs": options.epochs,
                **means,
            }
        )
        print(rows[-1], flush=True)
    write_rows(RESULTS / "leorn-ablation.csv", rows)


if __name__ == "__main__":
    main()
