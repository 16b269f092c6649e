"""Columns of any type as text that depends on the values, not on their type."""

from __future__ import annotations

import polars as pl

from ihas_jax.data.raw.times import CLOCK
from ihas_jax.errors import InputError

EXACT = 2.0**53
"""The Float64 from which on a number may stand for several integers."""


def as_text(column: pl.Series) -> pl.Series:
    """Turns a column of any type into text that depends on the values, not on their type.

    Whole floats are written as integers (3.0 as "3"), and other floats with the fewest digits that
    identify them (a Float32 has the same text as the Float64 made of it). Truth values are "true"
    and "false". Times are in UTC. Times and decimals have no trailing zeros.

    Returns:
      Text of the column's length and name; null for nulls and NaN.

    Raises:
      InputError: As `check_column`.
    """
    name, column = column.name, check_column(column).alias("x")
    if column.dtype == pl.String:
        return column.alias(name)
    text = column.to_frame().select(text_of(pl.col("x"), column.dtype))
    return text.to_series().alias(name)


def check_column(column: pl.Series) -> pl.Series:
    """Checks a column, and returns it in a type that `text_of` takes.

    Raises:
      InputError: The column holds lists, structs, durations, other objects, or bytes that are
        not UTF-8.
    """
    name = column.name
    column = column.alias("x")  # a name such as "*" is a pattern in Polars
    if isinstance(column.dtype, pl.BaseExtension):
        column = column.ext.storage()
    kind = column.dtype
    if isinstance(kind, pl.List | pl.Array):
        raise InputError(
            f"{name!r} holds lists; write one value per row (explode the column), or join "
            "each list into one text, such as 'a|b'"
        )
    if kind.is_nested() or kind.is_object() or kind == pl.Duration:
        shown = f", such as {_short(column.drop_nulls()[0])}" if column.drop_nulls().len() else ""
        raise InputError(
            f"{name!r} holds values of the type {kind}{shown}; a category is text, a "
            "number, a truth value or a time"
        )
    if kind == pl.Float16:  # Polars writes it with the digits of a Float32
        column = pl.Series(column.to_numpy().astype(str)).cast(pl.Float64)
    if kind == pl.Binary:
        try:
            column = column.cast(pl.String)
        except pl.exceptions.ComputeError:
            texts = (value.decode(errors="ignore").encode() for value in column.drop_nulls())
            wrong = next(v for v, t in zip(column.drop_nulls(), texts, strict=True) if v != t)
            raise InputError(
                f"{name!r} holds the bytes {_short(wrong)}, which are not UTF-8 text"
            ) from None
    return column.alias(name)


def text_of(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """The text of a column of the type `kind`, by the rules of `as_text`."""
    if kind.is_float():
        return float_text(column.cast(pl.Float64).fill_nan(None))
    if kind.is_decimal():
        return _without_closing_zeros(column.cast(pl.String))
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if kind == pl.Date:
        column = column.cast(pl.Datetime("us"))
    if kind == pl.Date or kind == pl.Datetime:
        return _without_closing_zeros(column.dt.to_string(f"{CLOCK}%.9f"))
    return column.cast(pl.String)


def float_text(number: pl.Expr) -> pl.Expr:
    """The text of Float64; NaN does not occur."""
    exact = number.abs() < EXACT
    narrow = number.cast(pl.Float32)
    return (
        pl.when(exact & (number == number.round()))
        .then(number.cast(pl.Int64, strict=False).cast(pl.String))
        .when(exact & (narrow.cast(pl.Float64) == number))
        .then(narrow.cast(pl.String))
        .otherwise(number.cast(pl.String))
    )


def _without_closing_zeros(text: pl.Expr) -> pl.Expr:
    return text.str.replace(r"(\.\d*?)0+$", "$1").str.strip_suffix(".")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
