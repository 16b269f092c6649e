"""Raw rows in memory, in one of several containers, as columns of Polars.

The containers are data frames of Polars (eager and lazy), pandas and PyArrow (or any object with
Arrow's C stream), a mapping of columns by name, one row as a mapping of scalars, and a list of such
rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

from ihas_jax.data.raw.texts import as_text
from ihas_jax.errors import InputError

_SCALARS = (str, int, float, bytes, bytearray, memoryview)
"""Types of one value, some of which are sequences; there are others."""
_ABSENT = ("NoneType", "NAType", "NaTType")
_INT64 = 1 << 63

Check = Callable[[str, pl.DataType], None]


def accept(name: str, kind: pl.DataType) -> None:
    """Accepts columns of every type."""


def read_columns(rows: Any, names: Sequence[str], check: Check = accept) -> list[pl.Series]:
    """Takes the named columns out of a container of raw rows.

    Args:
      rows: One of the containers above; columns that are not named are ignored.
      names: The columns to take.
      check: Called with the name and each type of the values of a column; it raises if the type is
        not allowed.

    Returns:
      One series per name, all of one length.

    Raises:
      InputError: The container is of another type, lacks a column or has it twice, or the columns
        differ in length, or a row lacks a column, or a value is no category.
    """
    columns = _find_columns(rows, names, check)
    for name, column in zip(names, columns, strict=True):
        _check_filled(name, column, check)
    return columns


def _check_filled(name: str, column: pl.Series, check: Check) -> None:
    """Checks the type of a column, unless it holds only nulls and NaN."""
    filled = column.drop_nans() if column.dtype.is_float() else column
    if filled.null_count() < len(filled):
        check(name, column.dtype)


def _find_columns(rows: Any, names: Sequence[str], check: Check) -> list[pl.Series]:
    if isinstance(rows, pl.LazyFrame):
        rows = _lazy_frame(rows, names)
    if isinstance(rows, Mapping):
        return _mapping_columns(rows, names, check)
    if _is_pandas(rows, "DataFrame"):
        found = [str(name) for name in rows.columns]
        _check_names(found, names)
        return [read_column(name, rows.iloc[:, found.index(name)], check) for name in names]
    if hasattr(rows, "__arrow_c_stream__") and not hasattr(rows, "to_list"):
        frame = rows if isinstance(rows, pl.DataFrame) else _arrow_frame(rows)
        _check_names(frame.columns, names)
        return [frame[name] for name in names]
    if isinstance(rows, list | tuple) and all(isinstance(row, Mapping) for row in rows):
        if rows:  # a batch without rows has no names either
            _check_names(list(dict.fromkeys(name for row in rows for name in row)), names)
        for number, row in enumerate(rows):
            if lacking := next((name for name in names if name not in row), None):
                raise InputError(
                    f"row {number}, counted from 0, lacks {lacking!r}; give every row each column, "
                    "with None where a value is missing"
                )
        return [read_column(name, [row[name] for row in rows], check) for name in names]
    raise InputError(
        f"raw rows of the type {type(rows).__name__} cannot be read; give a data frame of Polars, "
        "pandas or PyArrow, a dict of columns, one row as a dict of scalars, or a list of such rows"
    )


def _mapping_columns(
    rows: Mapping[str, Any], names: Sequence[str], check: Check
) -> list[pl.Series]:
    _check_names(list(rows), names)
    if is_row(rows, names):
        return [read_column(name, _one(rows[name]), check) for name in names]
    if single := next((name for name in names if not _is_column(rows[name])), None):
        several = next(name for name in names if _is_column(rows[name]))
        raise InputError(
            f"{single!r} is one value of the type {type(rows[single]).__name__}, and {several!r} a "
            "column; give either one row of scalars or columns of one length"
        )
    columns = [read_column(name, rows[name], check) for name in names]
    lengths = {column.name: len(column) for column in columns}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns differ in length: {lengths}")
    return columns


def is_row(item: Any, names: Iterable[str]) -> bool:
    """Whether an item is a mapping of scalars: none of those of the names that it has is a column.

    A value of a type that no category has makes no column of the mapping.
    """
    return isinstance(item, Mapping) and not any(
        _is_column(item[name]) for name in names if name in item
    )


def _is_column(value: Any) -> bool:
    """Whether a value in a mapping stands for all rows."""
    if isinstance(value, _SCALARS):
        return False
    arrow = hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")
    if arrow or isinstance(value, Sequence):
        return True
    return hasattr(value, "__array__") and getattr(value, "ndim", 1) > 0


def _one(value: Any) -> Any:
    """A scalar as a column of one row."""
    without_axes = hasattr(value, "__array__") and not isinstance(value, np.generic)
    return value[None] if without_axes else [value]


def _lazy_frame(rows: pl.LazyFrame, names: Sequence[str]) -> pl.DataFrame:
    try:
        _check_names(rows.collect_schema().names(), names)
        return rows.select(cs.by_name(*names)).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the lazy frame cannot be collected ({reason})") from error


def _arrow_frame(rows: Any) -> pl.DataFrame:
    try:
        return pl.DataFrame(rows)
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(f"raw rows cannot be read through Arrow ({error})") from None


def _check_names(found: Sequence[Any], names: Iterable[str]) -> None:
    for name in names:
        if name not in found:
            raise InputError(f"no column {name!r}; the columns are {', '.join(map(str, found))}")
        if found.count(name) > 1:
            raise InputError(f"there are two columns {name!r}; rename or drop one of them")


def _is_pandas(value: Any, *kinds: str) -> bool:
    """Whether a value is of a type of pandas; pandas is not imported for it."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, tuple(getattr(pandas, k) for k in kinds))


def read_column(name: str, values: Any, check: Check = accept) -> pl.Series:
    """Reads one column from a list, an array or a series of any type.

    A column of objects of several types becomes text, value by value; `check` is called for each
    type.

    Raises:
      InputError: `values` is of another type, or a value is no category.
    """
    if isinstance(values, pl.Series):
        return values.alias(name)
    if _is_pandas(values, "Series", "Index"):
        values = _pandas_values(values)
    elif hasattr(values, "__arrow_c_stream__") or hasattr(values, "__arrow_c_array__"):
        try:
            return pl.Series(name, values)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise InputError(f"{name!r} cannot be read through Arrow ({error})") from None
    if isinstance(values, np.ma.MaskedArray):
        values = values.tolist()
    elif hasattr(values, "__array__"):
        values = np.asarray(values)
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InputError(f"{name!r} has {values.ndim} axes; a column has one value per row")
        if values.dtype.kind in "biufmM":
            return pl.Series(name, _resolved(values))
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, _SCALARS):
        raise InputError(
            f"{name!r} is of the type {type(values).__name__}; a column is a list, an array or a "
            "series"
        )
    return _object_column(name, values, check)


def _pandas_values(values: Any) -> np.ndarray:
    """A pandas column as an array, of objects where NumPy lacks its type."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biufmM":
        return np.asarray(values)
    if hasattr(values.dtype, "tz"):
        return np.asarray(values.to_numpy(dtype="datetime64[ns]"))
    return np.asarray(values.to_numpy(dtype=object, na_value=None))


def _resolved(values: np.ndarray) -> np.ndarray:
    """Converts times to a resolution that Polars has."""
    if values.dtype.kind != "M" or np.datetime_data(values.dtype)[0] in ("D", "ms", "us", "ns"):
        return values
    return values.astype("datetime64[us]")


def _object_column(name: str, values: Sequence[Any], check: Check) -> pl.Series:
    """A column of Python objects, as text where they are of several types."""
    types = {kind for kind in set(map(type, values)) if kind.__name__ not in _ABSENT}
    if len(types) < len(set(map(type, values))):
        values = [None if type(value).__name__ in _ABSENT else value for value in values]
    if not types:
        return pl.Series(name, values, dtype=pl.String)
    if len(types) == 1:
        return _series(name, types.pop(), values)
    texts = np.full(len(values), None, object)
    for kind in types:
        places = [place for place, value in enumerate(values) if type(value) is kind]
        part = _series(name, kind, [values[place] for place in places])
        _check_filled(name, part, check)
        texts[places] = as_text(part).to_list()
    return pl.Series(name, texts.tolist(), dtype=pl.String)


def _series(name: str, kind: type, values: Sequence[Any]) -> pl.Series:
    """Values of one type, or None, as a series."""
    if issubclass(kind, str):
        values = [None if value is None else str.__str__(value) for value in values]
    elif issubclass(kind, int) and not issubclass(kind, bool):
        if any(value is not None and not -_INT64 <= value < _INT64 for value in values):
            values = [None if value is None else str(int(value)) for value in values]
    elif issubclass(kind, Decimal):
        values = [None if v is None or v.is_nan() else format(v.normalize(), "f") for v in values]
    elif hasattr(kind, "to_datetime64"):  # a time stamp of pandas has nanoseconds
        times = [np.datetime64("NaT", "ns") if v is None else v.to_datetime64() for v in values]
        return pl.Series(name, np.array(times, "datetime64[ns]"))
    elif issubclass(kind, np.floating | np.datetime64):
        nothing = np.datetime64("NaT", "s") if issubclass(kind, np.datetime64) else kind("nan")
        return read_column(name, np.array([nothing if v is None else v for v in values]))
    elif issubclass(kind, np.generic):
        values = [None if value is None else value.item() for value in values]
    try:
        column = pl.Series(name, values, strict=True)
    except UnicodeEncodeError as error:
        raise InputError(f"{name!r} holds {error.object!r}, which is not Unicode text") from None
    except (TypeError, ValueError, pl.exceptions.PolarsError):
        column = pl.Series(name, dtype=pl.Object)
    if column.dtype in (pl.Object, pl.Struct, pl.Duration):
        shown = repr(next(value for value in values if value is not None))[:40]
        raise InputError(
            f"{name!r} holds {shown} of the type {kind.__name__}; a category is text, a number, a "
            "truth value or a time"
        )
    return column
