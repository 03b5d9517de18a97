"""Damaged annotation files of every format: queries or one clean error, never anything else."""

import random

import pytest
from fuzzing.damage import damaged_bytes
from fuzzing.texts import ANNOTATIONS

from vmr_common.errors import UserError
from vmr_common.splits.formats import read_annotations
from vmr_common.splits.objects import read_objects, write_canonical

SEEDS = {
    name: content for name, content in ANNOTATIONS.items() if "." not in name
}  # others are no annotations


@pytest.mark.parametrize("name", SEEDS)
def test_damage_gives_queries_or_one_clean_error(tmp_path, name):
    rng, messages = random.Random(name), []
    path, canonical = tmp_path / "damaged", tmp_path / "canonical.jsonl"
    for _ in range(80):
        path.write_bytes(damaged_bytes(rng, SEEDS[name]))
        for form in (name, "auto"):
            try:
                found = read_annotations(path, form, durations={"AB": 30.0}, policy="as-annotated")
                write_canonical(canonical, found.queries)
                assert len(read_objects(canonical, policy="as-annotated").queries) == found.report.kept
            except UserError as error:
                messages.append(str(error))
    assert messages
    assert all("\n" not in message and len(message) < 800 for message in messages)
