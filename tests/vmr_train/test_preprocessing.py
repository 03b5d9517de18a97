"""What inputs take from the training set."""

import numpy as np

from vmr_common.types import Query
from vmr_train.preprocessing import Preprocessor


def test_point_supervised_training_names_a_word_without_a_vector(tmp_path, caplog):
    (tmp_path / "glove.txt").write_text("a 1 2\n")
    query = Query(
        id="q",
        video="v",
        text="a glorp, a.",
        duration=9.0,
        moments=np.array([[1.0, 2.0]]),
        glance=1.5,
    )
    Preprocessor.learn([query], tmp_path / "glove.txt", 10, None).warn_of_unknown([query.text])
    assert "words that the model does not know are left out: 'glorp'\n" in caplog.text
