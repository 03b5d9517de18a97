"""Words that a model does not know are named, in one line."""

from vmr_train.unknown_words import NAMED, UnknownWords

KNOWN = {"the", "red", "circle"}


def taken_in(*sentences: str) -> UnknownWords:
    found = UnknownWords()
    for sentence in sentences:
        found.add(sentence.split(), KNOWN)
    return found


def test_the_unknown_words_of_one_sentence_are_named():
    assert taken_in("the red zorb , and a zorb").text() == "unknown to the model: 'zorb', 'and', 'a'"


def test_nothing_is_said_where_all_words_are_known(caplog):
    found = taken_in("the red circle .", "the ...")
    found.warn("test")
    assert found.text() == ""
    assert caplog.messages == []


def test_those_of_many_sentences_are_counted_and_the_most_frequent_named(caplog):
    found = taken_in("the x", "the y x", "red", "z")
    found.warn("shapes/test")
    line = "shapes/test: 3 words in 3 of 4 queries are unknown to the model: 'x', 'y', 'z'"
    assert caplog.messages == [line]
    assert (found.sentences, found.answerable) == (4, 3)


def test_one_line_stays_short_and_memory_bounded_whatever_comes():
    found = taken_in(*(f"\x1b{number}{'w' * 500}" for number in range(3000)))
    assert len(found._words) == 1000
    assert found.text().startswith("1,000 words or more in 3,000 of 3,000 queries")
    assert found.text().endswith(f"and {1000 - NAMED} more")
    assert len(found.text()) < 600
    assert "\x1b" not in found.text()
