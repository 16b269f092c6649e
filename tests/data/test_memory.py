"""What an encoder remembers of single rows changes no id, no error and no warning."""

from __future__ import annotations

import warnings
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.data.raw import memory
from ihas_jax.data.raw.columns import LostWordWarning
from ihas_jax.data.raw.encoder import Encoder
from ihas_jax.data.schema import Field, Schema
from ihas_jax.errors import InputError

SCHEMA = Schema(
    "label",
    (
        Field("word", ("a", "NA", "1", "true"), kind="text"),
        Field("gap", ("", "a"), kind="text"),
        Field("whole", ("1", "2", "-3"), kind="integer"),
        Field("part", ("0.5", "1", ""), kind="float"),
        Field("truth", ("true", "false"), kind="boolean"),
        Field("day", ("2014-10-21 00:00:00", ""), kind="time"),
        Field("count", ("NULL", "0", "3"), kind="numeric"),
        Field(
            "bin",
            ("NULL", "below 0", "0 to below 1.5", "1.5 or more"),
            kind="quantile",
            edges=(0.0, 1.5),
        ),
    ),
)
EQUAL = st.sampled_from([True, 1, 1.0, "1", "1.0", False, 0, 0.0, -0.0, None, float("nan"), "nan"])
TEXT = st.sampled_from(["", "a", "NA", "true", "True", "2014-10-21", "x" * 70])
NUMBERS = EQUAL | EQUAL | st.integers() | st.floats(-(2**50), 2**50)
ANY = NUMBERS | TEXT
# a value of a wrong type is an error, after which nothing is remembered: such rows must be few
USUAL = {"gap": TEXT | st.none(), "day": TEXT | st.none()}
ROW = st.fixed_dictionaries({name: USUAL.get(name, NUMBERS) for name in SCHEMA.names})
ODD = st.fixed_dictionaries(dict.fromkeys(SCHEMA.names, ANY))


def outcome(encode, rows):
    """The ids, or the error; and all warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = encode(rows).tolist()
        except InputError as error:
            found = str(error)
    return found, [str(one.message) for one in caught]


def field_of(name):
    return SCHEMA.names.index(name)


@given(st.lists(ROW | ROW | ODD, min_size=1, max_size=4))
def test_a_value_that_was_seen_is_what_it_was(rows):
    """A list of one row is never remembered, nor what a new encoder has not seen."""
    encoder = Encoder(SCHEMA)
    for row in [*rows, *rows[::-1], *rows]:
        assert outcome(encoder, row) == outcome(Encoder(SCHEMA), [row])


@pytest.mark.parametrize("values", [(True, 1, 1.0), (1.0, True), (0.0, -0.0, False), (1, "1")])
def test_equal_values_of_other_types_are_apart(row, values):
    encoder = Encoder(SCHEMA)
    for value in values:
        ids = encoder(row | {"word": value})
        assert ids.tolist() == Encoder(SCHEMA)([row | {"word": value}]).tolist()


@pytest.fixture
def row():
    values = ("a", "a", 2, 0.5, True, "2014-10-21", 3, 1.5)
    return dict(zip(SCHEMA.names, values, strict=True))


@pytest.fixture
def encoder(row):
    """An encoder that has seen the row, and is told of the fields that it looks up from then on."""
    encoder = Encoder(SCHEMA)
    encoder(row)
    original, encoder.asked = encoder._encode, []

    def encode(rows, numbers):
        encoder.asked.append(list(numbers))
        return original(rows, numbers)

    encoder._encode = encode
    return encoder


def test_only_what_is_new_is_looked_up(encoder, row):
    first = encoder(row)
    assert encoder.asked == [] and first.dtype == np.int32 and first.shape == (1, 8)
    changed = encoder(MappingProxyType(row | {"whole": 1, "bin": -7.0, "more": []}))
    assert encoder.asked == [[field_of("whole"), field_of("bin")]]
    assert changed.tolist() == Encoder(SCHEMA)([row | {"whole": 1, "bin": -7.0}]).tolist()
    assert (first != changed).sum() == 2


@pytest.mark.parametrize("other", [np.int64(2), b"2", [2]])
def test_other_types_and_columns_take_the_long_way(encoder, row, other):
    row["whole"] = other
    outcome(encoder, row)
    assert encoder.asked == [list(range(8))]


def test_a_missing_column_is_named_as_ever(encoder, row):
    del row["whole"]
    with pytest.raises(InputError, match="no column 'whole'; the columns are word, gap, part"):
        encoder(row)


def test_a_warning_comes_every_time(encoder, row):
    for _ in range(2):
        with pytest.warns(LostWordWarning, match="'word' has rows without a value") as caught:
            encoder(row | {"word": None})
        assert caught[0].filename == __file__
    with pytest.warns(LostWordWarning) as caught:
        encoder([row | {"word": None}])
    assert caught[0].filename == __file__


def test_memory_is_bounded(encoder, row, monkeypatch):
    monkeypatch.setattr(memory, "_MOST", 3)
    for number in range(20):
        ids = encoder(row | {"bin": number / 10})
        assert ids.tolist() == Encoder(SCHEMA)([row | {"bin": number / 10}]).tolist()
        assert len(encoder._memory._fields[-1][1]) <= 3
    encoder(row | {"word": "x" * 65})
    assert all(len(str(value)) <= 64 for _, value in encoder._memory._fields[0][1])
