"""Arrows between packages run one way, and what is imported stays light."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from folders import MODELS, ROOT

PAPERS_MAY_IMPORT = {"vmr_common", "vmr_train", "vmr_shapes", "vmr_video"}
MAY_IMPORT = {
    "vmr_common": set(),
    "vmr_video": {"vmr_common"},
    "vmr_train": {"vmr_common", "vmr_video"},
    "vmr_search": {"vmr_common", "vmr_video"},  # papers come through entry points
    "vmr_shapes": {"vmr_common", "vmr_video"},  # optional: its videos as files, and features from files
    **dict.fromkeys(MODELS, PAPERS_MAY_IMPORT),
    "cfmr": PAPERS_MAY_IMPORT | {"vmr_search"},  # optional: its commands over a collection
}
# where a module has another name than what is installed
DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow", **{name: f"vmr-{name}" for name in MODELS}}


def folder_of(package: str) -> Path:
    return ROOT / "packages" / package.replace("_", "-") / "src" / package


def sources(package: str) -> list[Path]:
    return sorted(folder_of(package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever the statement stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_is_below_them(package):
    for path in sources(package):
        ours = {name.split(".")[0] for name in imported(path)} & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package] | {package}, path


def test_every_package_has_its_arrows():
    assert {path.name.replace("-", "_") for path in (ROOT / "packages").iterdir()} == set(MAY_IMPORT)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_declares_all_that_it_imports(package):
    project = tomllib.loads((folder_of(package).parents[1] / "pyproject.toml").read_text())["project"]
    extras = [name for names in project.get("optional-dependencies", {}).values() for name in names]
    declared = {re.split(r"[\[>=]", name)[0] for name in project["dependencies"] + extras}
    for path in sources(package):
        names = {name.split(".")[0] for name in imported(path)} - sys.stdlib_module_names - {package}
        needed = {DISTRIBUTIONS.get(name, name).replace("_", "-") for name in names}
        assert needed <= declared, path


def test_vmr_common_needs_little():
    project = tomllib.loads((ROOT / "packages/vmr-common/pyproject.toml").read_text())["project"]
    assert {name.split(">")[0] for name in project["dependencies"]} == {"h5py", "numpy", "tqdm"}


def edges(package: str) -> Iterator[tuple[str, str]]:
    """Pairs of top-level parts of a package, of which the first imports the second."""
    folder = folder_of(package)
    parts = {path.stem for path in folder.iterdir()}
    for path in sources(package):
        part = path.relative_to(folder).with_suffix("").parts[0]
        for name in imported(path):
            first, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if first == package and other in parts and part not in (other, "__init__"):
                yield part, other


def test_the_parts_of_vmr_common_import_each_other_in_one_order():
    order: TopologicalSorter[str] = TopologicalSorter()
    for part, other in edges("vmr_common"):
        order.add(part, other)
    order.prepare()  # raises for a cycle, and names it


@pytest.mark.e2e
def test_importing_vmr_common_costs_no_more_than_numpy():
    assert modules_after("import vmr_common") - sys.stdlib_module_names <= modules_after("import numpy") | {
        "vmr_common"
    }
    heavy = {"torch", "h5py", "yaml", "tqdm", "PIL", "lmdb"}
    assert not modules_after("from vmr_common import Prediction, Query") & heavy


@pytest.mark.e2e
@pytest.mark.parametrize("command", ["vmr_common.cli.score", "vmr_common.cli.data"])
def test_commands_on_data_start_without_heavy_libraries(command):
    assert not modules_after(f"import {command}") & {"torch", "h5py", "yaml", "tqdm", "PIL", "lmdb"}


@pytest.mark.e2e
@pytest.mark.parametrize("paper", MODELS)
def test_a_configuration_is_described_without_torch(paper):
    statement = f"import vmr_train.cli.config, {paper}.config"
    assert not modules_after(statement) & {"torch", "h5py", "safetensors", "PIL"}


@pytest.mark.e2e
@pytest.mark.parametrize("command", [*(f"{paper}.__main__" for paper in MODELS), "cfmr.index.cli"])
def test_commands_of_a_paper_understand_their_options_without_torch(command):
    assert not modules_after(f"import {command}") & {"torch", "safetensors", "PIL"}


@pytest.mark.e2e
def test_commands_that_write_no_report_load_nothing_for_one():
    assert not modules_after("import vmr_train.cli.commands") & {"jinja2", "PIL", "triton"}


@pytest.mark.e2e
def test_a_checkpoint_of_rgn_is_read_without_torchs_compiler():
    code = (
        "import sys, torch\nfrom rgn.model import place_evenly\n"
        "head = torch.nn.utils.skip_init(torch.nn.Linear, 4, 16, device='meta')\n"
        "with torch.device('meta'): place_evenly(head, 8)\n"  # as `vmr_train.weights.restored` makes a network
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_no_source_file_prints_or_unpickles():
    for path in (path for package in MAY_IMPORT for path in sources(package)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", path
        assert "pickle" not in imported(path) or "pickle.UnpicklingError" in path.read_text(), path
