"""How results look on the terminal."""

from vmr_train.cli.results import moment_table


def test_moments_stand_in_columns_below_their_sentence():
    found = moment_table(
        "the door {opens}",
        {"rank": ">4", "video": "<6", "start": ">7"},
        [("1", "a", "0:01.0"), ("2", "b{}", "12:00.0")],
    )
    assert found.split("\n") == [
        "the door {opens}",
        "rank  video     start",
        "   1  a        0:01.0",
        "   2  b{}     12:00.0",
    ]
