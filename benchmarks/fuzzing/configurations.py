"""YAML configurations: wrong values, what YAML can spell and nobody means, damaged bytes."""

from __future__ import annotations

import datetime
import random
from pathlib import Path
from typing import Any

import yaml

from fuzzing.case import PACKAGES, Call, Case
from fuzzing.damage import damaged_bytes, exchanged, places

# what a configuration may well ask for and a case cannot wait for
BOUNDS = ("--train.epochs", 1, "--train.workers", 0, "--train.compile", "false", "--train.device", "cpu")
TRAINED = 0.15  # share of the cases that train, if the configuration allows it
SCALARS = (
    *(
        "2001-01-01",
        "2001-01-01 00:00:00",
        "12:30:45",
        "0x10",
        "0o17",
        "0b1",
        "1_000",
        "~",
        "yes",
        "off",
        ".inf",
        "-.inf",
    ),
    *(
        ".nan",
        "1e400",
        "1e3",
        "18446744073709551616",
        "9" * 400,
        "9" * 5000,
        "''",
        '""',
        "!!str 5",
        "!!int '5'",
        "!!null ''",
    ),
    *(
        "!!binary aGFsbG8=",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!pairs [a: 1]",
        "!!timestamp 2001-13-99",
        "!!float x",
    ),
    *("!!python/none x", "!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!unknown x"),
    *(
        "&a [*a]",
        "*nothing",
        "[",
        "{",
        "{a: 1, a: 2}",
        "{? [a] : b}",
        "{null: 1}",
        "{5: 1}",
        "{<<: 5}",
        "'\\x1b[2J'",
        '"\\x1b[2J"',
    ),
    *(
        '"\\ud800"',
        '"\\0"',
        "|\n  x\n  y",
        ">\n  x",
        "- a",
        "a: b",
        "...",
        "---",
        "%YAML 9.9",
        "@x",
        "`x",
        "\t5",
        "é\u2028x",
    ),
    *(
        "{$ref: x}",
        "${oc.env:HOME}",
        "$HOME",
        "!include /dev/null",
        "[" * 500 + "]" * 500,
        "[1, 2, 3]",
        "[[1]]",
        "{a: {b: {c: 1}}}",
    ),
)
WHOLE = (
    *(
        "",
        "~",
        "5",
        "x",
        "[]",
        "- a\n- b\n",
        "---\n---\n",
        "a: 1\n---\nb: 2\n",
        "\ufeffname: x\n",
        "? \n",
        "%TAG ! x\n",
        "\0",
    ),
    *(
        "&a {x: *a}",
        "<<: *a",
        "name: x\nname: y\n",
        "{" * 5000,
        "- " * 3000 + "x",
        "a:\n" + "".join(" " * n + "a:\n" for n in range(1, 900)),
    ),
)


def laughs(levels: int) -> str:
    """Nine references to nine references to ...: gigabytes if anything writes them out."""
    rows = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(rows) + "\n"


def with_verbatim(rng: random.Random, values: Any) -> str:
    """The configuration as YAML, with one value replaced by text of YAML's own kinds."""
    mark = "__here__"
    path = rng.choice([path for path in places(values) if path])
    holder = values
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = mark
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=False)
    return text.replace(mark, rng.choice(SCALARS), 1)


def text_of(rng: random.Random, values: dict[str, Any]) -> bytes:
    """A configuration with something wrong, as bytes."""
    kind = rng.random()
    if kind < 0.35:
        found = exchanged(rng, values, rng.choice((1, 1, 2)))
        flow = rng.choice((False, None, True))
        text = yaml.dump(
            found,
            Dumper=yaml.SafeDumper,
            sort_keys=False,
            default_flow_style=flow,
            allow_unicode=rng.random() < 0.5,
        )
        return text.encode("utf-8", "surrogatepass")
    if kind < 0.65:
        return with_verbatim(rng, values).encode("utf-8", "surrogatepass")
    whole = yaml.safe_dump(values, sort_keys=False)
    if kind < 0.8:
        return damaged_bytes(rng, whole.encode())
    if kind < 0.86:
        lines = whole.splitlines(keepends=True)
        line = rng.randrange(len(lines))
        lines.insert(
            rng.randrange(len(lines)), rng.choice((lines[line], lines[line].lstrip(), "\t" + lines[line]))
        )
        return "".join(lines).encode()
    if kind < 0.9:
        return whole.encode(rng.choice(("utf-16", "utf-32", "utf-16-be", "utf-8-sig")))
    if kind < 0.93:
        return (laughs(rng.choice((3, 12))) + whole).encode()
    if kind < 0.95:
        extra = {"name": datetime.date(2001, 1, 1)} if rng.random() < 0.5 else {"name": 2**64}
        return yaml.safe_dump({**values, **extra}).encode()
    return rng.choice(WHOLE).encode("utf-8", "surrogatepass")


def make(rng: random.Random, folder: Path, samples: Path) -> Case:
    """A damaged configuration, read up to where it is checked, and sometimes trained."""
    package = rng.choice(PACKAGES)
    values = yaml.safe_load((samples / f"cfg/{package}.yaml").read_text())
    path = folder / "mine.yaml"
    options: list[object] = ["--data-root", samples / "data", "--runs", folder / "runs"]
    if rng.random() < 0.08:
        run = folder / f"runs/{package}/tiny"
        run.mkdir(parents=True)
        (run / "config.yaml").write_bytes(text_of(rng, values))  # --resume reads it without --cfg
        return Case(
            [Call(f"{package}-train", [*options, "--name", "tiny", "--resume", *BOUNDS], costs=False)]
        )
    path.write_bytes(text_of(rng, values))
    if rng.random() < TRAINED:
        return Case([Call(f"{package}-train", ["--cfg", path, *options, *BOUNDS], costs=False)])
    # there is nothing to resume: the configuration was checked before that is found out
    return Case([Call(f"{package}-train", ["--cfg", path, *options, "--resume"])])
