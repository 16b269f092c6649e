"""Columns of types that cannot hold the values of a field."""

from __future__ import annotations

import datetime as dt
import io

import numpy as np
import pandas as pd
import polars as pl
import pytest

from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats
from ihas_jax.data.raw.columns import LostWordWarning, check_type
from ihas_jax.data.raw.encoder import encode
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.schema import Field, Schema
from ihas_jax.errors import InputError

DAY = "2014-10-21 00:00:00"


@pytest.mark.parametrize(
    ("kind", "values", "column", "lost"),
    [
        ("text", ["1.1", "1.10"], pl.Float64(), "has the value '1.10' .* in which that is '1.1'"),
        ("text", ["a", "007"], pl.Int64(), "has the value '007' .* in which that is '7'"),
        ("text", ["00.5"], pl.Float64(), "in which that is '0.5'"),
        ("text", ["+5"], pl.UInt8(), "in which that is '5'"),
        ("text", [" 5"], pl.Int64(), "in which that is '5'"),
        ("text", ["1e5", "x"], pl.Float64(), "in which that is '100000'; read the column as text"),
        ("integer", ["16777217"], pl.Float32(), "'16777216'; read the column as integers or text"),
        ("float", ["0.30000000000000004"], pl.Float32(), "read the column as Float64 or text"),
        ("text", ["yes", "no"], pl.Boolean(), "came as Boolean, and none of its values, such as"),
        ("text", ["a"], pl.Date(), "came as Date"),
        ("text", ["a"], pl.Time(), "came as Time"),
        ("time", [DAY], pl.Int64(), "came as Int64, .* read the column as times or text"),
        ("time", [DAY], pl.Boolean(), "came as Boolean"),
        ("integer", ["20141021"], pl.Date(), "came as Date, .* read the column as integers or"),
        ("boolean", ["true"], pl.Datetime("us"), "came as Datetime"),
        (
            "time",
            [DAY, f"{DAY}.1234"],
            pl.Datetime("ms"),
            "in which that is '2014-.* 00:00:00.123'",
        ),
        (
            "time",
            [f"{DAY}.0000004"],
            pl.Datetime("us", "UTC"),
            "in which that is '2014-.* 00:00:00'",
        ),
    ],
)
def test_a_type_that_loses_values_is_named(kind, values, column, lost):
    with pytest.raises(InputError, match=f"'x' .*{lost}"):
        check_type(Field("x", ("", *values), kind), column)


@pytest.mark.parametrize(
    ("kind", "values", "columns"),
    [
        ("text", ["a", "5", "2.5", "NaN", "inf"], [pl.Int64(), pl.Float64(), pl.String()]),
        ("text", ["a", "true"], [pl.Boolean()]),
        ("text", ["a", DAY, "12:00:00"], [pl.Date(), pl.Datetime("ns"), pl.Time()]),
        ("text", [], [pl.Int64(), pl.Boolean(), pl.Date()]),
        ("integer", ["3", "300"], [pl.Int8(), pl.Float32(), pl.Boolean(), pl.Decimal(10, 2)]),
        ("integer", [str(2**64 - 1)], [pl.Float64(), pl.UInt64()]),
        ("float", ["0.1", "5"], [pl.Float32(), pl.Float64(), pl.Int64(), pl.Decimal(10, 2)]),
        ("boolean", ["true", "false"], [pl.Boolean(), pl.Int8(), pl.Float64()]),
        ("time", [DAY], [pl.Date(), pl.Datetime("ms", "UTC"), pl.String()]),
        ("time", [f"{DAY}.123456"], [pl.Datetime("us"), pl.Datetime("ns")]),
        ("numeric", ["5"], [pl.Float32(), pl.Boolean()]),
    ],
)
def test_types_that_hold_the_values(kind, values, columns):
    for column in columns:
        check_type(Field("x", ("", *values), kind), column)


def schema_of(*values, kind="text"):
    return Schema("click", (Field("x", values, kind),))


@pytest.mark.parametrize(
    "rows",
    [
        {"x": [1.1, 2]},
        {"x": [7, "abc"]},
        {"x": np.array([7, "abc"], object)},
        {"x": 7},
        [{"x": "abc"}, {"x": 7}],
        pd.DataFrame({"x": pd.Categorical([7, None])}),
        pl.LazyFrame({"x": [7]}),
    ],
)
def test_rows_of_every_container_are_checked(rows):
    with pytest.raises(InputError, match=r"'x' has the value '007'|'x' has the value '1\.10'"):
        encode(schema_of("007", "1.10", "abc"), rows)


@pytest.mark.parametrize("rows", [{"x": [None, None]}, {"x": [float("nan")]}, {"x": np.nan}])
def test_a_column_of_nothing_has_no_type(rows):
    assert set(encode(schema_of("007", "yes"), rows).ravel()) == {2}


def write_parts(folder, *columns):
    paths = [folder / f"{place}.parquet" for place in range(len(columns))]
    for path, values in zip(paths, columns, strict=True):
        column = pl.Series("x", values)
        column = pl.concat([column] * 10)
        pl.DataFrame([column, pl.Series("click", [0, 1] * (len(column) // 2))]).write_parquet(path)
    return formats.table(*paths, label="click", categorical=["x"])


DAYS = [dt.date(2014, 1, 1), dt.date(2014, 1, 2)]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (([7, 12], ["007", "012"]), "0.parquet: 'x' has the value '0.*' and came as Int64"),
        ((["1.1", "1.10"], [1.1, 1.2]), "1.parquet: 'x' has the value '1.10'"),
        ((DAYS, [16071, 16072]), "1.parquet: 'x' is Int64 here, and times or numbers in another"),
        (([1.0, 2.0**60], [1, 2**60 + 1]), "0.parquet: 'x' has the value '1152921504606846977'"),
    ],
)
def test_parts_that_spell_a_value_differently_are_named(tmp_path, parts, message):
    log = write_parts(tmp_path, *parts)
    with pytest.raises(InputError, match=message):
        prepare(log, tmp_path / "store", min_count=1, split="test")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("parts", "kind", "values"),
    [
        (([1, 0], [True, False], [1.0, None]), "boolean", ("true", "false", "")),
        (([1, 2], ["1", "2"], [1.0, None]), "integer", ("1", "2", "")),
        ((["007", "7"], [None, float("nan")]), "text", ("", "007", "7")),
    ],
)
def test_parts_of_types_that_mean_the_same(tmp_path, parts, kind, values):
    prepare(write_parts(tmp_path, *parts), tmp_path / "store", min_count=1, split="test")
    (field,) = open_store(tmp_path / "store").schema.fields
    assert (field.kind, field.values) == (kind, values)


def test_the_next_days_log_is_checked_before_it_is_read(tmp_path):
    log = write_parts(tmp_path, [7, 12])
    with pytest.raises(InputError, match=r"0\.parquet: 'x' has the value '007'"):
        prepare(log, tmp_path / "store", split="test", schema=schema_of("007", "12"))
    assert not (tmp_path / "store").exists()


COUNTRIES = ["NA", "US", "DE"]


def country_csv():
    return io.StringIO("x,y\n" + "".join(f"{country},1\n" for country in COUNTRIES))


def test_a_word_that_pandas_drops_is_said():
    with pytest.warns(
        LostWordWarning, match="'x' has rows without a value here and none with 'NA'"
    ):
        encode(schema_of(*COUNTRIES), pd.read_csv(country_csv()))
    with pytest.warns(LostWordWarning):
        encode(schema_of(*COUNTRIES, ""), {"x": ["US"] * 90 + [None] * 10})


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        (COUNTRIES, {"x": ["NA", "US", None]}),
        ([*COUNTRIES, ""], {"x": [None, "US"]}),
        (["US", "DE"], {"x": [None, "US"]}),
        (COUNTRIES, pd.read_csv(country_csv(), keep_default_na=False)),
    ],
)
def test_rows_without_a_value_are_no_lost_words(values, rows):
    encode(schema_of(*values), rows)  # warnings are errors in tests
