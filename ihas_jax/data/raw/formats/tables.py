"""Any CSV or Parquet as a log."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ihas_jax.data.raw.formats.headers import require_columns, shared_header
from ihas_jax.data.raw.formats.parquet import ParquetLog, check_types
from ihas_jax.data.raw.formats.text import TextLog
from ihas_jax.data.raw.logs import Fields, Log
from ihas_jax.errors import InputError


def table(
    *paths: Path,
    label: str,
    categorical: Iterable[str] = (),
    numeric: Iterable[str] = (),
    quantile: Iterable[str] = (),
    time: str | None = None,
    time_format: str | None = None,
    missing: Iterable[str] = (),
    separator: str = ",",
) -> Log:
    """Any CSV with a header (plain or gzip) or Parquet; only the named columns are read.

    Each file may have its columns in an order of its own.

    Folders such as `dt=2014-10-21` directly above a file are columns too, unless the file has a
    column of that name.

    Args:
      paths: The files, all of one kind; Parquet is recognised by its first bytes. Files of 0
        bytes are skipped.
      label: The column that is 0 or 1 (also 1.0, true, TRUE).
      categorical: The columns whose values are categories.
      numeric: The columns of numbers that become categories by Criteo's log-square rule.
      quantile: The columns of numbers that become categories by bins of about equally many rows.
      time: The column with the time of a row, a number or a time of ISO 8601; it may also be the
        label or a field.
      time_format: The format of times that are not ISO 8601, in the letters of strftime.
      missing: Words that mean a missing value, in addition to the empty text.
      separator: The character between the columns of a CSV.

    Raises:
      InputError: A file does not exist, a column is missing or named twice, all files are empty,
        the files differ in kind or columns, or the separator is not one character of ASCII.
    """
    fields: Fields = (
        *((name, "category") for name in categorical),
        *((name, "numeric") for name in numeric),
        *((name, "quantile") for name in quantile),
    )
    wanted = [label, *(name for name, _ in fields)]
    for name in wanted:
        if wanted.count(name) > 1:
            raise InputError(f"the column {name!r} is named twice; name every column once")
    return open_table(
        paths,
        label,
        fields,
        [*wanted, *([time] if time else [])],
        time=time,
        time_format=time_format,
        missing=missing,
        separator=separator,
    )


def open_table(
    paths: tuple[Path, ...],
    label: str,
    fields: Fields,
    values: Iterable[str],
    *,
    kept: Iterable[str] = (),
    time: str | None = None,
    time_format: str | None = None,
    missing: Iterable[str] = (),
    separator: str = ",",
) -> Log:
    """A table as a log, see `table`; its label need not be there.

    The columns `values`, among them the fields, must be there and hold categories or numbers. The
    columns `kept` must be there, too, with values of any type.

    Raises:
      InputError: As `table`.
    """
    header = shared_header(paths, separator)
    values = dict.fromkeys(values)
    require_columns(
        paths[0],
        header.names,
        [*values, *kept],
        "" if header.parquet or len(header.own) > 1 else f"; does {separator!r} separate them?",
    )
    if not fields:
        raise InputError(f"no columns to use; name some of {', '.join(header.names)}")
    if header.parquet:
        for part in paths:
            check_types(part, list(values))
        return ParquetLog(
            paths, label, fields, time=time, time_format=time_format, missing=tuple(missing)
        )
    return TextLog(
        paths,
        label,
        fields,
        header.own,
        separator=separator,
        quoted=True,
        time=time,
        time_format=time_format,
        missing=tuple(missing),
    )
