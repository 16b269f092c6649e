"""A check that the type of a column can hold the values of a field.

Some types lose what text tells: as a number "007" is 7 and the version "1.10" is 1.1, a Float32
confuses integers of 2^24 or more, and times in milliseconds have no microseconds. Such a column
could be looked up without an error, but its rows would get the ids of other values.
"""

from __future__ import annotations

import warnings

import polars as pl

from ihas_jax.data.drift import FEWEST_ROWS
from ihas_jax.data.raw.canonical import read_times, spell
from ihas_jax.data.raw.texts import as_text
from ihas_jax.data.schema import Field
from ihas_jax.errors import InputError

_REMEDIES = {
    "text": "text",
    "integer": "integers or text",
    "float": "Float64 or text",
    "boolean": "truth values or text",
    "time": "times or text",
}
_TAKEN_FOR_MISSING = (
    *("NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "None"),
    *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
_CLOCK = r"^\d{2}:\d{2}:\d{2}"


def check_type(field: Field, kind: pl.DataType) -> None:
    """Checks that a column of the type `kind` can hold a field.

    Raises:
      InputError: None of the values of the field can be of that type, or the type changes a value.
    """
    typed = kind.is_numeric() or kind in (pl.Boolean, pl.Date, pl.Datetime, pl.Time)
    if field.rule != "category" or not typed:
        return
    values = pl.Series("x", tuple(field.values), dtype=pl.String)
    values = values.filter(values != "")
    if not len(values):
        return
    remedy = f"read the column as {_REMEDIES[field.kind]}"
    if not _can_be(values, field, kind):
        raise InputError(
            f"{field.name!r} came as {kind}, and none of its values, such as {values[0]!r}, is of "
            f"that type; {remedy}"
        )
    lost = None
    if isinstance(kind, pl.Datetime) and field.kind == "time":
        lost = _cut(values, kind)
    elif kind.is_numeric():
        lost = _lost(values, field, kind)
    if lost:
        raise InputError(
            f"{field.name!r} has the value {lost[0]!r} and came as {kind}, in which that is "
            f"{lost[1]!r}; {remedy}"
        )


class LostWordWarning(UserWarning):
    """Rows without a value may have had a word that a reader takes for a missing value."""


def words_at_risk(field: Field) -> list[str]:
    """The values of a text field, such as "NA", that a reader may take for a missing value.

    Fields of other kinds take such words for missing values anyway.
    """
    if field.kind != "text":
        return []
    values = pl.Series("x", tuple(field.values), dtype=pl.String)
    return values.filter(values.is_in(_TAKEN_FOR_MISSING)).to_list()


def warn_of_lost_words(field: Field, texts: pl.Series, words: list[str], stacklevel: int) -> None:
    """Warns where rows have no value and no row has one of the words at risk.

    A field with an id for missing values is judged only if there are `FEWEST_ROWS` rows or more.

    Args:
      field: A field of text.
      texts: The column as text, null for a missing value.
      words: The result of `words_at_risk`.
      stacklevel: The number of calls between the caller to name and this function.
    """
    if not words or not texts.null_count() or texts.is_in(words).any():
        return
    if len(texts) >= FEWEST_ROWS or "" not in field.values:
        warnings.warn(
            f"{field.name!r} has rows without a value here and none with {words[0]!r}, a value of "
            "the log; pandas.read_csv drops such words unless keep_default_na=False",
            LostWordWarning,
            stacklevel=stacklevel + 1,
        )


def apart(one: pl.DataType, other: pl.DataType) -> bool:
    """Whether one type has numbers and the other times, so that no value is of both."""
    return (one.is_numeric() and other.is_temporal()) or (one.is_temporal() and other.is_numeric())


def _can_be(values: pl.Series, field: Field, kind: pl.DataType) -> bool:
    """Whether any value of a field can come in the type; text is judged by its look."""
    if kind == pl.Boolean:
        return field.kind != "time" and (
            field.kind != "text" or bool(values.is_in(["true", "false"]).any())
        )
    if kind.is_numeric():
        return field.kind != "time"
    if field.kind == "text" and kind == pl.Time:
        return bool(values.str.contains(_CLOCK).any())
    if field.kind == "text":
        return read_times(values, None)[1].null_count() < len(values)
    return field.kind == "time" and kind != pl.Time


def _lost(values: pl.Series, field: Field, kind: pl.DataType) -> tuple[str, str] | None:
    """A value that a type of numbers changes, and the value that it becomes; or None."""
    if field.kind == "boolean" or (
        field.kind == "integer" and kind not in (pl.Float16, pl.Float32)
    ):
        return None  # a float that stands for several integers is an error when it is spelled
    texts = values.str.strip_chars()
    numbers = texts.cast(pl.Int128, strict=False)
    if not kind.is_integer():
        numbers = texts.cast(pl.Float64, strict=False).fill_nan(None)
        if kind.is_float():
            numbers = numbers.cast(kind)
    spelled = spell(as_text(numbers), field.kind)
    return _first_other(values, spelled.zip_with(numbers.is_not_null(), values))


def _cut(values: pl.Series, kind: pl.Datetime) -> tuple[str, str] | None:
    """A value with more digits than the resolution of the type, and the value that it becomes."""
    digits = {"ms": 3, "us": 6, "ns": 9}[kind.time_unit]
    return _first_other(values, spell(values.str.replace(rf"(\.\d{{{digits}}})\d+", "$1"), "time"))


def _first_other(values: pl.Series, spelled: pl.Series) -> tuple[str, str] | None:
    """The first value that differs from its spelling, and the spelling; or None."""
    other = (values != spelled).arg_true()
    return (values[other[0]], spelled[other[0]]) if len(other) else None
