"""What `cfmr-index` and `cfmr-search` find for themselves."""

from argparse import Namespace

import pytest

from cfmr.index.commands import _questions
from vmr_common.errors import UserError


def test_questions_are_looked_for_under_the_data_root_first(tmp_path, monkeypatch, encoder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    given = Namespace(queries="q.txt", data_root="root")
    lacking = r"^root/q\.txt: no such file; looked for under root .* current folder$"
    with pytest.raises(UserError, match=lacking), _questions(given, encoder):
        pass
    for folder, count in ((tmp_path, 1), (tmp_path / "root", 2)):
        (folder / "q.txt").write_text("word1\n" * count)
        with _questions(given, encoder) as asked:
            assert asked.count == count


def test_the_words_that_are_unknown_are_named_once(tmp_path, encoder, caplog):
    (tmp_path / "q.txt").write_text("word1 x\nword1\nx y word1\n")
    with _questions(Namespace(queries=str(tmp_path / "q.txt"), data_root=None), encoder):
        assert caplog.messages == ["2 words in 2 of 3 queries are unknown to the model: 'x', 'y'"]
