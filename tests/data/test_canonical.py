from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.data.raw.canonical import bin_names, fits_kind, read_times, spell
from ihas_jax.data.raw.texts import as_text
from ihas_jax.data.schema import CategoryKind, FieldKind
from ihas_jax.errors import InputError

INSTANT = dt.datetime(2014, 10, 21, 23, 0, 5, 120_000)


def spelled(kind, *texts, **choices):
    return spell(pl.Series(texts, dtype=pl.String), kind, **choices).to_list()


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pl.Series(["a", "", None, " 3.0"]), ["a", "", None, " 3.0"]),
        (pl.Series([3, -1, None], dtype=pl.Int8), ["3", "-1", None]),
        (pl.Series([2**64 - 1], dtype=pl.UInt64), ["18446744073709551615"]),
        (pl.Series([3.0, -0.0, 0.1, math.nan, None]), ["3", "0", "0.1", None, None]),
        (pl.Series([0.1, 16777216.0], dtype=pl.Float32), ["0.1", "16777216"]),
        (pl.Series(np.array([0.1, 1 / 3], np.float16)), ["0.1", "0.3333"]),
        (pl.Series([float(np.float32(0.1)), 1e-300]), ["0.1", "1e-300"]),
        (pl.Series([2.0**53 - 1, 2.0**53]), ["9007199254740991", "9007199254740992.0"]),
        (pl.Series([123456792.0, 123456790.0]), ["123456792", "123456790"]),
        (pl.Series([True, False, None]), ["true", "false", None]),
        (pl.Series([Decimal("1.00"), Decimal("2.50"), Decimal(100)]), ["1", "2.5", "100"]),
        (pl.Series(["x", None], dtype=pl.Categorical), ["x", None]),
        (pl.Series(["x"], dtype=pl.Enum(["y", "x"])), ["x"]),
        (pl.Series([b"abc", None]), ["abc", None]),
        (pl.Series([None, None]), [None, None]),
        (pl.Series([dt.date(2014, 10, 21)]), ["2014-10-21 00:00:00"]),
        (pl.Series([dt.time(23, 0)]), ["23:00:00"]),
        *(
            (pl.Series([INSTANT], dtype=pl.Datetime(unit)), ["2014-10-21 23:00:05.12"])
            for unit in ("ms", "us", "ns")
        ),
        (
            pl.Series([INSTANT]).dt.replace_time_zone("Europe/Berlin"),
            ["2014-10-21 21:00:05.12"],
        ),
    ],
)
def test_the_type_of_a_column_does_not_matter(column, texts):
    assert as_text(column).to_list() == texts
    assert as_text(column.head(0)).to_list() == []


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series("tags", [["a"], ["b", "c"]]), "'tags' holds lists; .*explode"),
        (pl.Series("x", [{"a": 1}]), r"'x' holds values of the type Struct.*\{'a': 1\}"),
        (pl.Series("x", [dt.timedelta(1)]), "'x' holds values of the type Duration"),
        (pl.Series("x", [object()]), "'x' holds values of the type Object, such as <object"),
        (pl.Series("x", [b"ok", b"\xff"]), r"'x' holds the bytes b'\\xff', which are not UTF-8"),
    ],
)
def test_what_is_no_category_is_named(column, message):
    with pytest.raises(InputError, match=message):
        as_text(column)


def test_text_stays_text_but_for_whole_floats_and_truth_values():
    given_texts = ("3.0", "3.00", "-1.0", "007", "1.10", "+3", "TRUE", "False", "NA", "nan", None)
    want = ["3", "3", "-1", "007", "1.10", "+3", "true", "false", "NA", "nan", ""]
    assert spelled("text", *given_texts) == want


def test_integers_compare_by_value():
    assert spelled("integer", "3", "3.0", "03", "+3", "3e0", "True") == ["3"] * 5 + ["1"]
    assert spelled("integer", "-0", "-0.0", "false", "0.0", "000") == ["0"] * 5
    assert spelled("integer", "nan", "NA", "None", "NaT", "", None) == [""] * 6
    assert spelled("integer", "3.5", "x", "inf") == ["3.5", "x", "inf"]
    assert spelled("integer", "9007199254740993", "1" * 30) == ["9007199254740993", "1" * 30]


def test_a_float_that_does_not_tell_its_integer_has_no_spelling():
    assert spelled("integer", "9007199254740991.0") == ["9007199254740991"]
    assert spelled("integer", "9.007199254740992e15", "-1e20") == [None, None]
    large = as_text(pl.Series([2.0**53, 2.0**60]))
    assert spell(large, "integer").to_list() == [None, None]


def test_floats_compare_by_value():
    assert spelled("float", "0.10", ".1", "1e-1", "+0.1") == ["0.1"] * 4
    assert spelled("float", "2", "2.0", "true", "x", "nan") == ["2", "2", "1", "x", ""]


def test_booleans_compare_by_value():
    assert spelled("boolean", "True", "TRUE", "true", "1", "1.00") == ["true"] * 5
    assert spelled("boolean", "False", "0", "-0.0", None, "maybe") == ["false"] * 3 + ["", "maybe"]


def test_times_compare_by_value():
    same = "2014-10-21 21:00:00"
    assert spelled("time", same, "2014-10-21T21:00", "2014-10-21T21:00:00.000Z") == [same] * 3
    assert spelled("time", "2014-10-21T23:00:00+02:00", "2014-10-21 17:30:00-0330") == [same] * 2
    assert spelled("time", "2014-10-21", "9999-12-31") == [
        "2014-10-21 00:00:00",
        "9999-12-31 00:00:00",
    ]
    assert spelled("time", "2014-10-21 21:00:00.123456789") == [f"{same}.123456789"]
    assert spelled("time", "2014-13-01", "NaT", "soon") == ["2014-13-01", "", "soon"]


@pytest.mark.parametrize(
    ("kind", "words", "texts", "want"),
    [
        ("integer", ("-1.0",), ["-1", "-1.0", "1"], ["", "", "1"]),
        ("float", ("-999",), ["-999.0", "-9.99e2", "1.5"], ["", "", "1.5"]),
        ("numeric", ("-1",), ["-1.0", "-1.5", "1"], ["NULL", "-3", "-1"]),
        ("quantile", ("0",), ["0.0", "5"], ["NULL", "any number"]),
        ("time", ("1970-01-01",), ["1970-01-01T00:00", "1970-01-02"], ["", "1970-01-02 00:00:00"]),
        ("text", ("-1.0",), ["-1", "-1.0", "-01"], ["", "", "-01"]),
    ],
)
def test_words_for_a_missing_value_are_compared_by_value(kind, words, texts, want):
    assert spelled(kind, *texts, missing=words) == want


def test_words_of_the_log_for_a_missing_value():
    for kind in get_args(FieldKind):
        want = ["NULL"] * 2 if kind in ("numeric", "quantile") else ["", ""]
        assert spelled(kind, "-", r"\N", missing=("-", r"\N")) == want


def test_numbers_fall_into_bins():
    edges = (0.0, 0.25, 1.0)
    assert bin_names(edges) == ["below 0", "0 to below 0.25", "0.25 to below 1", "1 or more"]
    found = spelled("quantile", "-1", "0", "0.1", "0.25", "1e30", None, "x", edges=edges)
    assert found == [
        "below 0",
        *("0 to below 0.25",) * 2,
        *("0.25 to below 1", "1 or more", "NULL"),
        None,
    ]
    assert spelled("quantile", "5", "") == ["any number", "NULL"]


VALUES = st.one_of(
    st.text(),
    st.integers().map(str),
    st.floats().map(str),
    st.decimals(allow_nan=False).map(str),
    st.datetimes().map(str),
    st.sampled_from(["true", "False", "NaN", "-0.0", "1e5", "00", "3.", ".5", "-", "1_000"]),
)


@given(st.lists(VALUES, min_size=1), st.sampled_from(get_args(CategoryKind)))
def test_a_spelling_is_its_own_spelling(texts, kind):
    once = spell(pl.Series(texts), kind).drop_nulls()
    assert spell(once, kind).to_list() == once.to_list()


@given(st.lists(st.integers(-(2**53) + 1, 2**53 - 1), min_size=1))
def test_an_integer_is_one_value_in_every_container(values):
    want = [str(value) for value in values]
    columns = [
        pl.Series(values),
        pl.Series([float(v) for v in values]),
        pl.Series([str(v) for v in values]),
        pl.Series([f"{v}.0" for v in values]),
        pl.Series([Decimal(v) for v in values]),
    ]
    for column in columns:
        assert spell(as_text(column), "integer").to_list() == want


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_a_float_is_one_value_at_both_widths(values):
    narrow = spell(as_text(pl.Series(values, dtype=pl.Float32)), "float")
    wide = spell(as_text(pl.Series(values, dtype=pl.Float64)), "float")
    assert narrow.to_list() == wide.to_list()
    assert narrow.cast(pl.Float32).to_list() == [value + 0.0 for value in values]


@pytest.mark.parametrize(
    ("texts", "kinds"),
    [
        (["True", "false", "NA"], {"text", "boolean"}),
        (["0", "-12", "3.0", "", "None"], {"text", "integer", "float"}),
        (["0.5", "1e3", ".5", "-2"], {"text", "float"}),
        (["007", "12"], {"text"}),
        (["1e400"], {"text"}),
        (["2014-10-21", "2014-10-21T23:00:00Z"], {"text", "time"}),
        (["2014-02-30"], {"text"}),
        (["a", "1"], {"text"}),
    ],
)
def test_text_fits_the_kinds_that_lose_nothing(texts, kinds):
    found = {kind for kind in get_args(CategoryKind) if fits_kind(pl.Series(texts), kind)}
    assert found == kinds


def test_times_that_sort():
    texts = pl.Series(["14102123", "2014-10-21", "x", "1.5"])
    numbers, times = read_times(texts)
    assert numbers.to_list() == [14102123.0, None, None, 1.5]
    assert times.to_list() == [None, "2014-10-21 00:00:00", None, None]
    _, times = read_times(pl.Series(["21/10/2014 23", "2014"]), "%d/%m/%Y %H")
    assert times.to_list() == ["2014-10-21 23:00:00", None]
    _, times = read_times(pl.Series(["21/10/2014", "2014"]), "%d/%m/%Y")
    assert times.to_list() == ["2014-10-21 00:00:00", None]
