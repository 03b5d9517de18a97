"""Configurations on the command line, over a toy schema and RGN's bundled files."""

import contextlib
import importlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from folders import MODELS
from vmr_common.errors import UserError
from vmr_train.checkpoint import Checkpoint
from vmr_train.cli.config import (
    bundled_config,
    bundled_configs,
    completed_config,
    make_parser,
    parse,
    stored_config,
    to_dict,
    to_yaml,
)
from vmr_train.cli.fields import check_values, section_of
from vmr_train.config import OptimConfig
from vmr_train.ranges import types_of


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
        check_values(values, Schema, "mine.yaml")


def test_nothing_is_a_value_where_the_schema_allows_it_and_tables_have_any_key():
    check_values({"maybe": None, "inner": {"rates": {"anything": 1}}}, Schema, "mine.yaml")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--inner.size", "wide"], "inner.size: found 'wide', expected a whole number"),
        (["--inner.size", "0"], "inner.size: found 0, expected at least 1"),
        (["--optim.optimizer", "sgd"], "optim.optimizer: found 'sgd', expected one of 'adamw', 'cpl-adam'"),
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
        read("--help-config", base=to_dict(Schema()))
    assert "How large." in capsys.readouterr().out


def test_the_bundled_configurations_are_found_by_name():
    found = bundled_configs("rgn")
    assert list(found) == sorted(found)
    assert {"shapes", "charades", "activitynet", "tacos"} <= set(found)
    assert all(yaml.safe_load(text)["name"] == name for name, text in found.items())


@pytest.mark.parametrize("words", [("--verb",), ("--cf", "charades"), ("--overlaid.x", "1")])
def test_options_are_not_abbreviated(words, cfg):
    with pytest.raises(UserError, match=f"unrecognized arguments: {words[0]}"):
        read("--cfg", cfg(name="mine"), *words)


def test_a_misspelt_field_is_named_with_its_neighbour(cfg):
    with pytest.raises(
        UserError, match=r"unknown key inner.siz \(did you mean inner.size\?\); accepted: inner"
    ):
        read("--cfg", cfg(name="mine"), "--inner.siz", "7")


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


@pytest.mark.parametrize("describe", [{}, {"config": [1]}])
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


@pytest.mark.parametrize("text", ["5", "2024-02-30", "'5'", "[a, b", "{a: b}", "a: b", "~"])
def test_the_value_of_a_text_field_is_the_text_that_was_typed(text):
    assert read("--name", text, base={}).config.name == text


def test_options_may_be_null_lists_and_whole_sections():
    config = read(
        "--path", "[a, 'b c']", "--maybe", "{size: 2}", "--optim", "{lr: 1, eps: 0}", base={}
    ).config
    assert (config.path, config.maybe, config.optim.lr) == (["a", "b c"], Inner(size=2), 1.0)
    assert type(config.optim.lr) is float
    assert read("--maybe", "null", base={"maybe": {"size": 2}}).config.maybe is None
    assert read("--maybe.size", "4", base={"maybe": None}).config.maybe == Inner(size=4)
    assert read("--inner.rates={a: 1}", base={"inner": {"rates": {"b": 2}}}).config.inner.rates == {"a": 1.0}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--inner.size", "1e3"], "inner.size: found 1000.0, expected a whole number"),
        (["--inner.size", "9" * 9000], "--inner.size: line 1: found a number of 9,000 characters"),
        (["--inner.size", "[" * 9000], "--inner.size: line 1: found more than"),
        (["--inner.size=true"], "inner.size: found True, expected a whole number"),
        (["--inner.size", ""], "inner.size: found None, expected a whole number"),
        (["--inner.rates", "{a: 1, a: 2}"], "--inner.rates: line 1: found the key 'a' twice"),
        (["--inner", "3"], "inner must hold keys and values, found 3"),
        (["--inner", "null"], "inner must hold keys and values, found None"),
        (
            ["--maybe.depth", "3"],
            "command line: --maybe.depth: unknown key maybe.depth; accepted: maybe.size",
        ),
        (["--optim.lr", "-1"], "optim.lr: found -1.0, expected a number, at least"),
        (["--optim.lr", "1.0e400"], "found the number 1.0e400"),
        (["--name", "a\x1b[2J"], "found control characters in"),
        (["--name="], "name: found ''"),
        (["--name", "--inner.size", "3"], "argument --name: expected one argument"),
    ],
)
def test_an_option_that_its_field_cannot_hold_is_one_line(argv, message):
    @dataclass(frozen=True, kw_only=True)
    class Named(Schema):
        def __post_init__(self) -> None:
            if not self.name:
                raise UserError(f"name: found {self.name!r}")

    with pytest.raises(UserError) as refused:
        read(*argv, base={}, schema=Named)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 400


def test_what_is_required_is_asked_for_by_name():
    @dataclass(frozen=True, kw_only=True)
    class Part:
        dim: int
        path: str
        size: int = 3

    @dataclass(frozen=True, kw_only=True)
    class Empty:
        size: int = 3

    @dataclass(frozen=True, kw_only=True)
    class Whole:
        part: Part
        empty: Empty
        maybe: Part | None = None

    Whole.__annotations__.update(part=Part, empty=Empty, maybe=Part | None)
    with pytest.raises(
        UserError, match=r"^toy.safetensors: required and not given: part.dim, part.path, empty$"
    ):
        read(base={}, schema=Whole)
    with pytest.raises(UserError, match=r"required and not given: part.path, empty, maybe.dim$"):
        read("--part.dim", "3", "--maybe.path", "a", base={}, schema=Whole)
    whole = Whole(part=Part(dim=1, path="a"), empty=Empty())
    assert read(base={"part": {"dim": 1, "path": "a"}, "empty": {}}, schema=Whole).config == whole


@pytest.mark.parametrize("value", ["os.system", "subprocess.Popen", "argparse.Namespace"])
def test_no_value_names_code(value):
    """Libraries that build objects from configurations import and call what a `class_path` names."""
    from rgn.config import Config

    stored = to_dict(bundled_config("rgn", Config, "charades"))
    named = {"class_path": value, "init_args": {"args": ["false"], "command": "false"}}
    stored["data"]["features"]["expected_manifest"] = {"extractor": named}
    kept = completed_config(stored, Config, "rgn").data.features.expected_manifest
    assert kept == {"extractor": named}
    stored["data"]["splits"]["validation"] = named
    with pytest.raises(UserError, match=r"unknown key data\.splits\.validation\.class_path"):
        completed_config(stored, Config, "rgn")


def test_a_stored_configuration_keeps_its_texts():
    expected_manifest = {"fps": "1", "extractor": "null", "dtype": "[1, 2]", "source": "2024-01-01"}
    from rgn.config import Config

    stored = to_dict(bundled_config("rgn", Config, "charades"))
    stored["data"]["features"]["expected_manifest"] = expected_manifest
    assert completed_config(stored, Config, "rgn").data.features.expected_manifest == expected_manifest


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("expected_manifest", "message"),
    [
        ({"extractor": "a\x00b"}, "control characters"),
        ({"a\x1b": 1}, "control characters"),
        ({"fps": float("nan")}, "not finite"),
        ({"fps": 10**200}, "more than 40 digits"),
        ({"fps": 10**400}, "more than 40 digits"),
        ({"fps": nested(900)}, "levels"),
        ({"fps": [0] * 30_000}, "values"),
    ],
)
def test_a_stored_configuration_has_bounds(expected_manifest, message):
    from rgn.config import Config

    stored = to_dict(bundled_config("rgn", Config, "charades"))
    stored["data"]["features"]["expected_manifest"] = expected_manifest
    with pytest.raises(UserError, match=f"^there: .*{message}"):
        completed_config(stored, Config, "rgn", "there")


def field_names(schema, prefix=""):
    for name, hint in types_of(schema).items():
        yield prefix + name
        if (section := section_of(hint)) is not None:
            yield from field_names(section, f"{prefix}{name}.")


anything = st.text(max_size=40) | st.text("[]{}:,-&*!|>'\"%@#~ \n019.exnul", max_size=40)


@pytest.mark.parametrize("package", MODELS)
@settings(max_examples=40)
@given(st.data())
@pytest.mark.e2e
def test_whatever_an_option_is_given_is_taken_or_refused(package, data):
    schema = importlib.import_module(f"{package}.config").Config
    default = next(name for name in bundled_configs(package) if name.startswith("shapes"))
    name = data.draw(st.sampled_from(sorted(field_names(schema))))
    with contextlib.suppress(UserError):
        bundled_config(package, schema, default, f"--{name}={data.draw(anything)}")


OLD = {"data": {"features": {"made_for": {"fps": 1}}}}


def test_a_key_that_has_a_new_name_is_refused_where_it_is_written_and_read_where_a_run_stored_it(tmp_path):
    from rgn.config import Config

    written = tmp_path / "config.yaml"
    written.write_text(yaml.safe_dump(OLD))
    given = ["--cfg", "charades", "--cfg", str(written)]
    message = r"data\.features\.made_for is now called (--)?data\.features\.expected_manifest$"
    with pytest.raises(UserError, match=message):
        parse(make_parser("t", ""), Config, given, package="rgn", base=None)
    with pytest.raises(UserError, match=f"^command line: --{message}"):
        read("--data.features.made_for", "{}", schema=Config)
    with pytest.raises(UserError, match=f"^command line: --{message}"):
        read("--data.features.made_for={}", schema=Config)
    (tmp_path / "metrics.jsonl").touch()  # now it is the file of a run
    found = parse(make_parser("t", ""), Config, given, package="rgn", base=None).config
    assert found.data.features.expected_manifest == {"fps": 1}


def test_an_old_name_and_its_new_one_together_are_refused_and_nothing_stored_is_changed():
    from rgn.config import Config

    stored = to_dict(bundled_config("rgn", Config, "charades"))
    both = {**stored, "data": {**stored["data"], "features": {**stored["data"]["features"], "made_for": {}}}}
    with pytest.raises(UserError, match="made_for is now called"):
        completed_config(both, Config, "rgn")
    assert "made_for" in both["data"]["features"]
    for odd in ({"data": None}, {"data": []}, {"data": {"features": "made_for"}}):
        with pytest.raises(UserError):
            completed_config({**stored, **odd}, Config, "rgn")


@pytest.mark.parametrize("given", [["--data.kept_gb", "1"], ["--cfg", "mine.yaml"]])
def test_an_old_name_of_a_key_that_the_model_never_had_is_unknown(given, tmp_path, monkeypatch):
    from rgn.config import Config

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("data: {kept_gb: 1}\n")
    with pytest.raises(UserError, match=r"(unknown key|unrecognized arguments:).* (--)?data\.kept_gb"):
        parse(make_parser("t", ""), Config, given, package="rgn", base=None)
