"""All packages are made alike, and what is built from them holds all that a user needs."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import vmr_common
from folders import MODELS, ROOT
from tiny_papers import SPEC, tiny
from vmr_shapes import ensure
from vmr_train.cli.config import bundled_config, bundled_configs, to_dict

PACKAGES = sorted((ROOT / "packages").iterdir())
UV = Path(sys.executable).with_name("uv")


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def module(folder: Path) -> str:
    return folder.name.replace("-", "_")


def distribution(folder: Path) -> str:
    """Its name on an index: the short names of papers belong to others there."""
    return f"vmr-{folder.name}" if folder.name in MODELS else folder.name


def every_config() -> list[tuple[str, str]]:
    return [(name, config) for name in MODELS for config in bundled_configs(name)]


@pytest.mark.parametrize(("package", "name"), every_config(), ids=str)
def test_every_shipped_configuration_is_understood(package, name):
    schema = importlib.import_module(f"{package}.config").Config
    config = bundled_config(package, schema, name)
    assert config.name == name
    assert to_dict(config)["quirks"] in ("released", "fixed")


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.name)
def test_every_package_has_the_same_frame(folder):
    source = folder / "src" / module(folder)
    readme = (folder / "README.md").read_text()
    assert readme.startswith(f"# {folder.name}\n")
    assert not re.search(r"\]\((?!https:)", readme)  # an index shows it without the repository around it
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (source / "py.typed").is_file()
    assert (source / "__init__.py").is_file()
    found = project(folder)
    common = project(ROOT / "packages/vmr-common")
    assert found["build-system"] == common["build-system"]
    for key in ("requires-python", "license", "license-files", "readme", "classifiers", "keywords"):
        assert found["project"][key] == common["project"][key], key
    assert found["project"]["name"] == distribution(folder)
    assert found["project"]["description"]
    assert found["project"]["dynamic"] == ["version"]
    version = folder / found["tool"]["hatch"]["version"]["path"]
    assert version.resolve() == ROOT / "packages/vmr-common/src/vmr_common/version.py"
    assert found["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": [f"src/{module(folder)}"]}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_offers_the_four_commands_and_depends_on_the_same(name):
    found = project(ROOT / "packages" / name)
    scripts = found["project"]["scripts"]
    verbs = {f"{name}-{verb}" for verb in ("train", "eval", "predict", "import")}
    assert verbs <= set(scripts)
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert module.startswith(f"{name}.")
        assert callable(getattr(importlib.import_module(module), function))
    rgn = project(ROOT / "packages/rgn")
    assert set(found["project"]["dependencies"]) >= set(rgn["project"]["dependencies"])
    assert found["tool"]["uv"]["sources"].items() >= rgn["tool"]["uv"]["sources"].items()
    assert name in importlib.import_module(f"{name}.__main__").__doc__


def test_the_workspace_knows_every_package():
    root = project(ROOT)
    assert set(root["tool"]["uv"]["sources"]) == set(map(distribution, PACKAGES))
    assert set(root["project"]["dependencies"]) == set(map(distribution, PACKAGES))
    paths = root["tool"]["mypy"]["mypy_path"].split(":")
    assert set(paths) == {f"packages/{path.name}/src" for path in PACKAGES}
    (warnings,) = root["tool"]["pytest"]["ini_options"]["filterwarnings"]
    for path in PACKAGES:
        assert re.match(warnings.split(":")[-1], module(path))


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.name)
def test_packages_ask_for_each_other_in_the_same_release(folder):
    """They are released and tested together; an older one beside a newer one has been tried by nobody."""
    found = project(folder)["project"]
    extras = [one for names in found.get("optional-dependencies", {}).values() for one in names]
    other = [
        one
        for one in found["dependencies"] + extras
        if one.startswith("vmr-") and not one.endswith(f"=={vmr_common.__version__}")
    ]
    assert not other, "CONTRIBUTING.md, Releasing, has the command that sets them"


def test_extras_that_messages_and_pages_name_are_there():
    extras = {
        distribution(path): project(path)["project"].get("optional-dependencies", {}) for path in PACKAGES
    }
    named = set()
    for path in [
        *ROOT.glob("packages/*/src/**/*.py"),
        *ROOT.glob("packages/*/README.md"),
        *ROOT.glob("docs/*.md"),
    ]:
        text = path.read_text()
        named |= set(re.findall(r"\b(vmr-\w+)\[(\w+)\]", text))
        # the short names are packages of others: a page that says so would install them
        assert not re.search(rf"pip install [\"']?({'|'.join(MODELS)})\b", text), path
    assert {("vmr-train", "tensorboard"), ("vmr-common", "lmdb"), ("vmr-cfmr", "search")} <= named
    for package, extra in named:
        assert extra in extras[package]


def test_users_cite_the_version_of_the_packages():
    cited = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited == [vmr_common.__version__]


def test_publishing_is_ready_and_never_happens_on_a_push():
    text = (ROOT / ".github/workflows/publish.yml").read_text()
    workflow = yaml.safe_load(text)
    assert set(workflow[True]) == {"release", "workflow_dispatch"}  # YAML reads the key `on` as true
    publish = workflow["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}  # trusted publishing: no token anywhere
    assert publish["if"] == "github.event_name == 'release'"
    assert set(publish["strategy"]["matrix"]["package"]) == set(map(distribution, PACKAGES))
    assert "uv build --all-packages" in text
    (line,) = [
        step["run"] for step in workflow["jobs"]["build"]["steps"] if "the tag" in step.get("name", "")
    ]
    for tag, status in ((f"v{vmr_common.__version__}", 0), ("v0.0.0", 1)):
        done = subprocess.run(
            ["bash", "-c", line], cwd=ROOT, env={**os.environ, "GITHUB_REF_NAME": tag}, check=False
        )
        assert done.returncode == status


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
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}  # vmr_rgn


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.name)
@pytest.mark.e2e
def test_the_wheel_of_a_package_holds_all_of_it(wheels, folder):
    name = module(folder)
    with zipfile.ZipFile(wheels[distribution(folder).replace("-", "_")]) as archive:
        names = set(archive.namelist())
        (info,) = {entry.split("/")[0] for entry in names if ".dist-info/" in entry}
        about = archive.read(f"{info}/METADATA").decode()
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    source = folder / "src"
    files = [path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(source)) for path in files} == {n for n in names if not n.startswith(info)}
    assert f"{name}/py.typed" in names
    assert f"Version: {vmr_common.__version__}\n" in about
    assert f"\nName: {distribution(folder)}\n" in about
    assert "License-Expression: Apache-2.0" in about
    assert f"# {folder.name}" in about  # the README
    if folder.name in MODELS:
        assert [n for n in names if n.startswith(f"{name}/configs/") and n.endswith(".yaml")]


@pytest.mark.e2e
def test_a_wheel_has_the_same_bytes_built_elsewhere_later_and_not_from_the_sdist(wheels, tmp_path):
    """Whoever builds a release again can compare it with what is published."""
    shutil.copytree(
        ROOT / "packages", tmp_path / "packages", copy_function=shutil.copyfile
    )  # with the time of now
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    folder = tmp_path / "packages/rgn"
    build = [str(UV), "build", "--quiet", "--offline", "--wheel", "--out-dir", str(tmp_path / "dist")]
    subprocess.run([*build, str(folder)], cwd=tmp_path, check=True)
    (again,) = (tmp_path / "dist").glob("*.whl")
    assert again.read_bytes() == wheels["vmr_rgn"].read_bytes()


@pytest.mark.e2e
def test_wheels_of_all_packages_are_built(wheels):
    assert set(wheels) == {distribution(path).replace("-", "_") for path in PACKAGES}


@pytest.mark.e2e
def test_the_first_lines_of_the_python_page_run_from_the_wheels_alone(wheels, tmp_path):
    """In an environment of its own, which finds the libraries of others (torch above all) where this one has them."""
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env/bin/python"
    install = [str(UV), "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python)]
    subprocess.run([*install, *map(str, wheels.values())], check=True)
    (own,) = tmp_path.glob("env/lib/python*/site-packages")
    (own / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    program = page.partition("```python\n")[2].partition("```")[0]
    assert len(program.splitlines()) <= 10
    ensure(tmp_path / "data/shapes", SPEC)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny("rgn")))
    program = program.replace('train("shapes"', 'train("tiny.yaml"') + "print(rgn.__file__)\n"
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VMR_DATA")}
    run = [str(python), "-c", program]
    done = subprocess.run(run, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *table, where = done.stdout.splitlines()
    asked = re.search(r'predict\("([\w-]+)", "([^"]+)"', program)
    assert asked is not None
    assert table[0] == f"{asked[1]}  {asked[2]}"
    assert where.startswith(str(own))
