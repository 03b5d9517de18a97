"""Words that carry content score as the tags of the methods' own data do."""

import json

import numpy as np
import pytest

from vmr_common.text.vectors import Vocabulary
from vmr_train.content_words import content_scores, tag_score


def test_words_of_very_many_digits_are_scored_in_linear_time():
    assert content_scores(["1" * 300_000 + "x", "1" * 300_000 + "th", "1.," * 100_000 + "x"]) == [2, 1, 2]


@pytest.mark.parametrize(
    ("words", "scores"),
    [
        ("the person is n't on a chair .", "1 2 2 2 1 1 2 1"),
        ("He could quickly open 3 doors and then leave", "1 1 2 2 1 2 1 2 2"),
        ("to there 's when where not 2nd ? twenty", "1 1 1 2 2 2 1 1 1"),
    ],
)
def test_function_words_score_one_and_content_words_two(words, scores):
    assert content_scores(words.split()) == [int(score) for score in scores.split()]


def test_tags_score_by_the_rule_of_the_methods(shared):
    toy = json.loads((shared / "golden/rgn/case_a.json").read_text())["toy_data"]
    case = np.load(shared / "golden/rgn/case_a.npz", allow_pickle=False)
    kept = Vocabulary.from_counts(map(tuple, toy["counter_in_insertion_order"]), toy["args"]["vocab_size"])
    assert {word: kept.id(word) for word in kept.words} == toy["keep_vocab"]
    for row, sentence in enumerate(toy["tokens"]):
        known = [(word.lower(), tag) for word, tag in sentence if word.lower() in kept]
        known = known[: toy["args"]["max_num_words"]]
        assert [kept.id(word) for word, _ in known] == case["data/collate/words_id"][row][
            : len(known)
        ].tolist()
        scores = np.exp([tag_score(tag) for _, tag in known])
        weights = case["data/collate/weights"][row][: len(known)]
        assert np.abs(scores / scores.sum() - weights).max() < 1e-6


def test_our_word_classes_agree_with_the_tags_of_the_toy_sentences(shared):
    toy = json.loads((shared / "golden/rgn/case_a.json").read_text())["toy_data"]
    for sentence in toy["tokens"]:
        words, tags = zip(*sentence, strict=True)
        assert content_scores(words) == [tag_score(tag) for tag in tags]
