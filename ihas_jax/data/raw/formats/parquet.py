"""A log in Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs

from ihas_jax.data.raw.columns import apart, check_type
from ihas_jax.data.raw.logs import START, Log, Position, Rows
from ihas_jax.data.raw.parts import folder_values
from ihas_jax.data.raw.texts import as_text
from ihas_jax.data.schema import Schema
from ihas_jax.errors import InputError

_MAGIC = b"PAR1"
_BATCH_ROWS = 1 << 17
_NOWHERE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class ParquetLog(Log):
    """A log in Parquet files."""

    def read(
        self, names: Sequence[str], start: Position = START, stop: Position | None = None
    ) -> Iterator[Rows]:
        """Reads the log, see `Log.read`."""
        totals = [count_rows(path) for path in self.paths]
        if not any(totals):
            return
        stop = stop or Position(len(self.paths))
        for file in range(start.file, min(stop.file + 1, len(self.paths))):
            path, done = self.paths[file], start.offset if file == start.file else 0
            end_row = stop.offset if file == stop.file else totals[file]
            try:
                for frame in self._scan(path, done, end_row, names) if done < end_row else ():
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

    def _scan(
        self, path: Path, first: int, stop: int, names: Sequence[str]
    ) -> Iterator[pl.DataFrame]:
        scan = pl.scan_parquet(path, glob=False).slice(first, stop - first)
        folders = folder_values(path, scan.collect_schema().names())
        # cs.by_name: Polars takes plain names such as "*" and "^a$" for patterns
        scan = scan.with_columns(folders).select(cs.by_name(*names))
        return scan.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True)


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does."""
    with path.open("rb") as file:
        return file.read(4) == _MAGIC


def parquet_columns(path: Path) -> tuple[str, ...]:
    """The columns of a file.

    Raises:
      InputError: The file cannot be read.
    """
    try:
        return tuple(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _not_parquet(path, error) from None


def check_types(path: Path, names: list[str]) -> None:
    """Checks that some columns of a file can hold categories or numbers.

    Raises:
      InputError: A column cannot, such as one of lists.
    """
    if not path.stat().st_size:
        return
    schema = pl.read_parquet_schema(path)
    for name in names:
        try:
            as_text(pl.Series(name, [], dtype=schema.get(name, pl.String)))
        except InputError as error:
            raise InputError(f"{path}: {error}; or leave the column out") from None


def count_rows(path: Path) -> int:
    """The rows of a file; a file of 0 bytes has none.

    Raises:
      InputError: The file cannot be read.
    """
    try:
        if not path.stat().st_size:
            return 0
        return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _not_parquet(path, error) from None


def _not_parquet(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as Parquet: {error}")
