"""The canonical spelling of raw values.

A category is the same whether it comes as the text "3", the number 3.0 or an object of Python.
So every raw value takes two steps, when a log is prepared and when a model predicts:

    texts.as_text   a column of any type -> text, null for a missing value
    spell           text, and the kind of the field -> the spelling in the vocabulary

`vocabulary.find_kind` finds the kind of a field when a log is prepared, and the schema stores it.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import polars as pl

from ihas_jax.data.raw.texts import EXACT, as_text, float_text
from ihas_jax.data.raw.times import parse_times, read_time
from ihas_jax.data.schema import CategoryKind, FieldKind

MISSING_WORDS = ("", "nan", "na", "n/a", "<na>", "none", "nat", "null")
"""Words, in lower case, that mean a missing value in a column of numbers, truth values or times."""
NO_NUMBER = "NULL"
"""The spelling of a missing number, in fields of the kinds numeric and quantile."""

_TRUTHS = ("True", "TRUE", "true", "False", "FALSE", "false")
_X, _NUMBER = pl.col("x"), pl.col("number")
_ABSENT = (_X.is_null() | (_X == "")).alias("absent")
_IS_WORD = _X.str.to_lowercase().is_in(MISSING_WORDS).fill_null(False)
_ODD = (_X.str.ends_with(".0") | _X.str.ends_with("00") | _X.is_in((*_TRUTHS, "-0"))).fill_null(
    False
)
_FINITE = pl.when(_NUMBER.is_finite()).then(_NUMBER)
_TRUTH = pl.when(_X.is_in(_TRUTHS[:3])).then(1.0).when(_X.is_in(_TRUTHS[3:])).then(0.0)


def spell(
    texts: pl.Series,
    kind: FieldKind,
    *,
    missing: tuple[str, ...] = (),
    edges: tuple[float, ...] = (),
) -> pl.Series:
    """The canonical spelling of text in a field of a kind; spelling it again changes nothing.

    A missing category is the empty text, a missing number is `NO_NUMBER`.

    - text: unchanged, except that "3.0" is "3", "-0" is "0", and "True" and "TRUE" are "true".
    - integer: by value: "3.0", "+3", "03" and "3e0" are "3", true is "1".
    - float: by value, as `as_text` writes it.
    - boolean: "true" for the words and for 1, "false" for the words and for 0.
    - time: by value, "2014-10-21 23:00:00", in UTC; a time without a zone is taken as UTC.
    - numeric: the code of the log-square rule. quantile: the name of the bin, see `bin_names`.

    Text that is not of the kind is an unknown category and stays unchanged.

    Args:
      texts: The result of `as_text`, or the values of a text file.
      kind: The kind of the field.
      missing: Words that mean a missing value in this log; words of the kind are compared by value.
      edges: The inner edges of the bins of a quantile field.

    Returns:
      Text, null where there is no spelling: for what is no number in a numeric or quantile field,
      and for a float of 2^53 or more, which stands for several integers, in an integer field.
    """
    words = pl.Series("x", missing, dtype=pl.String)
    if missing:
        texts = _without(texts, words)
    if kind == "text":
        spelled = _spell_text(texts)
        return _without(spelled, _spell_text(words)).fill_null("") if missing else spelled
    # each step uses the columns of the step before, so that nothing is computed twice
    frame = texts.alias("x").to_frame()
    if kind == "time":
        frame = frame.select("x", _ABSENT | _IS_WORD, number=read_time(_X))
        known = words.to_frame().select(read_time(_X)).to_series()
    else:
        frame = _with_number(frame)
        known = read_numbers(words)
    if missing:
        lost = _NUMBER.is_in(known.drop_nulls().implode())
        frame = frame.with_columns(pl.col("absent") | lost.fill_null(False))
    return frame.select(_spelling(kind, edges)).to_series().alias(texts.name)


def read_numbers(texts: pl.Series) -> pl.Series:
    """Reads text as Float64, null where it is no finite number; true and false are 1 and 0."""
    return _with_number(texts.alias("x").to_frame())["number"]


def read_times(texts: pl.Series, pattern: str | None = None) -> tuple[pl.Series, pl.Series]:
    """Reads text as numbers and as times, to sort rows by them.

    Args:
      texts: Whole numbers, other numbers, or times of ISO 8601.
      pattern: The format of times that are not ISO 8601, in the letters of strftime.

    Returns:
      Numbers, and text that sorts in the order of time; both are null for other text.

    Raises:
      InputError: The pattern cannot be used.
    """
    if pattern is not None:
        nothing = pl.Series([None], dtype=pl.Int128).new_from_index(0, len(texts))
        return nothing, as_text(parse_times(texts, pattern))
    # whole numbers first: nanoseconds since 1970 have more digits than a Float64
    numbers = texts.cast(pl.Int128, strict=False)
    if numbers.null_count():
        numbers = read_numbers(texts)
    return numbers, texts.alias("x").to_frame().select(read_time(_X)).to_series()


def bin_names(edges: tuple[float, ...]) -> list[str]:
    """The names of the bins between ascending edges; a bin includes its lower edge."""
    if not edges:
        return ["any number"]
    shown = as_text(pl.Series(edges, dtype=pl.Float64)).to_list()
    inner = [f"{low} to below {high}" for low, high in pairwise(shown)]
    return [f"below {shown[0]}", *inner, f"{shown[-1]} or more"]


def fits_kind(texts: pl.Series, kind: CategoryKind) -> bool:
    """Whether all text except missing words can be read as the kind without losing anything.

    Numbers with leading zeros, such as "007", are text.
    """
    frame = texts.alias("x").to_frame()
    frame = frame.filter(~_X.str.to_lowercase().is_in(MISSING_WORDS))
    if kind == "boolean":
        fits = _X.is_in(_TRUTHS) | _X.str.contains(r"^[01](?:\.0+)?$")
    elif kind == "integer":
        fits = _X.str.contains(r"^-?(?:0|[1-9]\d*|(?:0|[1-9]\d{0,14})\.0+)$")
    elif kind == "float":
        frame = _with_number(frame)
        fits = pl.col("number").is_not_null() & _X.str.contains(
            r"^-?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$"
        )
    else:
        fits = pl.lit(True) if kind == "text" else read_time(_X).is_not_null()
    return bool(frame.select(fits.all()).item())


def _without(texts: pl.Series, words: pl.Series) -> pl.Series:
    """Replaces the words by null."""
    kept = pl.when(~_X.is_in(words.implode())).then(_X)
    return texts.alias("x").to_frame().select(kept.alias(texts.name)).to_series()


def _spell_text(texts: pl.Series) -> pl.Series:
    """Spells text of the kind text; a series that is spelled already is returned itself."""
    frame = texts.alias("x").to_frame()
    odd = frame.select(_ODD).to_series()
    if odd.any():
        some = frame.filter(odd)
        plain = some.select(_plain(_X)).to_series()
        if (plain != some["x"]).any():
            texts = texts.clone().scatter(odd.arg_true(), plain)
    return texts.fill_null("") if texts.null_count() else texts


def _plain(text: pl.Expr) -> pl.Expr:
    """Writes whole floats as integers, -0 as 0 and truth values in lower case."""
    whole = text.str.replace(r"^(-?(?:0|[1-9]\d{0,14}))\.0+$", "$1").replace("-0", "0")
    return pl.when(text.is_in(_TRUTHS)).then(text.str.to_lowercase()).otherwise(whole)


def _with_number(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds the Float64 `number` of the text `x`, finite or null, and whether `x` is `absent`."""
    frame = frame.with_columns(_X.cast(pl.Float64, strict=False).alias("number"), _ABSENT)
    frame = frame.with_columns(_FINITE)
    if frame["number"].null_count() > frame["absent"].sum():  # there are words
        number = _TRUTH.otherwise(_NUMBER).alias("number")
        frame = frame.with_columns(number, pl.col("absent") | _IS_WORD)
    return frame


@lru_cache(maxsize=1024)
def _spelling(kind: FieldKind, edges: tuple[float, ...]) -> pl.Expr:
    """The spelling of the text `x`; the column `number` has its number or time, or null."""
    nothing = pl.lit(NO_NUMBER if kind in ("numeric", "quantile") else "")
    return pl.when("absent").then(nothing).otherwise(_code(kind, edges))


def _code(kind: FieldKind, edges: tuple[float, ...]) -> pl.Expr:
    """The spelling of the text `x` where it is not missing."""
    if kind == "time":
        return pl.coalesce(_NUMBER, _X)
    if kind == "numeric":
        return _log_square(_NUMBER)
    if kind == "quantile":
        place = pl.lit(pl.Series(edges, dtype=pl.Float64)).search_sorted(
            _NUMBER.fill_null(0.0), side="right"
        )
        names = pl.lit(pl.Series(bin_names(edges), dtype=pl.String))
        return pl.when(_NUMBER.is_not_null()).then(names.gather(place))
    if kind == "float":
        return pl.when(_NUMBER.is_null()).then(_X).otherwise(float_text(_NUMBER))
    if kind == "boolean":
        true = pl.when(_NUMBER == 1).then(pl.lit("true"))
        return true.when(_NUMBER == 0).then(pl.lit("false")).otherwise(_X)
    integer = _NUMBER.cast(pl.Int64, strict=False).cast(pl.String)
    return (
        pl.when(_X.str.contains(r"^[+-]?\d+$"))
        .then(_X.str.replace(r"^\+?(-?)0*(\d+)$", "$1$2").replace("-0", "0"))
        .when(_NUMBER.is_null() | (_NUMBER.round() != _NUMBER))
        .then(_X)
        .when(_NUMBER.abs() < EXACT)
        .then(integer)
    )


def _log_square(number: pl.Expr) -> pl.Expr:
    """Numbers as categories by the rule of Criteo's winning entry, as in pytorch-fm.

    The code of a number with the integer part v is `int(ln(v)^2)` where v > 2, and v - 2 elsewhere.
    No ln(v)^2 of an integer below 2^31 comes within 1e-11 of an integer, so every machine truncates
    alike.
    """
    v = number.cast(pl.Int64, strict=False)
    squashed = (v.cast(pl.Float64).fill_null(number).log() ** 2).cast(pl.Int64, strict=False)
    code = pl.when(number >= 3).then(squashed).otherwise(v - 2).cast(pl.String)
    # beyond 64 bits a negative number is its own code
    return pl.when(number < -(2.0**63)).then(number.cast(pl.String)).otherwise(code)
