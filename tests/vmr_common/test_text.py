"""Tokens, word vectors and vocabularies."""

import gzip
import json
import pickle
from collections import Counter

import numpy as np
import pytest

from vmr_common.errors import UserError
from vmr_common.text import tokens
from vmr_common.text.tokens import sentence_tokens, split_sentences, tokenize
from vmr_common.text.vectors import Vocabulary, WordVectors


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("   ", []),
        ("person turns a light on.", "person turns a light on ."),
        ("  The  Person sits ", "The Person sits"),
        ("door.the cup.", "door.the cup ."),
        ("He cuts the plate. then he washes it.", "He cuts the plate . then he washes it ."),
        ("Mr. Brown and J. Smith eat.", "Mr. Brown and J. Smith eat ."),
        ("He waits... and goes", "He waits ... and goes"),
        ("She doesn't, can't, won't or cannot.", "She does n't , ca n't , wo n't or can not ."),
        (
            "He's in the man's car, they're out; we've won!",
            "He 's in the man 's car , they 're out ; we 've won !",
        ),
        ("I'm sure he'd say I'll go", "I 'm sure he 'd say I 'll go"),
        ('He says "open it" twice.', "He says `` open it '' twice ."),
        ('("quoted")', "( `` quoted '' )"),
        ("the boys' ball", "the boys ' ball"),
        ("a 'nice' day", "a ' nice ' day"),
        ("takes 1,000 at 10:30, then 3.5 more", "takes 1,000 at 10:30 , then 3.5 more"),
        ("a washer/dryer half-eaten", "a washer/dryer half-eaten"),
        ("one -- two", "one -- two"),
        ("50% & #1 @home $5", "50 % & # 1 @ home $ 5"),
        ("(a [b] {c})", "( a [ b ] { c } )"),
        ("really? yes! ok", "really ? yes ! ok"),
        ("gonna wanna gotta gimme lemme 'tis", "gon na wan na got ta gim me lem me 't is"),
        ("naïve café\u2028déjà\nvu", "naïve café déjà vu"),
    ],
)
def test_tokens(text, tokens):
    assert tokenize(text) == (tokens.split() if isinstance(tokens, str) else tokens)


def test_sentences_end_where_a_reader_would_say():
    text = 'She stops. "Go!" he says.  Dr. No came at 5 p.m. today... and left? yes'
    assert split_sentences(text) == [
        "She stops.",
        '"Go!"',
        "he says.",
        "Dr. No came at 5 p.m. today... and left?",
        "yes",
    ]


@pytest.mark.parametrize("piece", ["a. ", "Mr. ", "... ", "e.g. b) ", "x. \u2028", ".) ", "?! "])
def test_sentences_are_told_apart_in_work_that_grows_as_the_text_does(piece, monkeypatch):
    judged = []
    ends = tokens._ends_sentence
    monkeypatch.setattr(
        tokens, "_ends_sentence", lambda word, next_: judged.append(len(word)) or ends(word, next_)
    )

    def work(count):
        judged.clear()
        split_sentences(piece * count)
        return sum(judged)

    assert 0 < work(400) <= 5 * work(100)


def test_long_and_strange_text_is_split_in_linear_time():
    for text in ("'" * 20_000, "a." * 20_000, ". " * 20_000, '"' * 20_000, "(" * 20_000, "." * 20_000):
        assert tokenize(text)


# --- word vectors ------------------------------------------------------------------------------------------

GLOVE = "the 0.5 1 -2\nperson 1e-3 2.25 3\n. . . 1 2 3\n. 4 5 6\nper son 7 8 9\nthe 9 9 9\n"


def test_glove_text_is_read_with_words_that_hold_blanks(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE, encoding="utf-8")
    vectors = WordVectors.read(path)
    assert vectors.words == ("the", "person", ". . .", ".", "per son")
    assert vectors.dim == 3
    assert vectors.vectors.dtype == np.float32
    assert vectors["the"].tolist() == [0.5, 1, -2]  # the first of two
    assert vectors["."].tolist() == [4, 5, 6]
    assert "cup" not in vectors
    with pytest.raises(KeyError):
        vectors["cup"]


@pytest.mark.parametrize("form", ["plain", "gz", "word2vec header", "carriage returns"])
def test_other_forms_of_the_same_table_read_alike(tmp_path, form):
    path = tmp_path / ("glove.txt.gz" if form == "gz" else "glove.txt")
    text = {"word2vec header": "6 3\n" + GLOVE, "carriage returns": GLOVE.replace("\n", " \r\n")}.get(
        form, GLOVE
    )
    path.write_bytes(gzip.compress(text.encode()) if form == "gz" else text.encode())
    vectors = WordVectors.read(path, keep={"person", ".", "per son", "unheard"})
    assert vectors.words == ("person", ".", "per son")
    assert vectors["person"].tolist() == pytest.approx([1e-3, 2.25, 3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the 1 2 3\nperson 1 2\n", r"glove\.txt:2: expected a word and 3 numbers as in the first line"),
        (b"the 1 2 3\nperson 1 x 3\n", r"glove\.txt:2: expected a word and 3 numbers"),
        (b"the 1 2 3\nperson 1 nan 3\n", r"glove\.txt:2: the vector of 'person' holds NaN or infinity"),
        (b"the 1 2 3\nperson 1 1e60 3\n", r"glove\.txt:2: the vector of 'person' holds NaN or infinity"),
        (b"the 1 2 3\nperson\xff 1 2 3\n", r"glove\.txt:2: the word is not UTF-8"),
        (b"the\nperson\n", r"glove\.txt:1: expected a word and its numbers"),
        (b"9 2\nthe 1 2 3\n", r"glove\.txt:2: expected 2 numbers as the first line says, found 3"),
        (b"the 1 2 3\nperson 1 2_0 3\n", r"glove\.txt:2: expected a word and 3 numbers"),
        (b"the " + b"1 " * 600_000 + b"\n", r"glove\.txt:1: a line of more than 1,048,576 bytes"),
        (b"the 1 2 3\n" + b"x" * 3_000_000, r"glove\.txt:2: a line of more than 1,048,576 bytes"),
        (b"", r"glove\.txt: found no word vectors"),
        (b"\n\n", r"glove\.txt: found no word vectors"),
        (pickle.dumps({"the": [1.0]}), r"found a pickle, which is never loaded"),
        (b"\x1f\x8b\x08\x00abc", r"found gzip data without the ending \.gz"),
        (b"the\0\0\0\x01", r"found binary data"),
        (b"PK\x03\x04abc", r"found a zip archive"),
    ],
)
def test_what_is_no_glove_text_is_one_error(tmp_path, content, message):
    path = tmp_path / "glove.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        WordVectors.read(path)


def test_missing_and_broken_files_are_one_error(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.txt: no such file"):
        WordVectors.read(tmp_path / "nothing.txt")
    path = tmp_path / "glove.txt.gz"
    path.write_bytes(gzip.compress(GLOVE.encode())[:-12])
    with pytest.raises(UserError, match=r"cannot read .*glove\.txt\.gz"):
        WordVectors.read(path)
    path.write_bytes(GLOVE.encode())
    with pytest.raises(UserError, match=r"cannot read .*glove\.txt\.gz"):
        WordVectors.read(path)
    (tmp_path / "ok.txt").write_text(GLOVE)
    with pytest.raises(UserError, match="found no vectors for any of the 1 wanted words"):
        WordVectors.read(tmp_path / "ok.txt", keep={"zebra"})


# --- vocabulary --------------------------------------------------------------------------------------------


def vectors(*words):
    return WordVectors(words, np.eye(len(words), dtype=np.float32))


def test_a_vocabulary_keeps_the_most_frequent_words_that_have_vectors():
    lists = [tokenize("The cat sees a dog."), tokenize("a Zebra sees the cat"), tokenize("dog")]
    vocabulary = Vocabulary.build(lists, vectors("dog", "cat", "the", "a", "sees", "."), max_words=5)
    assert vocabulary.words == ("the", "cat", "sees", "a", "dog")  # all twice: order of first occurrence
    assert [vocabulary.id(word) for word in ("the", "dog", ".", "zebra", "The")] == [1, 5, 0, 0, 0]
    assert len(vocabulary) == 5
    assert vocabulary == Vocabulary(vocabulary.words)


def test_the_table_of_a_vocabulary_begins_with_padding():
    table = vectors("dog", "cat").table(("cat", "dog"))
    assert table.tolist() == [[0, 0], [0, 1], [1, 0]]


def test_a_vocabulary_without_words_is_an_error():
    with pytest.raises(UserError, match="no word of the annotations has a vector"):
        Vocabulary.build([["zebra"]], vectors("dog"))
    with pytest.raises(ValueError, match="twice"):
        Vocabulary(("a", "a"))


# --- the published tables ----------------------------------------------------------------------------------


def published(shared_data, name):
    rows = [
        line.split("\t") for line in (shared_data / f"word_vectors/vocab_{name}.tsv").read_text().splitlines()
    ]
    return [(word, int(count), int(rank)) for word, _, count, rank in rows[1:]]


@pytest.mark.parametrize(("name", "words", "kept"), [("charades", 1146, 1111), ("tacos", 2288, 2288)])
def test_counts_give_the_published_ranks(shared_data, name, words, kept):
    rows = published(shared_data, name)
    vectors = WordVectors.read(shared_data / f"word_vectors/glove_{name}.txt.gz")
    assert (len(vectors), vectors.dim) == (words, 300)
    vocabulary = Vocabulary.from_counts([(word, count) for word, count, rank in rows if rank], kept)
    expected = {word: rank for word, _, rank in rows if 0 < rank <= kept}
    assert {word: vocabulary.id(word) for word in vocabulary.words} == expected
    assert vectors.table(vocabulary.words).shape == (len(vocabulary) + 1, 300)


@pytest.mark.parametrize(
    ("name", "file", "tokens", "types"),
    [
        ("charades", "charades_sta/point_rgn/glance_train_charades.json", 101, 84),
        ("charades", "charades_sta/point_rgn/glance_test_charades.json", 32, 31),
        ("charades", "charades_sta/point_cfmr/glance_train_charades.json", 136, 119),
        ("charades", "charades_sta/point_cfmr/glance_test_charades.json", 39, 37),
        ("tacos", "tacos/point/glance_train_tacos.json", 82, None),
        ("tacos", "tacos/point/glance_val_tacos.json", 42, None),
        ("tacos", "tacos/point/glance_test_tacos.json", 32, None),
    ],
)
def test_the_tokeniser_leaves_as_many_words_unknown_as_a_treebank_one(shared_data, name, file, tokens, types):
    known = {word for word, _, rank in published(shared_data, name) if rank}
    sentences = [row[3] for row in json.loads((shared_data / file).read_text())]
    unknown = Counter(
        token.lower() for text in sentences for token in sentence_tokens(text) if token.lower() not in known
    )
    assert unknown.total() == tokens
    assert types is None or len(unknown) == types
    # finding the sentences first never loses a word that was known
    assert sum(t.lower() not in known for text in sentences for t in tokenize(text)) <= tokens
