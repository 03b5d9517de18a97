"""The page of data sets says what the table of sources says, and the table knows every file of every configuration."""

import importlib

import datasets_page
import pytest

from folders import MODELS, ROOT
from vmr_common.io import read_json
from vmr_common.splits.registry import ENTRIES
from vmr_common.splits.sources import sources
from vmr_train.cli.config import bundled_config, bundled_configs
from vmr_train.needs import needed_files


def test_the_page_is_up_to_date():
    assert (ROOT / "docs/datasets.md").read_text(encoding="utf-8") == datasets_page.render(), (
        datasets_page.COMMAND
    )


@pytest.mark.parametrize("package", MODELS)
def test_every_file_of_a_bundled_configuration_has_a_source(package):
    schema = importlib.import_module(f"{package}.config").Config
    for name in bundled_configs(package):
        found = needed_files(bundled_config(package, schema, name))
        assert not [
            path for path, key in found.items() if path not in sources() and not key.startswith("init")
        ]


def test_the_table_is_whole():
    table = read_json(datasets_page.TABLE)
    paths = [path for entry in table["files"] for path in entry["paths"]]
    assert len(paths) == len(set(paths)) == len(sources())
    assert {file for entry in ENTRIES.values() for file in entry.files} <= set(paths)
    named = {split for about in table["data_sets"].values() for split in about["splits"]}
    assert named == {name.rpartition("/")[0] for name in ENTRIES}
    for entry in table["files"]:
        assert entry["addresses"] or "make" in entry, entry["what"]
        assert all(address.startswith(("https://", "http://")) for address in entry["addresses"])
        assert all(not facts or len(facts["sha256"]) == 64 for facts in entry["paths"].values())
