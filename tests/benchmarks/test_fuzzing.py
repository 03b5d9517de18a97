"""The watch over damaged files sees what it is there to see: programs that do everything wrong are found out."""

import json
import os
import subprocess
import sys

import pytest

from folders import ROOT

pytestmark = pytest.mark.e2e

# runs two cases for each body of the function `main`, which is their only command, and prints what was seen
PROGRAM = """
import json, sys, types
from pathlib import Path
from fuzzing import case, watch
from fuzzing.hdf5 import SECRET

module = sys.modules["wrong"] = types.ModuleType("wrong")
case.scripts()["wrong"] = "wrong:main"
watch.SECONDS = 1

def make(rng, folder, samples):
    (folder / "a").write_text("a")
    made = case.Case([case.Call("wrong", [folder])], SECRET)
    made.put(folder / "theirs")
    return made

for number, body in enumerate(json.loads(sys.argv[2])):
    exec(f"import os, shutil, sys\\nfrom pathlib import Path\\ndef main(argv):\\n    {body}", vars(module))
    root = Path(sys.argv[1], str(number))
    for seen in watch.Campaign("odd", make, 0, root, root / "work", root / "kept").run(range(2)):
        print(json.dumps([body, seen.number, seen.problem, (root / f"kept/odd-{seen.number}/a").exists()]))
"""
BODIES = {
    "return 0": "",
    "print('error: no', file=sys.stderr); return 2": "",
    "raise KeyError(1)": "status KeyError",
    "return 1": "status 1",
    "return 2": "not one line of error",
    "print('error: a\\nb', file=sys.stderr); return 2": "not one line of error",
    "print('error: ' + 'x' * 2000, file=sys.stderr); return 2": "not one line of error",
    "print('\\x1b[2J'); return 0": "control characters",
    "os.kill(os.getpid(), 11)": "crash: SIGSEGV",
    "while True: pass": "status more than 1 s",
    "bytearray(3 << 30); return 0": "status MemoryError",
    "b = bytearray(900 << 20); return 0": "",
    "Path('b').write_text('x'); return 0": "outside of its folder: open",
    "Path(argv[0], '../home/key').unlink(); return 0": "outside of its folder: os.remove",
    "os.system('true'); return 0": "outside of its folder: os.system",
    "Path(argv[0], 'theirs').unlink(); return 0": "a file of somebody else is gone or changed: theirs",
    "shutil.copy('../home/key', argv[0]); return 0": "key holds what lies in a file elsewhere",
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Number, problem, and whether the files were kept, of both cases of every body."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("fuzzing")), json.dumps(list(BODIES))],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]),
        },
    )
    found = {}
    for body, *rest in map(json.loads, done.stdout.splitlines()):
        found.setdefault(body, []).append(rest)
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize(("body", "problem"), BODIES.items(), ids=list(BODIES))
def test_what_nobody_should_see_is_seen(seen, body, problem):
    assert [number for number, _, _ in seen[body]] == [0, 1]
    for _, said, kept in seen[body]:
        assert problem in said
        assert bool(said) == bool(problem) == kept
