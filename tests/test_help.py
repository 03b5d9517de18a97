"""Every command says its version, and helps in few lines; all that a configuration holds is one option further."""

import importlib
import pkgutil
import tomllib

import pytest

import vmr_common
from folders import MODELS, ROOT
from vmr_train.cli.config import bundled_config, to_dict

SCRIPTS = {
    name: target
    for path in ROOT.glob("packages/*/pyproject.toml")
    for name, target in tomllib.loads(path.read_text())["project"].get("scripts", {}).items()
}
VERBS = [f"{package}-{verb}" for package in MODELS for verb in ("train", "eval", "predict", "import")]


@pytest.fixture
def shown(capsys, monkeypatch):
    """What a command that ends at once prints, on a terminal of 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(name: str, *arguments: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            pkgutil.resolve_name(SCRIPTS[name])(list(arguments))
        assert ended.value.code == 0
        return capsys.readouterr().out

    return run


def fields(values: dict, prefix: str = "") -> list[str]:
    """The dotted names of a configuration."""
    names = []
    for key, value in values.items():
        names += fields(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return names


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_says_its_version(name, shown):
    assert shown(name, "--version") == f"{name} {vmr_common.__version__}\n"


@pytest.mark.parametrize("name", VERBS)
def test_the_help_of_a_paper_fits_a_screen_and_names_the_rest(name, shown):
    text = shown(name, "--help")
    assert len(text.splitlines()) <= 60
    assert "--help-config" in text
    assert ("--cfg" in text) == name.endswith(("train", "import"))  # a checkpoint holds its configuration
    assert ("--train.epochs" in text) == name.endswith("train")


@pytest.mark.parametrize("name", VERBS)
def test_every_field_of_a_configuration_is_one_option_further(name, shown):
    package = name.partition("-")[0]
    schema = importlib.import_module(f"{package}.config")
    default = getattr(schema, "DEFAULT", "shapes")
    config = bundled_config(package, schema.Config, default)
    text = " ".join(shown(name, "--help-config").split())
    missing = [
        name for name in fields(to_dict(config)) if f"--{name} " not in text and f"--{name}." not in text
    ]
    assert missing == []
    assert "Peak learning rate. (a number, at least" in text


def test_the_help_shows_the_values_that_a_training_takes(shown):
    config = bundled_config("rgn", importlib.import_module("rgn.config").Config, "shapes")
    text = " ".join(shown("rgn-train", "--help").split())
    assert f"Passes over the training queries. (default: {config.train.epochs})" in text
    assert f"Peak learning rate. (default: {config.optim.lr})" in text
