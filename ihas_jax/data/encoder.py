"""From raw columns to ids, by the vocabularies of a schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from ihas_jax.data.logs import Coded, Fields, field_text
from ihas_jax.data.schema import Schema
from ihas_jax.errors import InputError

Raw = pl.DataFrame | Mapping[str, Sequence[object]]


def encode(schema: Schema, frame: Raw) -> np.ndarray:
    """Encodes raw columns in memory, by the rule of `prepare`; see `Encoder`."""
    return Encoder(schema)(frame)


class Encoder:
    """Turns raw columns into ids; keeps the vocabularies ready, so make it once and call it often.

    The rows of the log that a schema was counted on get the ids that `prepare` stored. So a
    missing category (None) is the empty string, which has an id of its own where the log had it
    often enough, and a missing number is the code "NULL". All values without an id of their
    own, and numbers that are none, get the field's "other".
    """

    def __init__(self, schema: Schema) -> None:
        """Builds the look-up tables of a schema."""
        self._kinds: Fields = tuple((field.name, field.kind) for field in schema.fields)
        self._ids = [
            pl.col(field.name)
            .cast(pl.Enum(field.values), strict=False)
            .to_physical()
            .cast(pl.Int32)
            .fill_null(field.other)
            for field in schema.fields
        ]

    def __call__(self, frame: Raw) -> np.ndarray:
        """Encodes raw columns.

        Args:
          frame: A data frame, or lists by column name; other columns are ignored.

        Returns:
          [n, N] int32, ids local to each field.

        Raises:
          InputError: A column is missing, or the columns differ in length.
        """
        columns = frame.columns if isinstance(frame, pl.DataFrame) else list(frame)
        names = [name for name, _ in self._kinds]
        for name in names:
            if name not in columns:
                raise InputError(f"no column {name!r}; the columns are {', '.join(columns)}")
        if not isinstance(frame, pl.DataFrame):
            lengths = {name: len(frame[name]) for name in names}
            if len(set(lengths.values())) > 1:
                raise InputError(f"the columns differ in length: {lengths}")
            frame = pl.DataFrame({n: pl.Series(n, frame[n], strict=False) for n in names})
        text = (field_text(*field) for field in self._kinds)
        return frame.lazy().select(text).select(self._ids).collect().to_numpy(order="c")

    def look_up(self, columns: Sequence[Coded]) -> np.ndarray:
        """Returns the ids [n, N] int32 of a chunk's columns, found once for each value."""
        ids = np.empty((len(self._kinds), len(columns[0].codes)), np.int32)
        # a column that is no field, the time, may stand at the end
        for (name, _), expression, column, row in zip(
            self._kinds, self._ids, columns, ids, strict=False
        ):
            table = column.values.to_frame(name).select(expression).to_series().to_numpy()
            np.take(table, column.codes, out=row)
        return np.ascontiguousarray(ids.T)
