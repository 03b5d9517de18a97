"""A file of sentences is checked as a whole, once, and never held."""

import gzip
import json
import os
import threading
import tracemalloc

import pytest

from vmr_common.errors import UserError
from vmr_search.questions import checked_questions


def known(texts):
    return [None if "word" in text.split() else "the model knows no word of it" for text in texts]


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_questions_come_in_their_order_with_their_ids_as_given(tmp_path):
    rows = [
        {"qid": 7, "query": "word a"},
        {"query": "word \u2028 b"},
        {"query_id": "7", "sentence": "word c", "vid": None},
    ]
    with checked_questions(write(tmp_path / "q.jsonl", rows), known) as asked:
        assert asked.count == 3
        assert asked.next(2) == [{"qid": 7, "query": "word a"}, {"query": "word \u2028 b"}]
        assert asked.next(2) == [{"qid": "7", "query": "word c"}]
        assert asked.next(2) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("q.json", '[{"qid": 3, "query": "word"},\n {"query": "a word"}]'), ("q.txt", "word\n\na word\r\n")],
)
def test_lists_and_plain_sentences_are_read(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with checked_questions(str(tmp_path / name), known) as asked:
        assert [question["query"] for question in asked.next(9)] == ["word", "a word"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("q.csv", "video,query\nv,word\n", "q.csv:1: not JSON"),
        ("q.json", '[["v", 30.0, [4.0, 11.0], "word"]]', "q.json:1: "),
        ("q.json", '{\n"v": {"sentences": ["word"]}}', "q.json:1: not JSON"),
        ("q.json", '{"v": {"sentences": ["word"]}}', "q.json:1: key 'query' must hold a sentence"),
    ],
)
def test_files_of_another_form_are_told_what_is_read(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        checked_questions(str(tmp_path / name), known).__enter__()
    assert said in str(error.value)
    assert "; read are JSON lines, " in str(error.value)
    assert "vmr-data convert --annotations X --out Y.jsonl" in str(error.value)


def test_videos_that_lines_name_are_not_used_and_that_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    rows = [{"query": "word", "vid": "v"}, {"query": "word", "video_id": None}, {"query": "word"}]
    with checked_questions(write(tmp_path / "q.jsonl", rows), known):
        assert "1 of 3 queries name a video, which is not used" in caplog.text


def test_a_pipe_is_read_once_and_gzip_as_plain_text(tmp_path):
    text = b'{"query": "word"}\n' * 3
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(text,))
    writer.start()
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(text))
    for name in ("pipe", "q.jsonl.gz"):
        with checked_questions(str(tmp_path / name), known) as asked:
            assert len(asked.next(9)) == asked.count == 3
    writer.join()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"qid": 1}', "key 'query' must hold a sentence, found None"),
        ('{"query": null}', "key 'query' must hold a sentence, found None"),
        ('{"query": "word", "qid": 1, "query_id": 2}', r"qid and query_id disagree, found \[1, 2\]"),
        ('{"query": ["word"]}', r"key 'query' must hold a sentence, found \['word'\]"),
        ('{"query": " \\n "}', "key 'query' must hold a sentence, found"),
        ('{"query": "word", "qid": 1.5}', "key qid: found 1.5, expected text or a whole number"),
        ('{"query": "word", "qid": true}', "key qid: found True"),
        ('{"query": "word", "qid": null}', "key qid: found None"),
        ('{"query": "word", "qid": {}}', "key qid: found {}"),
        ('{"query": "word", "query": "word"}', "the key 'query' occurs twice"),
        ('{"query": "word \\udc00"}', "half a surrogate pair"),
        ('{"query": "word", "qid": "\\ud800"}', "half a surrogate pair"),
        ('["word"]', "expected a JSON object"),
        ("word", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("\udcff", "not UTF-8 text"),
    ],
)
def test_a_wrong_line_is_named_by_file_and_line(tmp_path, line, message):
    path = tmp_path / "q.jsonl"
    path.write_text('{"query": "word"}\n\n' + line + '\n{"query": "word"}\n', errors="surrogateescape")
    with pytest.raises(UserError, match=message) as error, checked_questions(str(path), known):
        pass
    assert str(error.value).startswith(f"{path}:3: ")


def test_a_question_without_a_known_word_is_named_and_the_others_are_answered(tmp_path, caplog):
    rows = [{"query": "word"}, {"qid": "b", "query": "x"}, *({"query": "y"} for _ in range(9))]
    with checked_questions(write(tmp_path / "q.jsonl", rows), known) as asked:
        assert [row.get("reason") for row in asked.next(2)] == [None, "the model knows no word of it"]
    named = "b ('x'), line 3 ('y'), line 4 ('y'), line 5 ('y'), line 6 ('y') and 5 more"
    assert caplog.messages[0].endswith(
        f"10 of 11 queries have no answer (the model knows no word of it): {named}"
    )
    with pytest.raises(UserError, match=r"no query can be searched for \(the model .*\): b \('x'\), line 2"):
        checked_questions(write(tmp_path / "q.jsonl", rows[1:3]), known).__enter__()


def test_a_file_without_questions_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no query"):
        checked_questions(write(tmp_path / "q.jsonl", []), known).__enter__()


def peak(path) -> int:
    tracemalloc.start()
    with checked_questions(path, known) as asked:
        while asked.next(32):
            pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.e2e
def test_memory_does_not_grow_with_the_questions(tmp_path):
    rows = [{"qid": n, "query": f"word {n}"} for n in range(1_000)]
    few, many = write(tmp_path / "few.jsonl", rows), write(tmp_path / "many.jsonl", rows * 4)
    peak(few)
    assert peak(many) < 1.2 * peak(few)
