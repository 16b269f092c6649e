"""Files of raw rows for a model: the ids of its fields, the label if there is one, kept columns."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ihas_jax.data.raw import formats
from ihas_jax.data.raw.encoder import Encoder
from ihas_jax.data.raw.logs import Log, screen
from ihas_jax.data.raw.movielens import MOVIELENS_COLUMNS, MOVIELENS_FIELDS, MovieLensLog
from ihas_jax.data.raw.prefetch import prefetch
from ihas_jax.data.raw.text_files import first_record
from ihas_jax.data.schema import Schema
from ihas_jax.errors import InputError
from ihas_jax.files import fingerprints


@dataclass(frozen=True, eq=False)
class RowBatch:
    """Some usable rows of files, in their order.

    Attributes:
      ids: [n, N] int32, by the schema of the model.
      labels: [n] uint8, 0 or 1; None where no label is read.
      kept: The columns to keep, each [n].
      bad: The number of rows among them that were skipped.
      complaint: What is wrong with the first of these rows, and where it is.
      share: The share of the files read so far, in (0, 1].
    """

    ids: np.ndarray
    labels: np.ndarray | None
    kept: tuple[pl.Series, ...]
    bad: int
    complaint: str | None
    share: float


@dataclass(frozen=True, eq=False)
class RowFiles:
    """Files of raw rows; `open_rows` makes it.

    Attributes:
      log: The files as a log whose fields are those of the model.
      schema: The vocabularies of the model.
      label: The column of the label, or None if no label is read.
      kept: The type of each column to keep, by name.
    """

    log: Log
    schema: Schema
    label: str | None
    kept: Mapping[str, pl.DataType]

    def batches(self) -> Iterator[RowBatch]:
        """Reads the files in bounded memory; a thread reads ahead.

        Raises:
          InputError: A file cannot be read, or changed while it was being read.
        """
        states = fingerprints(self.log.paths)
        yield from prefetch(self._read())
        if fingerprints(self.log.paths) != states:
            raise InputError(f"{self.log.name} changed while it was being read; predict it again")

    def _read(self) -> Iterator[RowBatch]:
        encoder = Encoder(self.schema)
        used = (*([self.label] if self.label else []), *self.schema.names)
        for rows in self.log.read(tuple(dict.fromkeys((*used, *self.kept)))):
            found = screen(self.log, rows, used)
            yield RowBatch(
                encoder.look_up(found.texts(self.log.fields)),
                found.labels(self.label) if self.label else None,
                tuple(
                    rows.frame[name].filter(found.rows).cast(kind)
                    for name, kind in self.kept.items()
                ),
                len(found.bad),
                found.complaint,
                rows.share,
            )


def open_rows(
    paths: Sequence[Path],
    schema: Schema,
    *,
    label: str | None = None,
    labelled: bool = True,
    keep: Sequence[str] = (),
    separator: str = ",",
) -> RowFiles:
    """Opens files of raw rows, in the formats of `ihas_jax.data.raw.formats`.

    Lines of 40 or 39 columns (without a label) are read as Criteo's, and a zip as MovieLens-1M, if
    the fields are those of that log; a first line that names a field is a header. All other files
    are tables with a header, or Parquet.

    Args:
      paths: The files; columns may have any order, and those without a use are ignored.
      schema: The vocabularies of a model.
      label: The column of the label; by default the one of the schema if the files have it.
      labelled: Whether a label is read at all.
      keep: Columns to hand through as they are.
      separator: The character between the columns of a CSV.

    Raises:
      InputError: A column is missing, its type cannot hold its field, a column to keep is named
        twice or differs in type between the files, or a file cannot be read.
    """
    if twice := next((name for name in keep if keep.count(name) > 1), None):
        raise InputError(f"the column {twice!r} is to be kept twice; name it once")
    paths = tuple(paths)
    fields = tuple((field.name, field.rule) for field in schema.fields)
    first = next((path for path in paths if path.is_file() and path.stat().st_size), paths[0])
    criteo = _criteo_columns(first, schema.names)
    movielens = set(schema.names) <= set(MOVIELENS_FIELDS) and zipfile.is_zipfile(first)
    if criteo:
        columns, name = criteo, label or "label"
    elif movielens:
        columns, name = MOVIELENS_COLUMNS, label or "liked"
    else:
        columns, name = formats.columns_of(*paths, separator=separator), label or schema.label
    read = labelled and (label is not None or name in columns)
    values = (*schema.names, *([name] if read else []))
    log: Log
    if criteo or movielens:
        formats.require_columns(first, columns, (*values, *keep))
    if criteo:
        log = formats.TextLog(paths, name, fields, criteo, "\t", False, missing=schema.missing)
    elif movielens:
        log = MovieLensLog(paths, name, fields, missing=schema.missing)
    else:
        log = formats.open_table(
            paths, name, fields, values, kept=keep, missing=schema.missing, separator=separator
        )
    log.check(schema)
    return RowFiles(log, schema, name if read else None, _kinds(log, keep))


def _criteo_columns(path: Path, names: Sequence[str]) -> tuple[str, ...] | None:
    """The columns of a file whose lines are Criteo's; None for any other file."""
    fields = tuple(name for name, _ in formats.CRITEO_FIELDS)
    if not set(names) <= set(fields) or not path.is_file() or formats.is_parquet(path):
        return None
    values = first_record(path).decode(errors="replace").split("\t")
    if set(values) & set(names):
        return None
    return {40: ("label", *fields), 39: fields}.get(len(values))


def _kinds(log: Log, names: Sequence[str]) -> dict[str, pl.DataType]:
    """The types of columns: those of Parquet, and text elsewhere.

    Raises:
      InputError: A column has not the same type in all files.
    """
    kinds: dict[str, pl.DataType] = {}
    for path in log.paths if isinstance(log, formats.ParquetLog) and names else ():
        own = pl.read_parquet_schema(path) if path.stat().st_size else {}
        for name in names if own else ():
            kind = own.get(name, pl.String())
            if kinds.setdefault(name, kind) != kind:
                raise InputError(
                    f"{path}: {name!r} is {kind} here and {kinds[name]} in {log.paths[0]}; to keep "
                    "the column, write it as one type in all files"
                )
    return {name: kinds.get(name, pl.String()) for name in names}
