"""One spelling of a value: raw columns of any type become text, and text its canonical spelling.

A category is the same whether it comes as the text "3", the number 3.0 or an object of Python.
So every raw value takes two steps, when a log is prepared and when a model predicts:

    as_text   a column of any type -> text, null where nothing is there
    spell     text, and the kind of the field -> the spelling that a vocabulary holds

The kind of a field is found in the log when it is prepared (see `kinds`) and kept in its schema.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl

from ihas_jax.data.schema import CategoryKind, FieldKind
from ihas_jax.errors import InputError

MISSING_WORDS = ("", "nan", "na", "n/a", "<na>", "none", "nat", "null")
"""Words, in lower case, that mean a missing value in a column of numbers, truth values or times."""
NO_NUMBER = "NULL"
"""The spelling of a missing number, in fields of the kinds numeric and quantile."""

_EXACT = 2.0**53
_TRUTHS = ("True", "TRUE", "true", "False", "FALSE", "false")
_TIME = (
    r"^(\d{4}-\d{2}-\d{2})(?:[ T](\d{2}:\d{2})(:\d{2})?(?:[.,](\d+))?"
    r"\s?(Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?)?$"
)


def as_text(column: pl.Series) -> pl.Series:
    """Turns a column of any type into text that says the value, not its type.

    Whole floats are written as integers (3.0 as "3"), other floats by the fewest digits that
    tell them apart (a Float32 and the Float64 made of it alike), truth values as "true" and
    "false", times in UTC to their last digit that is not zero, decimals without closing zeros.

    Returns:
      Text of the column's length and name; null for nulls and NaN.

    Raises:
      InputError: The column holds lists, structs, durations, other objects, or bytes that are
        not UTF-8.
    """
    kind = column.dtype
    if kind == pl.String:
        return column
    if kind.is_float():
        return _float_text(column)
    if kind == pl.Binary:
        return _decoded(column)
    if kind.is_decimal():
        text = column.cast(pl.String)
        return text.str.replace(r"(\.\d*?)0+$", "$1").str.strip_suffix(".")
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        return _time_text(column)
    if isinstance(kind, pl.List | pl.Array):
        raise InputError(
            f"{column.name!r} holds lists; write one value per row (explode the column), or join "
            "each list into one text, such as 'a|b'"
        )
    if kind.is_nested() or kind.is_object() or kind == pl.Duration:
        shown = f", such as {_short(column.drop_nulls()[0])}" if column.drop_nulls().len() else ""
        raise InputError(
            f"{column.name!r} holds values of the type {kind}{shown}; a category is text, a "
            "number, a truth value or a time"
        )
    return column.cast(pl.String)


def spell(
    texts: pl.Series,
    kind: FieldKind,
    *,
    missing: tuple[str, ...] = (),
    edges: tuple[float, ...] = (),
) -> pl.Series:
    """The canonical spelling of text in a field of a kind; a spelling is its own spelling.

    A missing category is the empty text, a missing number is `NO_NUMBER`.

    - text: as it is, but for "3.0", which is "3", and "True" and "TRUE", which are "true".
    - integer: by value: "3.0", "+3", "03" and "3e0" are "3", true is "1".
    - float: by value, as `as_text` writes it.
    - boolean: "true" for the words and for 1, "false" for the words and for 0.
    - time: by value, "2014-10-21 23:00:00", in UTC; a time without a zone is taken as UTC.
    - numeric: the code of `log_square`. quantile: the name of the bin, see `bin_names`.

    Text that is not of the kind is a category that the field does not know: it stays as it is.

    Args:
      texts: What `as_text` returned, or the values of a text file.
      kind: The field's.
      missing: Words that mean a missing value in this log.
      edges: The inner edges of a quantile field's bins.

    Returns:
      Text; null where there is no spelling: a numeric or quantile value that is not a number,
      or in an integer field a float from 2^53 on, which does not tell which integer it was.
    """
    if missing:
        texts = _where(texts.is_in(missing), None, texts)
    if kind == "text":
        return _plain(texts).fill_null("")
    absent = texts.is_null() | texts.str.to_lowercase().is_in(MISSING_WORDS)
    if kind in ("numeric", "quantile"):
        numbers = read_numbers(texts)
        codes = log_square(numbers) if kind == "numeric" else bin_numbers(numbers, edges)
        return _where(absent, NO_NUMBER, codes)
    spelled = {"integer": _integers, "float": _floats, "boolean": _truths, "time": _times}
    return _where(absent, "", spelled[kind](texts))


def read_numbers(texts: pl.Series) -> pl.Series:
    """Text as Float64, null where it is no finite number; true and false are 1 and 0."""
    numbers = _plain(texts).replace({"true": "1", "false": "0"}).cast(pl.Float64, strict=False)
    return _where(numbers.is_finite(), numbers, None)


def read_times(texts: pl.Series, pattern: str | None = None) -> tuple[pl.Series, pl.Series]:
    """Text as what tells the order of rows: as numbers, and as times.

    Args:
      texts: Whole numbers, other numbers, or times of ISO 8601.
      pattern: How times are written, in the letters of strftime, where they are not ISO 8601.

    Raises:
      InputError: The pattern cannot be used.

    Returns:
      Numbers, and text that sorts as the times do; null where a text is none.
    """
    if pattern is not None:
        nothing = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(texts))
        return nothing, _time_text(_parse_times(texts, pattern))
    # whole numbers first: nanoseconds since 1970 have more digits than a Float64
    numbers = texts.cast(pl.Int64, strict=False)
    if numbers.null_count():
        numbers = read_numbers(texts)
    return numbers, _read_times(texts)


def log_square(numbers: pl.Series) -> pl.Series:
    """The rule of Criteo's winning entry, as in pytorch-fm, for numbers as categories.

    Of a number the integer part v counts: `int(ln(v)^2)` where v > 2, v - 2 elsewhere. No ln(v)^2
    of an integer below 2^31 comes within 1e-11 of an integer, so every machine truncates alike.
    """
    frame = pl.DataFrame({"x": numbers}).with_columns(v=pl.col("x").cast(pl.Int64, strict=False))
    v, x = pl.col("v"), pl.col("x")
    squashed = (x.cast(pl.Int64, strict=False).cast(pl.Float64).fill_null(x).log() ** 2).cast(
        pl.Int64, strict=False
    )
    code = pl.when(x >= 3).then(squashed).otherwise(v - 2).cast(pl.String)
    # beyond 64 bits a negative number is its own code
    return frame.select(pl.when(x < -(2.0**63)).then(x.cast(pl.String)).otherwise(code)).to_series()


def bin_numbers(numbers: pl.Series, edges: tuple[float, ...]) -> pl.Series:
    """The names of the bins that numbers fall into; null for null."""
    places = np.searchsorted(np.asarray(edges), numbers.fill_null(0.0).to_numpy(), side="right")
    named = pl.Series(bin_names(edges), dtype=pl.String).gather(places)
    return _where(numbers.is_null(), None, named)


def bin_names(edges: tuple[float, ...]) -> list[str]:
    """What the bins between ascending edges are called; a bin holds its lower edge."""
    if not edges:
        return ["any number"]
    shown = as_text(pl.Series(edges, dtype=pl.Float64)).to_list()
    inner = [f"{low} to below {high}" for low, high in pairwise(shown)]
    return [f"below {shown[0]}", *inner, f"{shown[-1]} or more"]


def fits_kind(texts: pl.Series, kind: CategoryKind) -> bool:
    """Whether all text, missing words aside, can be read as the kind without losing anything.

    Numbers with leading zeros, such as "007", are text.
    """
    texts = texts.filter(~texts.str.to_lowercase().is_in(MISSING_WORDS))
    if kind == "boolean":
        return bool(texts.is_in(_TRUTHS).all())
    if kind == "integer":
        return bool(texts.str.contains(r"^-?(?:0|[1-9]\d*|(?:0|[1-9]\d{0,14})\.0+)$").all())
    if kind == "float":
        pattern = r"^-?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$"
        return bool(texts.str.contains(pattern).all()) and not read_numbers(texts).null_count()
    if kind == "time":
        return not _read_times(texts).null_count()
    return True


def _where(mask: pl.Series, then: pl.Series | str | None, otherwise: pl.Series | None) -> pl.Series:
    """`then` where the mask is true, `otherwise` where it is false or null."""
    return pl.select(pl.when(mask).then(pl.lit(then)).otherwise(pl.lit(otherwise))).to_series()


def _plain(texts: pl.Series) -> pl.Series:
    """Text with whole floats as integers and truth values in lower case."""
    texts = texts.str.replace(r"^(-?(?:0|[1-9]\d{0,14}))\.0+$", "$1")
    return _where(texts.is_in(_TRUTHS), texts.str.to_lowercase(), texts)


def _integers(texts: pl.Series) -> pl.Series:
    digits = _plain(texts).replace({"true": "1", "false": "0"})
    digits = digits.str.replace(r"^\+?(-?)0*(\d+)$", "$1$2").replace({"-0": "0"})
    other = ~digits.str.contains(r"^-?\d+$")
    if not other.any():
        return digits
    numbers = _where(other, digits, None).cast(pl.Float64, strict=False)
    whole = numbers.is_finite() & (numbers == numbers.round())
    digits = _where(whole, numbers.cast(pl.Int64, strict=False).cast(pl.String), digits)
    return _where(whole & (numbers.abs() >= _EXACT), None, digits)


def _floats(texts: pl.Series) -> pl.Series:
    numbers = read_numbers(texts)
    return _where(numbers.is_null(), texts, _float_text(numbers))


def _truths(texts: pl.Series) -> pl.Series:
    numbers = read_numbers(texts.str.to_lowercase())
    return _where(numbers == 1, "true", _where(numbers == 0, "false", texts))


def _times(texts: pl.Series) -> pl.Series:
    times = _read_times(texts)
    return _where(times.is_null(), texts, times)


def _read_times(texts: pl.Series) -> pl.Series:
    """Times of ISO 8601, with a blank or a T, in UTC; null where text is none."""
    parts = texts.str.extract_groups(_TIME).struct.unnest()
    day, minute, second, fraction, zone = (parts[name] for name in parts.columns)
    clock = minute.fill_null("00:00") + second.fill_null(":00")
    local = (day + " " + clock).str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
    signed = zone.str.extract_groups(r"^([+-])(\d{2}):?(\d{2})?$").struct.unnest()
    sign, hours, minutes = (signed[name] for name in signed.columns)
    offset = hours.cast(pl.Int64) * 60 + minutes.fill_null("0").cast(pl.Int64)
    offset = _where(sign == "-", -offset, offset).fill_null(0)
    utc = local - (offset * 60_000_000).cast(pl.Duration("us"))
    fraction = ("." + fraction.str.strip_chars_end("0")).replace({".": ""}).fill_null("")
    return utc.dt.to_string("%Y-%m-%d %H:%M:%S") + fraction


def _parse_times(texts: pl.Series, pattern: str) -> pl.Series:
    """Times by a pattern of strftime, null where text does not fit."""
    if "%M" not in pattern and any(hour in pattern for hour in ("%H", "%I")):
        texts, pattern = texts + "|00", f"{pattern}|%M"  # Polars reads no hour without minutes
    try:
        return texts.str.strptime(pl.Datetime("us"), pattern, strict=False)
    except pl.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"--time-format {pattern!r} cannot be used ({reason})") from None


def _time_text(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    elif column.dtype.time_zone is not None:  # type: ignore[attr-defined]
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    text = column.dt.to_string("%Y-%m-%d %H:%M:%S%.9f")
    return text.str.replace(r"(\.\d*?)0+$", "$1").str.strip_suffix(".")


def _float_text(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Float16:  # Polars writes it with the digits of a Float32
        column = pl.Series(column.name, column.to_numpy().astype(str)).cast(pl.Float64)
    numbers = column.cast(pl.Float64).fill_nan(None)
    exact = numbers.abs() < _EXACT
    narrow = numbers.cast(pl.Float32)
    text = numbers.cast(pl.String)
    text = _where(exact & (narrow.cast(pl.Float64) == numbers), narrow.cast(pl.String), text)
    whole = exact & (numbers == numbers.round())
    return _where(whole, numbers.cast(pl.Int64, strict=False).cast(pl.String), text)


def _decoded(column: pl.Series) -> pl.Series:
    try:
        return column.cast(pl.String)
    except pl.exceptions.ComputeError:
        wrong = next(v for v in column.drop_nulls() if v.decode(errors="ignore").encode() != v)
        raise InputError(
            f"{column.name!r} holds the bytes {_short(wrong)}, which are not UTF-8 text"
        ) from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
