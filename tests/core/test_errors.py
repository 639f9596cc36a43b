"""Error messages: one printable line that names source, place, problem and fix."""

import math
import pickle

import pytest

from vidreason.core.errors import DataError, check_choice, check_ranges


def test_an_error_is_one_printable_line():
    error = DataError("a\nb", "c\x1b[1m", "d\u2028", "e\r")
    assert str(error) == r"a\nb: e\r: c\x1b[1m; d\u2028"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_long_quotation_is_cut():
    text = str(DataError("a.csv", "b" * 10_000, "fix it", "c" * 10_000))
    assert len(text) < 1000 and text.endswith(" …; fix it")


def test_ranges_are_inclusive_and_exclude_nan():
    check_ranges("model", ("low", 1, 1, 3), ("high", 3, 1, 3))
    for value in (0, 4, math.nan):
        with pytest.raises(DataError) as error:
            check_ranges("model", ("fine", 2, 1, 3), ("wrong", value, 1, 3))
        expected = f"model.wrong: must be between 1 and 3, got {value}; correct the option"
        assert str(error.value) == expected


def test_a_choice_is_one_of_the_allowed_values():
    check_choice("data.split", "val", ("train", "val"))
    with pytest.raises(DataError) as error:
        check_choice("data.split", "dev", ("train", "val"))
    assert (
        str(error.value) == "data.split: must be one of train, val, got 'dev'; correct the option"
    )
