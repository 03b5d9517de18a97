"""Which words of a query are known, how likely each is hidden, and the draw."""

import itertools

import numpy as np
import pytest

from rgn.data import MaskableWords, known_words, word_mask
from vmr_common.text.vectors import Vocabulary

VOCABULARY = Vocabulary(("the", "door", "person", "opens"))


def words_of(weights) -> MaskableWords:
    weights = np.array(weights, dtype=np.float32)
    return MaskableWords(np.arange(1, len(weights) + 1), weights / weights.sum())


def test_words_are_looked_up_in_lower_case_and_unknown_ones_left_out():
    words = known_words(["The", "zzz", "DOOR", "opens"], [1, 2, 2, 2], VOCABULARY, 20)
    assert words.ids.tolist() == [1, 2, 4]
    assert words.weights.dtype == np.float32
    e = np.exp([1.0, 2.0, 2.0])
    np.testing.assert_allclose(words.weights, e / e.sum(), rtol=1e-6)


def test_only_the_first_known_words_are_kept():
    words = known_words(["zzz", "the", "zzz", "door", "opens"], [2, 1, 2, 2, 2], VOCABULARY, 2)
    assert words.ids.tolist() == [1, 2]
    assert words.weights.sum() == pytest.approx(1)


def test_a_sentence_without_a_known_word_is_empty():
    assert len(known_words(["zzz"], [2], VOCABULARY, 20)) == 0
    assert len(known_words([], [], VOCABULARY, 20)) == 0


@pytest.mark.parametrize(("count", "hidden"), [(1, 1), (2, 1), (3, 1), (5, 1), (6, 2), (9, 3), (20, 6)])
def test_a_third_of_the_words_is_hidden_and_at_least_one(count, hidden):
    assert word_mask(words_of(np.ones(count)), 0, 1, "q").sum() == hidden


def test_the_draw_depends_on_the_key_alone():
    words = words_of(np.ones(12))
    first = word_mask(words, 0, 3, "q7")
    np.random.default_rng().random()
    np.testing.assert_array_equal(word_mask(words, 0, 3, "q7"), first)
    others = [word_mask(words, *key).tolist() for key in ((1, 3, "q7"), (0, 4, "q7"), (0, 3, "q8"))]
    assert first.tolist() not in others


def test_parts_of_a_key_do_not_run_into_each_other():
    words = words_of(np.ones(30))
    assert (word_mask(words, 1, 12) != word_mask(words, 11, 2)).any()


def sequential_probabilities(weights, count) -> dict[tuple[int, ...], float]:
    """Probability of every set when words are drawn one after another without replacement."""
    sets: dict[tuple[int, ...], float] = {}
    for order in itertools.permutations(range(len(weights)), count):
        probability, rest = 1.0, 1.0
        for index in order:
            probability *= weights[index] / rest
            rest -= weights[index]
        key = tuple(sorted(order))
        sets[key] = sets.get(key, 0) + probability
    return sets


def test_sets_of_hidden_words_have_the_probabilities_of_drawing_one_after_another():
    words = words_of(np.exp([2, 1, 1, 2, 2, 1]))
    draws = 20_000
    counts: dict[tuple[int, ...], int] = {}
    for number in range(draws):
        key = tuple(np.flatnonzero(word_mask(words, "distribution", number)).tolist())
        counts[key] = counts.get(key, 0) + 1
    expected = sequential_probabilities(words.weights.astype(float), 2)
    assert set(counts) == set(expected)
    chi_square = sum((counts[key] - draws * p) ** 2 / (draws * p) for key, p in expected.items())
    assert chi_square < 36.1  # 14 degrees of freedom: exceeded once in a thousand
