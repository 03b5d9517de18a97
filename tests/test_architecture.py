"""The import rules of the house: arrows run one way, and the numpy rooms stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from folders import MODELS, ROOT

COMMON = ROOT / "packages/vmr-common/src/vmr_common"
TORCH_ROOMS = {"nn", "training"}
# the frame of the models' commands; vmr-* commands do without torch
TORCH_COMMANDS = {"model.py", "package.py", "publish.py"}
ALLOWED = {  # room -> rooms of vmr_common that it may import, beside the numpy rooms
    "nn": set(),
    "training": {"nn"},
    "report": set(),
    "cli": {"training", "nn", "report"},
}


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


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def test_no_model_package_imports_another_one():
    for model in MODELS:
        others = set(MODELS) - {model}
        for path in sources(ROOT / "packages" / model / "src"):
            assert not {name.split(".")[0] for name in imported(path)} & others, path


def test_vmr_common_imports_no_model_package():
    for path in sources(COMMON):
        assert not {name.split(".")[0] for name in imported(path)} & set(MODELS), path


def test_rooms_of_vmr_common_import_only_downwards():
    for path in sources(COMMON):
        room = path.relative_to(COMMON).parts[0]
        upper = {name.split(".")[1] for name in imported(path) if name.startswith("vmr_common.")} & set(
            ALLOWED
        )
        assert upper <= ALLOWED.get(room, set()) | {room}, path


def test_only_the_torch_rooms_import_torch():
    for path in sources(COMMON):
        parts = path.relative_to(COMMON).parts
        if parts[0] in TORCH_ROOMS or (parts[0] == "cli" and parts[-1] in TORCH_COMMANDS):
            continue
        heavy = {name.split(".")[0] for name in imported(path)} & {"torch", "safetensors"}
        assert not heavy, path


@pytest.mark.parametrize("package", MODELS)
def test_every_model_package_has_the_floor_plan(package):
    folder = ROOT / "packages" / package / "src" / package
    rooms = (
        "config.py",
        "data.py",
        "model.py",
        "losses.py",
        "task.py",
        "official.py",
        "cli.py",
    )
    assert [name for name in rooms if not (folder / name).is_file()] == []
    assert list(folder.glob("configs/shapes*.yaml"))


def test_importing_vmr_common_loads_neither_torch_nor_h5py():
    code = "import sys, vmr_common; print([m for m in ('torch', 'h5py', 'yaml', 'tqdm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_data_and_score_commands_run_without_torch(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['safetensors'] = None\n"
        "import vmr_common.cli.data, vmr_common.cli.score, vmr_train.cli.report, vmr_train.report\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_no_source_file_prints_or_unpickles():
    for path in [file for package in (ROOT / "packages").iterdir() for file in sources(package / "src")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", path
        called = {name for name in imported(path) if name == "pickle"}
        assert not called or "pickle.UnpicklingError" in path.read_text(), path
