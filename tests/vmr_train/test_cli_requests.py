"""Which split a command's user means."""

from types import SimpleNamespace

import pytest

from vmr_common.errors import UserError
from vmr_common.splits.objects import write_canonical
from vmr_common.types import Query
from vmr_train.cli.requests import known_durations, named_split, requested_split
from vmr_train.splits import SplitConfig, SplitsConfig


@pytest.fixture
def root(tmp_path):
    """Training queries of 60 videos, no test queries, and the test part of Charades-STA with one record."""
    queries = [
        Query(id=str(n), video=f"v{n}", text="it spins", duration=9.0, moments=[[1.0, 2.0]])
        for n in range(60)
    ]
    write_canonical(tmp_path / "train.jsonl", queries)
    (tmp_path / "charades_sta").mkdir()
    (tmp_path / "charades_sta/charades_sta_test.txt").write_text("AB12C 1.0 4.0##a door opens.\n")
    (tmp_path / "charades_sta/Charades_v1_test.csv").write_text("id,length\nAB12C,9.5\n")
    return tmp_path


def splits(**parts) -> SplitsConfig:
    parts = {"train": "train.jsonl", "test": "none.jsonl", **parts}
    held_out = parts.pop("held_out", 0.2)
    files = {name: SplitConfig(annotations=file) for name, file in parts.items()}
    return SplitsConfig(**files, held_out=held_out)


def asked(config: SplitsConfig, name: str):
    return SimpleNamespace(data=SimpleNamespace(splits=config)), SimpleNamespace(annotations=None, split=name)


def test_a_registered_split_needs_no_file_of_the_run_but_the_training_queries(root):
    split, train = requested_split(*asked(splits(), "charades-sta/test"), root)
    assert [query.video for query in split.queries] == ["AB12C"]
    assert len(train) == 60  # none is held out: the baseline may know all of them


def test_a_part_of_the_run_comes_with_what_it_was_trained_on(root):
    config = splits(test="train.jsonl")
    validation, train = requested_split(*asked(config, "validation"), root)
    assert len(validation.queries) + len(train) == 60
    assert not {query.video for query in validation.queries} & {query.video for query in train}
    again = named_split("validation", config, root)
    assert [query.id for query in again.queries] == [query.id for query in validation.queries]


def test_an_annotation_file_is_read_as_the_options_say(root, caplog):
    (root / "own.csv").write_text("clip;caption;start;end;duration\na.mp4;a door opens;1000;4000;9,5\n")
    config, options = asked(splits(), "test")
    options = SimpleNamespace(annotations="own.csv", fields=["video=clip"], subset=None, strip_extension=True)
    split, _ = requested_split(config, options, root)
    assert [query.video for query in split.queries] == ["a"]
    assert "1 of 1 queries of own.csv lie outside their videos (are the times milliseconds" in caplog.text
    with pytest.raises(UserError, match="--fields says how a file is read"):
        requested_split(config, SimpleNamespace(annotations=None, split="test", fields=["video=clip"]), root)


def test_a_run_that_held_nothing_out_has_no_validation_part(root):
    config = splits(test="train.jsonl", held_out=0.0)
    with pytest.raises(UserError, match="holds no validation videos out"):
        named_split("validation", config, root)


class Rows:
    """Features of two rows per video, with or without a stride."""

    def __init__(self, stride_s: float | None):
        self.manifest = None if stride_s is None else SimpleNamespace(stride_s=stride_s)

    def length(self, video: str) -> int:
        return 2


def test_the_length_of_a_video_is_the_annotated_one_else_that_of_its_features(root):
    config = splits(held_out=0.0)  # the file of its test part is not there
    assert known_durations(config, Rows(1.5), root, ["v3", "new"]) == {"v3": 9.0, "new": 3.0}
    assert known_durations(config, Rows(None), root, ["v3", "new"]) == {"v3": 9.0}
    assert known_durations(config, Rows(None), root, ["v3", "new"], 2.5) == {"v3": 9.0, "new": 5.0}


def test_the_test_part_has_the_last_word_on_the_length_of_a_video(root):
    write_canonical(root / "none.jsonl", [Query(id="0", video="v3", text="it spins", duration=8.0)])
    assert known_durations(splits(), Rows(None), root, ["v3", "v4"]) == {"v3": 8.0, "v4": 9.0}
