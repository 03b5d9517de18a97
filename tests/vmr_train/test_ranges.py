"""Every number of every configuration has a range, and what is out of it is refused by its key."""

import dataclasses
import importlib
import math
import types
from typing import Annotated, Union, get_args, get_origin

import pytest

from folders import MODELS
from vmr_common.errors import UserError
from vmr_common.ranges import Rule
from vmr_train.cli.config import bundled_config, bundled_configs
from vmr_train.cli.fields import section_of
from vmr_train.ranges import FolderName, PathText, require_ranges, types_of


def schema_of(package):
    return importlib.import_module(f"{package}.config").Config


def sections(schema):
    """All dataclasses of a configuration, the whole one first."""
    yield schema
    for hint in types_of(schema).values():
        if (section := section_of(hint)) is not None:
            yield from sections(section)


def numbers_without_range(hint) -> bool:
    """Whether a number may stand anywhere in values of this type without a rule beside it."""
    if get_origin(hint) is Annotated:
        return not isinstance(get_args(hint)[1], Rule)
    if get_origin(hint) in (Union, types.UnionType, list, tuple, dict):
        return any(map(numbers_without_range, get_args(hint)))
    return hint in (int, float)


@pytest.mark.parametrize("package", MODELS)
def test_every_number_of_a_configuration_has_a_range(package):
    without = [
        f"{section.__name__}.{name}"
        for section in sections(schema_of(package))
        for name, hint in types_of(section, rules=True).items()
        if numbers_without_range(hint)
    ]
    assert without == []


def leaves(config, section=""):
    """The numbers of a configuration: the section that holds one, its name there, and its dotted key."""
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), f"{section}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{key}.")
        elif type(value) in (int, float):
            yield config, field.name, key


@pytest.mark.parametrize("package", MODELS)
def test_no_number_is_taken_that_cannot_be_meant(package):
    default = next(name for name in bundled_configs(package) if name.startswith("shapes"))
    for config, name, key in leaves(bundled_config(package, schema_of(package), default)):
        for value in (math.nan, math.inf, -math.inf, 10**30, -(10**30), True, "1"):
            with pytest.raises(UserError) as refused:
                dataclasses.replace(config, **{name: value})
            assert f"{key}: found " in str(refused.value), (key, value)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a\\b", "a\0", "a\nb", "\x1b[2J", "\u202e", "\ud800", "x" * 201, "ä" * 101, None],
)
def test_the_name_of_a_folder_has_bounds(name):  # fmt: skip
    rule: Rule = get_args(FolderName)[1]
    assert not rule.holds(name)


def test_names_and_paths_of_people_are_taken():
    for name in ("shapes", "2024-02-30", "my run", "прогон-1", "x" * 200, "...", "-"):
        assert get_args(FolderName)[1].holds(name)
        assert get_args(PathText)[1].holds(f"../data/{name}/features.h5")


Low = Annotated[float, Rule(lambda value: value < 1, "below one")]


@dataclasses.dataclass(frozen=True)
class Nested:
    paths: PathText | list[PathText] | None = None
    rates: dict[str, Low] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        require_ranges(self, "here")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"paths": "a\0"}, r"here.paths: found 'a\\x00', expected a path"),
        ({"paths": ["a", "b\n"]}, r"here.paths: found 'b\\n', expected a path"),
        ({"rates": {"x": 0.5, "y": 2.0}}, r"here.rates\[y\]: found 2.0, expected below one"),
    ],
)
def test_rules_hold_inside_unions_lists_and_tables(values, message):
    Nested(), Nested(paths="a"), Nested(paths=["a", "b"])
    with pytest.raises(UserError, match=message):
        Nested(**values)
