"""All packages of the house are made alike, and what is built from them holds all that a user needs."""

import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from folders import MODELS, ROOT
from vmr_train.cli.config import bundled_config, bundled_configs, to_dict

PACKAGES = sorted((ROOT / "packages").iterdir())
UV = Path(sys.executable).with_name("uv")


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def module(folder: Path) -> str:
    return folder.name.replace("-", "_")


def every_config() -> list[tuple[str, str]]:
    return [(name, config) for name in MODELS for config in bundled_configs(name)]


@pytest.mark.parametrize(("package", "name"), every_config(), ids="/".join)
def test_every_shipped_configuration_is_understood(package, name):
    described = importlib.import_module(f"{package}.cli").PACKAGE
    config = bundled_config(package, described.schema, name)
    assert config.name == name
    assert to_dict(config)["quirks"] in ("released", "fixed")


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.name)
def test_every_package_has_the_same_frame(folder):
    source = folder / "src" / module(folder)
    assert (folder / "README.md").read_text().startswith(f"# {folder.name}\n")
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (source / "py.typed").is_file()
    assert (source / "__init__.py").is_file()
    found = project(folder)
    common = project(ROOT / "packages/vmr-common")
    assert found["build-system"] == common["build-system"]
    for key in ("version", "requires-python", "license", "license-files", "readme"):
        assert found["project"][key] == common["project"][key], key
    assert found["project"]["name"] == folder.name
    assert found["project"]["description"]
    assert found["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": [f"src/{module(folder)}"]}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_offers_the_four_commands_and_depends_on_the_same(name):
    found = project(ROOT / "packages" / name)
    scripts = found["project"]["scripts"]
    verbs = {"train": "train", "eval": "evaluate", "predict": "predict", "import": "import_official"}
    assert {
        f"{name}-{verb}": f"{name}.cli:{function}" for verb, function in verbs.items()
    }.items() <= scripts.items()
    assert found["project"]["dependencies"] == project(ROOT / "packages/rgn")["project"]["dependencies"]
    assert found["tool"]["uv"]["sources"] == {"vmr-common": {"workspace": True}}
    assert name in importlib.import_module(f"{name}.__main__").__doc__


def test_the_workspace_knows_every_package():
    root = project(ROOT)
    assert set(root["tool"]["uv"]["sources"]) == {path.name for path in PACKAGES}
    assert set(root["project"]["dependencies"]) == {"vmr-common[torch]", *MODELS}
    paths = root["tool"]["mypy"]["mypy_path"].split(":")
    assert set(paths) == {f"packages/{path.name}/src" for path in PACKAGES}
    (strict,) = [part for part in root["tool"]["mypy"]["overrides"] if part.get("strict")]
    assert set(strict["module"]) == {f"{module(path)}.*" for path in PACKAGES}
    assert root["project"]["version"] == project(ROOT / "packages/vmr-common")["project"]["version"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, zipfile.Path]:
    """All packages as wheels, built from their source distributions as for an index."""
    folder = tmp_path_factory.mktemp("dist")
    build = [str(UV), "build", "--quiet", "--all-packages", "--out-dir", str(folder)]
    # the build tool is in uv's cache once the workspace is installed; elsewhere it is fetched
    done = subprocess.run([*build, "--offline"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.name)
def test_the_wheel_of_a_package_holds_all_of_it(wheels, folder):
    name = module(folder)
    with zipfile.ZipFile(wheels[name]) as archive:
        names = set(archive.namelist())
        (info,) = {entry.split("/")[0] for entry in names if ".dist-info/" in entry}
        metadata = archive.read(f"{info}/METADATA").decode()
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    source = folder / "src"
    files = [path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(source)) for path in files} == {n for n in names if not n.startswith(info)}
    assert f"{name}/py.typed" in names
    assert "License-Expression: Apache-2.0" in metadata
    assert f"# {folder.name}" in metadata  # the README
    if folder.name in MODELS:
        assert [n for n in names if n.startswith(f"{name}/configs/") and n.endswith(".yaml")]


def test_wheels_of_all_packages_are_built(wheels):
    assert set(wheels) == {module(path) for path in PACKAGES}
