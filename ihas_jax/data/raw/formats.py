"""The readable formats of raw click logs: Criteo, Avazu, MovieLens-1M, and any CSV or Parquet.

Each function returns a small frozen `Log`, ready for `ihas_jax.data.raw.ingest.prepare`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs

from ihas_jax.data.raw.canonical import as_text
from ihas_jax.data.raw.columns import apart, check_type
from ihas_jax.data.raw.logs import START, Fields, Log, Position, Rows
from ihas_jax.data.raw.movielens import MOVIELENS_FIELDS, MovieLensLog
from ihas_jax.data.raw.parts import folder_columns
from ihas_jax.data.raw.prefetch import prefetch
from ihas_jax.data.raw.records import Block, read_blocks, read_header, require_file
from ihas_jax.data.schema import Schema
from ihas_jax.errors import InputError

CRITEO_FIELDS: Fields = (
    *((f"I{i}", "numeric") for i in range(1, 14)),
    *((f"C{i}", "category") for i in range(1, 27)),
)
AVAZU_FIELDS = (
    *("hour", "C1", "banner_pos", "site_id", "site_domain", "site_category"),
    *("app_id", "app_domain", "app_category", "device_id", "device_ip", "device_model"),
    *("device_type", "device_conn_type", *(f"C{i}" for i in range(14, 22))),
)

_PARQUET_MAGIC = b"PAR1"
_PARQUET_ROWS = 1 << 17
_NOWHERE = np.zeros(0, np.int64)


def criteo(*paths: Path) -> Log:
    """Criteo's `train.txt`: tab separated, no header, a label, I1 to I13, C1 to C26."""
    names = ("label", *(name for name, _ in CRITEO_FIELDS))
    return TextLog(paths, "label", CRITEO_FIELDS, names, separator="\t", quoted=False)


def avazu(*paths: Path) -> Log:
    """Avazu's `train.csv`: a header; the 22 columns from `hour` on are fields, `id` is not."""
    return table(*paths, label="click", categorical=AVAZU_FIELDS, time="hour")


def movielens(path: Path) -> Log:
    """MovieLens-1M as published, `ml-1m.zip`: a rating above 3 is a click."""
    fields: Fields = tuple((name, "category") for name in MOVIELENS_FIELDS)
    return MovieLensLog((path,), "liked", fields, time="time")


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
        the files differ in kind or header, or the separator is not one character of ASCII.
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
    parquet, own, names = _shared_columns(paths, separator)
    values = dict.fromkeys(values)
    require_columns(
        paths[0],
        names,
        [*values, *kept],
        "" if parquet or len(own) > 1 else f"; does {separator!r} separate them?",
    )
    if not fields:
        raise InputError(f"no columns to use; name some of {', '.join(names)}")
    if parquet:
        for part in paths:
            _check_types(part, list(values))
        return ParquetLog(
            paths, label, fields, time=time, time_format=time_format, missing=tuple(missing)
        )
    return TextLog(
        paths,
        label,
        fields,
        own,
        separator=separator,
        quoted=True,
        time=time,
        time_format=time_format,
        missing=tuple(missing),
    )


def require_columns(
    path: Path, found: Sequence[str], wanted: Iterable[str], hint: str = ""
) -> None:
    """Raises: InputError: a file lacks some of the wanted columns, or has one of them twice."""
    wanted = dict.fromkeys(wanted)
    if lacking := [repr(name) for name in wanted if name not in found]:
        columns = "columns" if len(lacking) > 1 else "column"
        raise InputError(
            f"{path} has no {columns} {', '.join(lacking)}; its columns are {', '.join(found)}"
            f"{hint}"
        )
    if twice := next((name for name in wanted if found.count(name) > 1), None):
        raise InputError(f"{path} has two columns {twice!r}; rename one of them")


def columns_of(*paths: Path, separator: str = ",") -> tuple[str, ...]:
    """The columns that `table` finds: the columns in the files, then the names of their folders.

    Raises:
      InputError: As `table`.
    """
    return _shared_columns(paths, separator)[2]


def _shared_columns(
    paths: tuple[Path, ...], separator: str
) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
    """Whether the files are Parquet, the columns in the files, and these with the folders'."""
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n':
        raise InputError(
            f"--separator is {separator!r}; it must be one character of ASCII, not a double quote "
            "or a line end"
        )
    first = None
    for path in paths:
        if (columns := _columns(path, separator)) is None:
            continue
        found = (*columns, tuple(folder_columns(path)))
        first = first or (path, found)
        if found[2] != first[1][2]:
            raise InputError(
                f"{path} and {first[0]} lie in folders that name other columns "
                f"({', '.join(found[2]) or 'none'}, and {', '.join(first[1][2]) or 'none'}); they "
                "are not one log"
            )
        if found != first[1]:
            raise InputError(_difference(path, found, *first))
    if first is None:
        raise _all_empty(paths)
    parquet, own, folders = first[1]
    return parquet, own, (*own, *(name for name in folders if name not in own))


_Columns = tuple[bool, tuple[str, ...], tuple[str, ...]]
"""Whether a file is Parquet, its columns, and those of its folders."""


def _difference(path: Path, found: _Columns, other: Path, of_other: _Columns) -> str:
    """What is wrong with two files that are not read together."""
    if found[0] != of_other[0]:
        return f"one of {path} and {other} is Parquet and the other is text; give each in a call"
    if sorted(found[1]) == sorted(of_other[1]):
        return (
            f"{path} has the columns of {other} in another order; write them in one order, or give "
            "each file in a call of its own"
        )
    return f"{path} has other columns than {other}; they are not one log"


@dataclass(frozen=True)
class TextLog(Log):
    """A log of lines; `columns` are the names of all columns of a line, in order."""

    columns: tuple[str, ...]
    separator: str
    quoted: bool

    def read(self, names: Sequence[str], start: Position = START) -> Iterator[Rows]:
        """Reads the log, see `Log.read`; a quoted file begins with a header."""
        for path in self.paths:
            require_file(path)
        sizes = [path.stat().st_size for path in self.paths]
        if not any(sizes):
            raise _all_empty(self.paths)
        for file in range(start.file, len(self.paths)):
            blocks = read_blocks(
                self.paths[file],
                columns=len(self.columns),
                separator=self.separator,
                quoted=self.quoted,
                header=self.quoted,
                start=start[1:] if file == start.file else START[1:],
            )
            path = self.paths[file]
            parsed = ((b, self._parse(path, b, names)) for b in blocks)
            for block, frame in prefetch(parsed):
                if not (block.lines.size or block.bad.size):
                    continue
                share = (sum(sizes[:file]) + block.share * sizes[file]) / sum(sizes)
                end = Position(file, *block.end)
                yield Rows(frame, block.lines, block.bad, block.complaint, share, end, str(path))

    def _parse(self, path: Path, block: Block, names: Sequence[str]) -> pl.DataFrame:
        """Columns of a block, including the columns that its folders name."""
        read = {f"column_{i}": name for i, name in enumerate(self.columns, 1) if name in names}
        read = read or {"column_1": self.columns[0]}
        places = {f"column_{i}": pl.String for i in range(1, len(self.columns) + 1)}
        if not block.text:
            return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
        try:
            raw = pl.read_csv(
                block.text,
                has_header=False,
                separator=self.separator,
                quote_char='"' if self.quoted else None,
                schema=places,
                columns=list(read),
                empty_string_is_null=False,
            )
            if raw.height != len(block.lines):
                raise ValueError(f"{len(block.lines)} records were read as {raw.height} rows")
        except (pl.exceptions.PolarsError, ValueError) as error:
            raise InputError(
                f"{path}: cannot read the block of lines that starts at {block.lines[0]}, "
                f"look for stray quotes and line ends there ({error})"
            ) from None
        raw = raw.rename(read).with_columns(_folder_values(path, self.columns))
        return raw.select(cs.by_name(*names))


@dataclass(frozen=True)
class ParquetLog(Log):
    """A log in Parquet files."""

    def read(self, names: Sequence[str], start: Position = START) -> Iterator[Rows]:
        """Reads the log, see `Log.read`."""
        totals = [_parquet_rows(path) for path in self.paths]
        if not any(totals):
            return
        for file in range(start.file, len(self.paths)):
            path, done = self.paths[file], start.offset if file == start.file else 0
            try:
                for frame in self._scan(path, done, names) if totals[file] else ():
                    places = np.arange(done + 1, done + frame.height + 1)
                    done += frame.height
                    share = (sum(totals[:file]) + done) / sum(totals)
                    end = Position(file, done, done)
                    yield Rows(frame, places, _NOWHERE, None, share, end, str(path), "row")
            except (pl.exceptions.PolarsError, OSError) as error:
                raise _not_parquet(path, error) from None

    def check(self, schema: Schema) -> None:
        """Checks the types, see `Log.check`; a column without values may have any type."""
        passed = set[tuple[str, pl.DataType]]()
        for path in self.paths:
            kinds = pl.read_parquet_schema(path) if path.stat().st_size else {}
            for field in schema.fields:
                kind = kinds.get(field.name, pl.String())
                if (field.name, kind) in passed:
                    continue
                before = (other for name, other in passed if name == field.name)
                try:
                    check_type(field, kind)
                    if field.kind == "text" and any(apart(kind, other) for other in before):
                        raise InputError(
                            f"{field.name!r} is {kind} here, and times or numbers in another part; "
                            "write it as one type in all parts"
                        )
                    passed.add((field.name, kind))
                except InputError as error:
                    scan = pl.scan_parquet(path, glob=False).select(cs.by_name(field.name))
                    column = as_text(scan.collect().to_series())
                    if column.null_count() < len(column):
                        raise InputError(f"{path}: {error}") from None

    def _scan(self, path: Path, skipped: int, names: Sequence[str]) -> Iterator[pl.DataFrame]:
        scan = pl.scan_parquet(path, glob=False).slice(skipped)
        folders = _folder_values(path, scan.collect_schema().names())
        # cs.by_name: Polars takes plain names such as "*" and "^a$" for patterns
        scan = scan.with_columns(folders).select(cs.by_name(*names))
        return scan.collect_batches(chunk_size=_PARQUET_ROWS, maintain_order=True)


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does."""
    with path.open("rb") as file:
        return file.read(4) == _PARQUET_MAGIC


def _all_empty(paths: tuple[Path, ...]) -> InputError:
    more = f", and so are the other {len(paths) - 1} files" if len(paths) > 1 else ""
    return InputError(f"{paths[0]} is empty{more}")


def _folder_values(path: Path, own: Iterable[str]) -> list[pl.Expr]:
    """The columns that the folders of a file name and the file itself lacks."""
    folders = folder_columns(path).items()
    return [pl.lit(value, pl.String).alias(name) for name, value in folders if name not in own]


def _parquet_rows(path: Path) -> int:
    try:
        if not path.stat().st_size:
            return 0
        return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _not_parquet(path, error) from None


def _not_parquet(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as Parquet: {error}")


def _columns(path: Path, separator: str) -> tuple[bool, tuple[str, ...]] | None:
    """Whether a file is Parquet, and the names of its columns; None if the file is empty."""
    require_file(path)
    parquet = is_parquet(path)
    names = _parquet_columns(path) if parquet else read_header(path, separator)
    return (parquet, names) if names else None


def _check_types(path: Path, names: list[str]) -> None:
    """Raises: InputError: The values of a column are no categories."""
    if not path.stat().st_size:
        return
    schema = pl.read_parquet_schema(path)
    for name in names:
        try:
            as_text(pl.Series(name, [], dtype=schema.get(name, pl.String)))
        except InputError as error:
            raise InputError(f"{path}: {error}; or leave the column out") from None


def _parquet_columns(path: Path) -> tuple[str, ...]:
    try:
        return tuple(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _not_parquet(path, error) from None
