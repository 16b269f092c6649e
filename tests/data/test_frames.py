from __future__ import annotations

import datetime as dt
import enum
import uuid
from array import array
from collections import deque
from decimal import Decimal
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ihas_jax.data.raw.frames import is_row, read_column, read_columns
from ihas_jax.data.raw.texts import as_text
from ihas_jax.errors import InputError


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def texts(values):
    return as_text(read_column("x", values)).to_list()


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([1.0, None, 3.0, float("nan")], ["1", None, "3", None]),
        ([float("nan")] * 2, [None, None]),
        ([None, None], [None, None]),
        (["a", float("nan"), None], ["a", None, None]),
        ([1, "a", 2.0, True, None], ["1", "a", "2", "true", None]),
        ([True, float("nan"), None], ["true", None, None]),
        ([1, 2.5], ["1", "2.5"]),
        ((1, 2), ["1", "2"]),
        (range(2), ["0", "1"]),
        ([np.int64(5), None, np.float32(0.1), np.bool_(True)], ["5", None, "0.1", "true"]),
        ([np.float32(0.1), 0.5], ["0.1", "0.5"]),
        ([2**70, 1], [str(2**70), "1"]),
        ([1, -(2**200)], ["1", str(-(2**200))]),
        ([Decimal("1.50"), Decimal("NaN"), Decimal("1E+2"), 3], ["1.5", None, "100", "3"]),
        ([Color.RED, "blue"], ["red", "blue"]),
        ([Level.HIGH, 4], ["3", "4"]),
        ([dt.date(2014, 10, 21), dt.datetime(2014, 10, 21, 5)],
         ["2014-10-21 00:00:00", "2014-10-21 05:00:00"]),
        ([np.datetime64("2014-10-21"), None], ["2014-10-21 00:00:00", None]),
        ([b"a", "b"], ["a", "b"]),
        (np.array([1, 2], np.uint8), ["1", "2"]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, "a", None], object), ["1", "a", None]),
        (np.ma.array([1, 2], mask=[False, True]), ["1", None]),
        (np.array(["2014-10-21T05", "NaT"], "M8[h]"), ["2014-10-21 05:00:00", None]),
        (jnp.arange(2), ["0", "1"]),
        (pl.Series(["a"], dtype=pl.Categorical), ["a"]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.chunked_array([[1], [None]]), ["1", None]),
        (pa.array(["a", None], pa.json_()), ["a", None]),
        (pa.array([1, None], pa.bool8()), ["1", None]),
    ],
)  # fmt: skip
def test_a_column_is_read_whatever_holds_it(values, want):
    assert texts(values) == want


@pytest.mark.parametrize(
    ("column", "want"),
    [
        (pd.Series([1.0, None]), ["1", None]),
        (pd.Series(["a", None]), ["a", None]),
        (pd.Series(["a", None], dtype=object), ["a", None]),
        (pd.Series([1, "a", float("nan")], dtype=object), ["1", "a", None]),
        (pd.Series(pd.Categorical(["a", None])), ["a", None]),
        (pd.Series(pd.Categorical([1, None])), ["1", None]),
        (pd.Series([1, None], dtype="Int64"), ["1", None]),
        (pd.Series([True, None], dtype="boolean"), ["true", None]),
        (pd.Series(["a", None], dtype="string"), ["a", None]),
        (pd.Series([1, None], dtype="int64[pyarrow]"), ["1", None]),
        (pd.Series([0.1, None], dtype="float32"), ["0.1", None]),
        (pd.to_datetime(pd.Series(["2014-10-21 05:00", None])), ["2014-10-21 05:00:00", None]),
        (
            pd.to_datetime(pd.Series(["2014-10-21 05:00"])).dt.tz_localize("Europe/Berlin"),
            ["2014-10-21 03:00:00"],
        ),
        (
            pd.Series([pd.Timestamp("2014-10-21 05:00:00.000000001"), pd.NaT], dtype=object),
            ["2014-10-21 05:00:00.000000001", None],
        ),
        (pd.Series([pd.NA, 1], dtype=object), [None, "1"]),
    ],
)
def test_a_column_of_pandas(column, want):
    assert texts(column) == want
    assert texts(column.tolist()) == want
    frame = pd.DataFrame({"y": 1, "x": column})
    assert as_text(read_columns(frame, ["x"])[0]).to_list() == want
    rows = frame.to_dict("records")
    assert as_text(read_columns(rows, ["x"])[0]).to_list() == want
    assert as_text(read_columns(rows[0], ["x"])[0]).to_list() == want[:1]


ROWS = {"a": [1, 2], "b": ["x", None]}


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        {"b": pl.Series(ROWS["b"]), "c": [0], "a": np.array([1.0, 2.0])},
        pl.DataFrame(ROWS),
        pl.LazyFrame(ROWS),
        pd.DataFrame(ROWS),
        pa.table(ROWS),
        pa.table(ROWS).to_batches()[0],
        [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
        ({"b": "x", "a": 1.0}, {"b": float("nan"), "a": "2"}),
    ],
)
def test_a_container_of_any_kind(rows):
    a, b = read_columns(rows, ["a", "b"])
    assert (as_text(a).to_list(), as_text(b).to_list()) == (["1", "2"], ["x", None])


@pytest.mark.parametrize("rows", [[], (), pl.DataFrame({"a": [], "b": []}), {"a": [], "b": []}])
def test_a_batch_without_rows_has_empty_columns(rows):
    a, b = read_columns(rows, ["a", "b"])
    assert (len(a), len(b)) == (0, 0)


def test_a_row_of_arrays_without_axes_is_one_row():
    a, b = read_columns({"a": np.array("xyz"), "b": jnp.float32(0.1)}, ["a", "b"])
    assert (as_text(a).to_list(), as_text(b).to_list()) == (["xyz"], ["0.1"])


def test_a_row_of_scalars_is_one_row():
    a, b = read_columns({"a": "xyz", "b": None}, ["a", "b"])
    assert (a.to_list(), b.to_list()) == (["xyz"], [None])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (5, "of the type int cannot be read; give a data frame"),
        ("abc", "of the type str cannot be read"),
        ([1, 2], "of the type list cannot be read"),
        (np.zeros((2, 2)), "of the type ndarray cannot be read"),
        (pd.Series({"a": 1, "b": 2}), "of the type Series cannot be read"),
        ({"a": [1]}, "no column 'b'; the columns are a"),
        (pl.LazyFrame({"a": [1]}), "no column 'b'"),
        ([{"a": 1}], "no column 'b'"),
        ([{"a": 1, "b": None}, {"a": 1}], "row 1, counted from 0, lacks 'b'; give every row"),
        (pd.DataFrame([[1, 2, 3]], columns=["a", "b", "b"]), "two columns 'b'"),
        ({"a": [1], "b": "x"}, "'b' is one value of the type str, and 'a' a column; give either"),
        ({"a": [1], "b": [1, 2]}, "differ in length: {'a': 1, 'b': 2}"),
        ({"a": [1], "b": {1}}, "'b' is one value of the type set, and 'a' a column"),
        ({"a": [1], "b": np.zeros((1, 2))}, "'b' has 2 axes"),
        ({"a": [1], "b": bytearray(b"x")}, "'b' is one value of the type bytearray"),
        ({"a": [1], "b": ["\ud800"]}, "'b' holds '.*', which is not Unicode text"),
        ({"a": [1, 2], "b": ["x", ["y"]]}, "'b' holds lists"),
        (pd.DataFrame({"a": [1], "b": pd.period_range("2014", periods=1)}), "'b' holds Period"),
        (pl.LazyFrame({"a": [1], "b": [1]}).with_columns(pl.col("c")), "lazy frame cannot be coll"),
        (pl.scan_csv("/no/such/file.csv"), "lazy frame cannot be collected"),
        (
            {"a": [1], "b": pa.array([pa.MonthDayNano([1, 2, 3])])},
            "'b' cannot be read",
        ),
        (pa.table({"a": [1], "b": pa.array([Decimal(1)], pa.decimal256(60, 1))}), "through Arrow"),
    ],
)
def test_what_cannot_be_read_is_named(rows, message):
    with pytest.raises(InputError, match=message):
        for column in read_columns(rows, ["a", "b"]):
            as_text(column)


class Odd:
    def __repr__(self):
        return "<odd>"


@pytest.mark.parametrize(
    ("value", "called"),
    [
        ({1}, r"\{1\} of the type set"),
        (uuid.UUID(int=1), "UUID.* of the type UUID"),
        (Odd(), "<odd> of the type Odd"),
        ({"x": 1}, r"\{'x': 1\} of the type dict"),
        (dt.timedelta(1), "datetime.timedelta.* of the type timedelta"),
        (1 + 2j, r"\(1\+2j\) of the type complex"),
    ],
)
def test_a_value_that_is_no_category_is_named_in_a_row_as_in_a_column(value, called):
    for rows in ({"a": 5, "b": value}, {"a": value, "b": value}, [{"a": 5, "b": value}],
                 {"a": [5], "b": [value]}):  # fmt: skip
        message = f"'[ab]' holds {called}; a category is text, a number, a truth value or a time"
        with pytest.raises(InputError, match=message):
            read_columns(rows, ["a", "b"])


def test_a_row_may_have_every_value_that_a_column_may_have():
    values = [Fraction(1, 2), pa.scalar(3), Decimal("1.50"), dt.date(2014, 10, 21), pd.NA]
    for value in values:
        (of_row,) = read_columns({"x": value}, ["x"])
        (of_column,) = read_columns({"x": [value]}, ["x"])
        assert as_text(of_row).to_list() == as_text(of_column).to_list()
    for value in (range(2), pd.array([1, 2]), array("i", [1, 2]), deque([1, 2]), jnp.arange(2)):
        assert not is_row({"a": 5, "x": value}, ["x", "a", "other"])
        assert is_row({"a": 5, "x": value}, ["a"])


@pytest.mark.parametrize("name", ["^a$", "*", "", "a.b", 'a"b', "x"])
def test_names_that_polars_takes_for_patterns(name):
    frame = pl.LazyFrame({"a": ["p", "q"], name: ["r", "s"], "x2": [1, 2]})
    assert read_columns(frame, [name])[0].to_list() == ["r", "s"]
