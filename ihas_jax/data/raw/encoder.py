"""From raw rows to ids, by the vocabularies of a schema."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from ihas_jax.data.drift import OtherShareWarning, describe_drift, find_drift
from ihas_jax.data.raw.canonical import spell
from ihas_jax.data.raw.columns import check_type, warn_of_lost_words, words_at_risk
from ihas_jax.data.raw.frames import read_columns
from ihas_jax.data.raw.logs import Coded
from ihas_jax.data.raw.memory import Memory
from ihas_jax.data.raw.texts import check_column, text_of
from ihas_jax.data.schema import Field, Schema
from ihas_jax.errors import InputError

_NOTHING = -1
_REASONS = {
    "integer": "a float too large to tell the integer; read the column as integers or text",
    "numeric": "not a number",
    "quantile": "not a number",
}


def encode(schema: Schema, rows: Any) -> np.ndarray:
    """Encodes raw rows in memory by the rules of `prepare`; see `Encoder`."""
    return Encoder(schema)(rows)


class Encoder:
    """Turns raw rows into ids; it holds look-up tables, so make it once and call it often.

    Values are compared by their canonical spelling (see `ihas_jax.data.raw.canonical`), so that the
    rows of the prepared log get the ids that `prepare` stored, whatever their container. A missing
    category or number has an id if it was frequent enough in that log. All values without an id
    get the "other" id of the field.
    """

    def __init__(self, schema: Schema) -> None:
        """Builds the look-up tables of a schema."""
        self._schema = schema
        self._fields = schema.fields
        self._values = [pl.Enum(tuple(field.values)) for field in schema.fields]
        # most categories are spelled already, and are found without spelling them
        self._known = {
            str(number): self._positions(number, pl.col(str(number)).fill_null(""))
            for number, field in enumerate(schema.fields)
            if field.rule == "category"
        }
        self._at_risk = [words_at_risk(field) for field in schema.fields]
        self._memory = Memory(schema.names, [bool(words) for words in self._at_risk])
        self._check_type = lru_cache(maxsize=None)(self._check_type_of)

    def __call__(self, rows: Any, *, judged: bool = True) -> np.ndarray:
        """Encodes raw rows.

        Warns with `OtherShareWarning` if a field looks wrong, and with `LostWordWarning` if a
        reader seems to have taken a value such as "NA" for a missing one.

        One row of text, numbers, truth values and None takes microseconds where its values were
        seen before, since an encoder remembers the values of single rows.

        Args:
          rows: A data frame of Polars (also lazy), pandas or PyArrow, a mapping of columns by
            name, one row as a mapping of scalars, or a list of such rows; other columns are
            ignored.
          judged: Whether `OtherShareWarning` may be raised; rows that are a part of many may not
            be typical.

        Returns:
          [n, N] int32, ids local to each field.

        Raises:
          InputError: The container is of another type, a column is missing, the columns differ in
            length, or a value can't be spelled: text in a field of numbers, a list, an object.
        """
        if isinstance(rows, Mapping) and (recalled := self._memory.recall(rows)):
            ids, unknown = recalled
            if unknown:
                ids[:, unknown] = self._encode(rows, unknown)
                self._memory.remember(rows, ids[0], unknown)
            return ids
        ids = self._encode(rows, range(len(self._fields)))
        shares = (ids == np.array(self._schema.sizes) - 1).mean(0) if len(ids) else ()
        if judged and len(ids) and (drifts := find_drift(self._schema, shares, len(ids))):
            warnings.warn(describe_drift(drifts), OtherShareWarning, stacklevel=3)
        return ids

    def _encode(self, rows: Any, numbers: Sequence[int]) -> np.ndarray:
        """The ids [n, M] int32 of M of the fields, by their numbers; see `__call__`."""
        names = [self._fields[number].name for number in numbers]
        columns = read_columns(rows, names, self._check_type)
        columns = [
            check_column(column).alias(str(number))
            for number, column in zip(numbers, columns, strict=True)
        ]
        texts = pl.DataFrame(columns).select(text_of(pl.col(c.name), c.dtype) for c in columns)
        found = texts.select(self._known[str(n)] for n in numbers if str(n) in self._known)
        ids = np.empty((len(columns[0]), len(columns)), np.int32)
        for place, number in enumerate(numbers):
            text, known = texts[str(number)], found.get_column(str(number), default=None)
            field = self._fields[number]
            warn_of_lost_words(field, text, self._at_risk[number], stacklevel=4)
            ids[:, place] = self._complete(number, text, known)
            _check(field, ids[:, place], text)
        return ids

    def look_up(self, columns: Sequence[Coded]) -> np.ndarray:
        """Returns the ids [n, N] int32 of the columns of a chunk; each value is looked up once.

        Raises:
          InputError: A value can't be spelled.
        """
        ids = np.empty((len(self._fields), len(columns[0].codes)), np.int32)
        # the last column may be the time, which is no field
        for number, (field, column, row) in enumerate(
            zip(self._fields, columns, ids, strict=False)
        ):
            known, name = None, str(number)
            if field.kind != "quantile":
                find = self._positions(number, pl.col(name).fill_null(""))
                if field.kind == "numeric":  # reading has spelled it
                    find = find.fill_null(field.other)
                known = column.values.alias(name).to_frame().select(find).to_series()
            np.take(self._complete(number, column.values, known), column.codes, out=row)
            if (row == _NOTHING).any():
                _check(field, row, column.values.gather(column.codes))
        return np.ascontiguousarray(ids.T)

    def _positions(self, number: int, spelled: pl.Expr) -> pl.Expr:
        """The ids of spelled values of a field, null for values without an id."""
        return spelled.cast(self._values[number], strict=False).to_physical().cast(pl.Int32)

    def _complete(self, number: int, texts: pl.Series, known: pl.Series | None) -> np.ndarray:
        """The ids [n] int32 of text, -1 where it has no spelling.

        `known` are the ids of text that needed no spelling, null for the rest; or None.
        """
        field = self._fields[number]
        if known is not None and not known.null_count():
            return known.to_numpy()
        odd = texts if known is None else texts.filter(known.is_null())
        spelled = spell(odd, field.kind, missing=self._schema.missing, edges=field.edges)
        if spelled is odd and known is not None:  # all of it was looked up already
            return known.fill_null(field.other).to_numpy()
        place = self._positions(number, pl.col("x")).fill_null(field.other)
        position = pl.when(pl.col("x").is_not_null()).then(place).otherwise(_NOTHING)
        found = spelled.alias("x").to_frame().select(position).to_series().to_numpy()
        if known is None:
            return found
        ids = known.fill_null(_NOTHING).to_numpy(writable=True)
        ids[known.is_null().to_numpy()] = found
        return ids

    def _check_type_of(self, name: str, kind: pl.DataType) -> None:
        """Raises: InputError: A column of the type can't hold the field."""
        check_type(self._fields[self._schema.names.index(name)], kind)


def _check(field: Field, ids: np.ndarray, texts: pl.Series) -> None:
    """Raises: InputError: A value has no spelling."""
    wrong = np.flatnonzero(ids == _NOTHING)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{field.name!r} is {texts[row]!r} in row {row}, counted from 0, which is "
            f"{_REASONS[field.kind]}"
        )
