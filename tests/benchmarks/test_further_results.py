"""Parts of the results page that are no training runs: means over seeds, chance once, nothing where nothing was run."""

import csv

import further_results
import pytest
from corpus_results import COLUMNS, FIGURES
from further_results import corpus, presence


@pytest.fixture
def measured(tmp_path, monkeypatch):
    monkeypatch.setattr(further_results, "RESULTS", tmp_path)

    def write(name, columns, rows):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    return write


def row(what, seed, system, value):
    same = {
        "what": what,
        "split": "shapes/test",
        "seed": seed,
        "videos": 890,
        "queries": 662,
        "truth": "graded",
    }
    return same | {"system": system} | dict.fromkeys(FIGURES, value)


def test_what_was_not_measured_is_absent(measured):
    assert corpus() is None
    assert presence() is None


def test_a_corpus_row_is_the_mean_over_its_seeds_and_chance_stands_once(measured):
    rows = [row(what, seed, "cfmr", 10 * seed) for what in ("cfmr, one", "cfmr, other") for seed in (1, 2)]
    measured("corpus.csv", COLUMNS, [*rows, *(row("cfmr, one", seed, "chance", 5) for seed in (1, 2))])
    lines = [line for line in corpus().splitlines() if "shapes/test" in line]
    assert [line.split(" | ")[2:5] for line in lines] == [
        ["cfmr, one", "1, 2", "15.0 ± 7.1"],
        ["cfmr, other", "1, 2", "15.0 ± 7.1"],
        ["chance", "-", "5.0"],
    ]


def test_a_model_that_does_not_tell_presence_has_no_probability(measured):
    values = {"split": "shapes/test", "pairs": "2 + 2", "AUROC": 0.61, "low": 0.57, "high": 0.65}
    values |= {"recall": 0.07, "off": 0.03}
    models = [{"model": "one", "probability": "yes"}, {"model": "other", "probability": "no"}]
    measured("presence.csv", list(values | models[0]), [values | model for model in models])
    lines = presence().splitlines()
    assert lines[-2].endswith("| 0.61 (0.57 to 0.65) | 0.07 | 0.03 |")
    assert lines[-1].endswith("| 0.61 (0.57 to 0.65) | 0.07 | - (says nothing) |")
