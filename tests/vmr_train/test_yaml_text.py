"""YAML with one meaning: what could be read in two ways, or never ends, is refused in one line that names the line."""

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vmr_common.errors import UserError
from vmr_train.cli.yaml_text import NODES, SIZE, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("when: 2023-13-45\nat: 12:30:45", {"when": "2023-13-45", "at": "12:30:45"}),
        ("[0, -7, 1_000, 0x1F, +3]", [0, -7, 1000, 31, 3]),
        ("[1e-4, 1., .5, -2.5e3, 1.0e+2]", [1e-4, 1.0, 0.5, -2500.0, 100.0]),
        ("[true, No, null, ~, ]", [True, False, None, None]),
        ("['1', \"null\", 010, 1:30]", ["1", "null", "010", "1:30"]),
        ("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "use": {"x": 1, "y": 3}}),
        ("a: &a [1]\nb: *a", {"a": [1], "b": [1]}),
        ("", None),
    ],
)
def test_plain_values_are_what_they_look_like(text, value):
    assert parse_yaml(text, "x") == value


def laughs(levels: int) -> str:
    lines = ["l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 8)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["l0: &l0 {k: 1}"]
    lines += [f"l{n}: &l{n} {{<<: [*l{n - 1}, *l{n - 1}], k{n}: 1}}" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1\nname: a\nlr: 2", "line 3: found the key 'lr' twice"),
        ("a: {b: {c: 1, d: 2, c: 3}}", "line 1: found the key 'c' twice"),
        ("<<: {a: 1}\n<<: {a: 2}", "line 2: found the key '<<' twice"),
        ("a:\n  - &x [1, *x]", "line 2: found the alias 'x' stands inside what it repeats"),
        ("&x a: {y: &y {z: *y}}", "line 1: found the alias 'y' stands inside"),
        (laughs(12), f"more than {NODES:,} keys and values"),
        (merges(40), f"more than {NODES:,} keys and values"),
        ("[" * 3000, "levels of nesting"),
        ("- " * 3000, "levels of nesting"),
        ("n: " + "7" * 6000, "line 1: found a number of 6,000 characters"),
        ("n: 0x" + "f" * 6000, "found a number of 6,002 characters"),
        ("n: 1.0e999", "found the number 1.0e999, expected a finite one"),
        ("n: [.nan]", "found the number .nan"),
        ("n: -.inf", "found the number -.inf"),
        ("5: x", "line 1: found the key '5', expected text"),
        ("~: x", "found the key '~', expected text"),
        ("no: x", "found the key 'no', expected text"),
        ("? [a]\n: x", "found the key a list or mapping"),
        ("a: !!timestamp 2020-01-01", "found the tag 'tag:yaml.org,2002:timestamp'"),
        ("a: !!python/name:os.system", "found the tag"),
        ("a: !own x", "found the tag '!own'"),
        ("a: 1\n---\nb: 1", "single document"),
        ("a: *nowhere", "undefined alias"),
        ("a: [1", "not YAML"),
        ("a: \x07", "not YAML"),
        ("a: 0x_", "not YAML"),
        ("x" * (SIZE + 1), "characters of YAML, expected at most"),
    ],
)  # fmt: skip
def test_what_has_no_one_meaning_or_no_end_is_refused(text, message):
    with pytest.raises(UserError) as refused:
        parse_yaml(text, "mine.yaml")
    assert str(refused.value).startswith("mine.yaml: ")
    assert message in str(refused.value)
    assert len(str(refused.value)) < 600


def test_a_file_is_read_up_to_its_bound(tmp_path):
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * (SIZE + 1))
    with pytest.raises(UserError, match=f"big.yaml: found more than {SIZE:,} bytes"):
        read_yaml(path, "big.yaml")
    path.write_bytes(b"a: caf\xe9")
    with pytest.raises(UserError, match="not UTF-8"):
        read_yaml(path, "big.yaml")
    path.write_bytes(b"\xef\xbb\xbfa: caf\xc3\xa9")
    assert read_yaml(path, "big.yaml") == {"a": "caf\u00e9"}


texts = st.text("ab1:-[]{}#&*!|>'\"%@ .", max_size=9)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_what_is_written_comes_back(value):
    assert parse_yaml(yaml.safe_dump(value), "x") == value


@given(st.text(max_size=60) | st.text("[]{}:,-&*!?|>'\"%@#<~ \n01ex.a", max_size=60))
@pytest.mark.e2e
def test_any_text_is_understood_or_refused(text):
    with contextlib.suppress(UserError):
        parse_yaml(text, "x")
