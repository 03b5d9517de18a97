"""``vmr-search demo`` from nothing: videos, a model, an index, and the page."""

import contextlib
import re
import subprocess
import sys
import urllib.request

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SHORT = "train: {epochs: 1}\nmodel: {hidden: 16, heads: 2, encoder_layers: 1, reconstructor_layers: 1}\n"


@pytest.fixture
def command(tmp_path):
    (tmp_path / "short.yaml").write_text(SHORT)
    words = ["demo", "--count", "3", "--cfg", "shapes", "short.yaml", "--no-open"]
    return [sys.executable, "-m", "vmr_search", *words, "--data-root", "data"]


def test_everything_is_made_once_and_then_served(command, tmp_path):
    def run(*more):
        return subprocess.run(
            [*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=True
        )

    first = run("--no-serve")
    assert "demo/index: 3 videos, cfmr in scan" in first.stdout
    assert "2 of 3: training" in first.stderr
    example = first.stdout.split("Try:\n")[1].splitlines()[0].strip()
    second = run("--no-serve")
    assert "2 of 3: the model in" in second.stderr
    assert "0 videos encoded" in second.stdout
    asked = [sys.executable, "-m", "vmr_search", "search", "demo/index", example, "-k", "2"]
    assert "rank" in subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    with (
        subprocess.Popen(
            [*command, "--port", "0"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(server.terminate)
        address = next(found[0] for line in server.stdout if (found := re.findall(r"http://\S+", line)))
        page = urllib.request.urlopen(address, timeout=30).read().decode()
        assert example in page
