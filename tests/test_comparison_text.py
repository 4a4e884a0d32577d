"""Tables for the screen."""

import pytest

from jointnet.run_comparison import _broken, _notes, _shortened, setting, table


def test_words_to_the_left_and_figures_to_the_right():
    assert (
        table([["a", "x"], ["long", 0.5], ["b", None]]) == "a         x\nlong  0.500\nb         -"
    )


def test_columns_that_do_not_fit_go_on_below_with_their_words():
    rows = [["", "one", "two"], ["a", "1", "2"]]
    assert table(rows, width=7) == "   one\na    1\n\n   two\na    2"
    # One that never fits stands alone.
    assert table(rows, width=1) == table(rows, width=7)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("dice", "dice"),
        (True, "true"),
        (0.00123456, "0.001235"),
        ([16, 32], "16, 32"),
        ({"strength": 0.25, "probability": 0.5}, "0.25 (p 0.5)"),
        ({"a": 0.5, "b": 0.5}, "a 0.5, b 0.5"),
        ("x" * 19, "x" * 15 + "..."),
    ],
)
def test_settings_in_few_characters(value, text):
    assert setting(value) == text


def test_what_was_done_to_many_is_one_line():
    scenes = [{"notes": ["m: greyed (3)"]}, {"notes": ["m: greyed (5)", "n: turned (9)"]}, {}]
    assert _notes(scenes) == "m: greyed (2 of 3 scenes)\nn: turned (9)"


def test_long_names_are_broken_and_lose_nothing():
    assert _broken("massachusetts_buildings_sample") == ["massachusetts_", "buildings_sample"]
    assert _broken("a/b") == ["a/b"]
    for name in ("x" * 50, "_-_", "many_short_parts_in_one_name/and-more"):
        assert "".join(_broken(name)) == name
        assert max(map(len, _broken(name))) <= 18


def test_beginnings_are_left_out_where_that_is_clear():
    keys = ["recipe.training.epochs", "recipe.training.threshold", "threshold"]
    assert _shortened(keys) == {
        "recipe.training.epochs": "epochs",
        "recipe.training.threshold": "recipe.training.threshold",
        "threshold": "threshold",
    }
