"""Configurations on the command line, over a toy schema and RGN's bundled files."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from vmr_common.cli.config import (
    bundled_config,
    bundled_configs,
    check_keys,
    completed_config,
    make_parser,
    parse,
    stored_config,
    to_dict,
    to_yaml,
)
from vmr_common.errors import UserError
from vmr_common.training import Checkpoint
from vmr_common.training.config import OptimConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3
    """How large."""
    rates: dict[str, float] = field(default_factory=dict)
    """By name."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"inner.size: found {self.size}, expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Schema:
    name: str = "shapes"
    """Of the run."""
    inner: Inner = field(default_factory=Inner)
    """Further fields."""
    maybe: Inner | None = None
    """Or nothing."""
    path: str | list[str] = "a"
    """One or several."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""


def read(*argv, base=None, schema=Schema):
    parser = make_parser("toy", "A toy.")
    parser.add_argument("--verbose", action="store_true")
    return parse(
        parser, schema, [str(word) for word in argv], package="rgn", base=base, base_name="toy.safetensors"
    )


@pytest.fixture
def cfg(tmp_path):
    def write(**values):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_fields_come_from_the_file_and_options_override_them(cfg):
    path = cfg(name="mine", inner={"size": 5}, optim={"lr": 0.5})
    parsed = read("--cfg", path, "--inner.size", 7, "--verbose")
    wanted = Schema(name="mine", inner=Inner(size=7), optim=OptimConfig(lr=0.5))
    assert to_dict(parsed.config) == to_dict(wanted)
    assert parsed.options.verbose is True


def test_options_win_wherever_they_stand(cfg):
    assert read("--inner.size", 7, f"--cfg={cfg(inner={'size': 5})}").config.inner.size == 7


def test_of_two_files_the_second_one_wins(cfg, tmp_path):
    first = cfg(name="first", inner={"size": 5})
    second = tmp_path / "second.yaml"
    second.write_text("name: second\n")
    config = read("--cfg", first, "--cfg", second).config
    assert (config.name, config.inner.size) == ("second", 5)


def test_a_stored_configuration_comes_back_the_same():
    config = Schema(
        maybe=Inner(rates={"a": 0.1}), path=["x", "y"], optim=OptimConfig(lr=3e-4, group_lr={"b": 0})
    )
    assert to_dict(read(base=to_dict(config)).config) == to_dict(config)
    assert yaml.safe_load(to_yaml(config)) == to_dict(config)


def test_a_stored_configuration_can_be_overridden_but_not_replaced(cfg):
    base = to_dict(Schema())
    assert read("--maybe.size", 4, base=base).config.maybe == Inner(size=4)
    with pytest.raises(UserError, match="the checkpoint holds its configuration"):
        read("--cfg", cfg(), base=base)


def test_a_stored_configuration_of_another_version_names_the_key_and_the_file():
    with pytest.raises(UserError, match=r"toy.safetensors: unknown key inner.depth"):
        read(base={"inner": {"depth": 1}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nam": "x"}, r"unknown key nam \(did you mean name\?\); accepted: name, inner, maybe, path, optim"),
        ({"inner": {"siz": 1}}, r"unknown key inner.siz \(did you mean inner.size\?\)"),
        ({"maybe": {"siz": 1}}, r"unknown key maybe.siz"),
        ({"optim": {"schedule": {"nme": 1}}}, r"unknown key optim.schedule.nme"),
        ({"inner": 3}, r"inner must hold keys and values, found 3"),
        ({"inner": None}, r"inner must hold keys and values, found None"),
        ({1: 2}, r"unknown key 1"),
    ],
)
def test_keys_are_checked_at_any_depth(values, message):
    with pytest.raises(UserError, match=message):
        check_keys(values, Schema, "mine.yaml")


def test_nothing_is_a_value_where_the_schema_allows_it_and_tables_have_any_key():
    check_keys({"maybe": None, "inner": {"rates": {"anything": 1}}}, Schema, "mine.yaml")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--inner.size", "wide"], "inner.size: Expected a int. Got value: wide"),
        (["--inner.size", "0"], "inner.size: found 0, expected at least 1"),
        (["--optim.optimizer", "sgd"], "optim.optimizer: Expected a Literal"),
        (["--optim.lr", "nan"], "optim.lr"),
        (["--unknown", "1"], "--unknown"),
        (["--inner.size"], "--inner.size: expected one argument"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_option(cfg, argv, message):
    with pytest.raises(UserError) as refused:
        read("--cfg", cfg(), *argv)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_help_shows_the_text_under_each_field(capsys):
    with pytest.raises(SystemExit):
        read("--help", base=to_dict(Schema()))
    assert "How large." in capsys.readouterr().out


def test_the_bundled_configurations_are_found_by_name():
    found = bundled_configs("rgn")
    assert list(found) == sorted(found)
    assert {"shapes", "charades", "activitynet", "tacos"} <= set(found)
    assert all(yaml.safe_load(text)["name"] == name for name, text in found.items())


@pytest.mark.parametrize("words", [("--inner.siz", "7"), ("--verb",), ("--cf", "charades")])
def test_options_are_not_abbreviated(words, cfg):
    with pytest.raises(UserError, match=f"unrecognized arguments: {words[0]}"):
        read("--cfg", cfg(name="mine"), *words)


def test_a_bundled_configuration_takes_changes_as_on_the_command_line():
    from rgn.config import Config

    assert bundled_config("rgn", Config, "charades") != bundled_config("rgn", Config, "tacos")
    assert bundled_config("rgn", Config, "charades", "--model.candidates", "2").model.candidates == 2
    with pytest.raises(UserError, match="--cfg nothing: no such file"):
        bundled_config("rgn", Config, "nothing")


def test_a_stored_configuration_gets_the_defaults_of_what_it_lacks():
    assert to_dict(completed_config({"name": "old"}, Schema, "rgn")) == to_dict(Schema(name="old"))
    with pytest.raises(UserError, match=r"^there: unknown key inner\.sice"):
        completed_config({"inner": {"sice": 1}}, Schema, "rgn", "there")


@pytest.mark.parametrize("describe", [None, {}, {"config": [1]}])
def test_a_checkpoint_without_a_configuration_is_refused(describe):
    with pytest.raises(UserError, match=r"^a\.safetensors: holds no configuration$"):
        stored_config(checkpoint(describe), Schema, "rgn")


def test_a_checkpoint_gives_its_configuration_back():
    stored = to_dict(Schema(name="old"))
    assert to_dict(stored_config(checkpoint({"config": stored}), Schema, "rgn")) == stored
    with pytest.raises(UserError, match=r"^configuration in a\.safetensors: unknown key nane"):
        stored_config(checkpoint({"config": {"nane": "old"}}), Schema, "rgn")


def checkpoint(describe) -> Checkpoint:
    return Checkpoint(Path("a.safetensors"), {}, {"describe": describe})


def test_a_printed_configuration_can_be_given_again(cfg, tmp_path, capsys):
    given = cfg(name="printed", inner={"size": 5})
    with pytest.raises(SystemExit) as ended:
        read("--cfg", given, "--verbose", "--print_config")
    assert ended.value.code == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert read("--cfg", printed).config == read("--cfg", given).config
