"""Graded truth: what satisfies a sentence anywhere in a corpus, judged again from the words of the sentence."""

import json
import re

import pytest

from vmr_common.errors import UserError
from vmr_shapes import SHORT, language, truth
from vmr_shapes.cli import main
from vmr_shapes.generate import queries
from vmr_shapes.scene import make_scene
from vmr_shapes.spec import COLOURS, LONG

VIDEOS = [*SHORT.videos("val")[:25], *SHORT.videos("test")[:25]]
ADJECTIVES = {word: size for size, words in language.ADJECTIVES.items() for word in words}
NOUNS = {word: shape for shape, words in language.NOUNS.items() for word in words}
PHRASES = [(p, a) for a, forms in language.VERBS.items() for phrasing in forms for p in phrasing] + [
    (f"{go} {place}", a)
    for a, places in language.PLACES.items()
    for phrasing in language.GO
    for go in phrasing
    for place in places
]


def read_clause(words):
    """Action and named attributes of a clause, by a reading of its words that knows nothing of how they were drawn."""
    looks = {}
    for word in words.split():
        looks |= {"size": ADJECTIVES[word]} if word in ADJECTIVES else {}
        looks |= {"colour": word} if word in COLOURS else {}
        looks |= {"shape": NOUNS[word]} if word in NOUNS else {}
    (action,) = {action for phrase, action in PHRASES if words.endswith(f" {phrase}")}
    return action, looks


def read_sentence(text):
    """``(main, order, anchor)`` of a sentence."""
    first = re.fullmatch("(after|before) (.*), (.*)", text)
    if first:
        return read_clause(first[3]), first[1], read_clause(first[2])
    later = re.fullmatch("(.*) (after|before) (.*)", text)
    if later:
        return read_clause(later[1]), later[2], read_clause(later[3])
    return read_clause(text), None, None


def does(scene, event, clause):
    action, looks = clause
    return event.action == action and all(
        getattr(scene.things[event.thing], k) == v for k, v in looks.items()
    )


def judged(scene, text):
    """Moments of a scene that satisfy a sentence, in seconds."""
    main_clause, order, anchor = read_sentence(text)
    found = []
    for event in scene.events:
        for other in scene.events if order else [None]:
            if other is not None:
                gap = (event.first - other.last if order == "after" else other.first - event.last) / scene.fps
                if not (does(scene, other, anchor) and 0 <= gap <= 40):
                    continue
            if does(scene, event, main_clause):
                found.append([event.first / scene.fps, event.last / scene.fps])
                break
    return found


def test_what_satisfies_a_sentence_is_what_its_words_say():
    asked = [query for query in queries("test") if query.video in VIDEOS]
    scenes = [make_scene(video, SHORT) for video in VIDEOS]
    found = truth.graded_truth([query.id for query in asked], VIDEOS, SHORT)
    assert list(found) == [query.id for query in asked]
    several = 0
    for query in asked:
        expected = {scene.video: judged(scene, query.text) for scene in scenes}
        expected = {video: moments for video, moments in expected.items() if moments}
        assert {video: moments.tolist() for video, moments in found[query.id].items()} == expected, query.text
        assert found[query.id][query.video].tolist() == query.moments.tolist()  # in its own video, that alone
        several += len(expected) > 1
    assert several > len(asked) / 2
    assert any(read_sentence(query.text)[1] for query in asked)


def test_the_annotated_moment_of_a_long_video_satisfies_its_sentence():
    asked = [query for query in queries("test", LONG) if query.video == "test-0003"]
    found = truth.graded_truth([query.id for query in asked], ["test-0003"], LONG)
    for query in asked:
        assert query.moments.tolist() == found[query.id]["test-0003"].tolist(), query.text


def test_the_command_writes_what_the_function_returns(tmp_path, capsys):
    main(["truth", "--out", str(tmp_path / "truth.jsonl"), "--split", "val", "--corpus", "val"])
    assert "440 sentences" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    expected = truth.graded_truth([row["qid"] for row in rows], SHORT.videos("val"), SHORT)
    for row in rows:
        of_query = {}
        for video, start, end in row["relevant"]:
            of_query.setdefault(video, []).append([start, end])
        assert of_query == {video: moments.tolist() for video, moments in expected[row["qid"]].items()}


@pytest.mark.parametrize("bad", ["test-9999_0", "test-0000_77", "train_0"])
def test_an_unknown_query_or_video_is_the_users_mistake(bad, monkeypatch):
    monkeypatch.setattr(truth, "read_spec", lambda folder: SHORT)
    with pytest.raises(UserError, match=f"no (query|video) .{bad[:4]}"):
        truth.corpus_truth("shapes", [bad], ["test-0000"])
    with pytest.raises(UserError, match="no video"):
        truth.corpus_truth("shapes", ["test-0000_0"], [bad])
