"""Encoded logs of other engines: folders of Parquet whose columns are ids.

    train/*.parquet   (or train.parquet) and likewise valid and test: an integer column `label` of
                      0 and 1, and one integer column of ids from 0 on for each field
    schema.json       the vocabularies in our form, where somebody has them

With a schema the label and the fields have its names, and ids must be below its sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.split import SPLITS
from ihas_jax.data.store import Dataset, Split, StoreWriter, new_store, open_store
from ihas_jax.data.versions import file_versions
from ihas_jax.errors import InputError
from ihas_jax.progress import track

_LABEL = "label"
_ROWS = 1 << 17
_LARGEST = 1 << 28


class EncodedLog:
    """An encoded log; it is read in chunks of rows.

    Attributes:
      schema: the given one, or fields whose values are their ids as text.
      rows: rows of each split.
    """

    def __init__(self, path: Path) -> None:
        """Finds the parts, and checks their columns and their ids.

        Raises:
          InputError: No parts of a split, no Parquet, other columns in some part, or a column
            that does not hold integers from 0 on.
        """
        self._path = path
        self._parts = {name: _find_parts(path, name) for name in SPLITS}
        every = [part for parts in self._parts.values() for part in parts]
        self._versions = dict(zip(every, file_versions(every), strict=True))
        given = Schema.load(path / "schema.json") if (path / "schema.json").exists() else None
        self._columns = (given.label, *given.names) if given else self._find_columns()
        for part in every:
            kinds = _kinds(part)
            for name in self._columns:
                if name not in kinds or not (kinds[name].is_integer() or kinds[name] == pl.Boolean):
                    raise InputError(f"{part} has no column {name!r} of integers")
        with _named(path):
            self.rows = tuple(self._count(name) for name in SPLITS)
            largest = self._check_range()
        self.schema = given or Schema(
            _LABEL,
            tuple(
                Field(name, tuple(map(str, range(top + 1))), "integer")
                for name, top in zip(self._columns[1:], largest[1:], strict=True)
            ),
        )
        for name, size, top in zip(self._columns[1:], self.schema.sizes, largest[1:], strict=True):
            if top >= size:
                raise InputError(f"{path}: {name!r} has id {top}, but schema.json only {size} ids")

    def chunks(self, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields ids [n, N] int32 and labels [n] uint8 of a split, in the order of its parts.

        Raises:
          InputError: A part cannot be read, or is not what it was when its ids were checked.
        """
        label, *fields = self._columns
        with _named(self._path):
            for part in self._parts[split]:
                scan = pl.scan_parquet(part, glob=False).select(self._columns)
                for frame in scan.collect_batches(chunk_size=_ROWS, maintain_order=True):
                    self._check_version(part)
                    ids = frame.select(pl.col(fields).cast(pl.Int32)).to_numpy(order="c")
                    yield ids, frame[label].cast(pl.UInt8).to_numpy()
                self._check_version(part)

    def _check_version(self, part: Path) -> None:
        if file_versions([part]) != [self._versions[part]]:
            raise InputError(f"{part} changed while it was being read; open it again")

    def _find_columns(self) -> tuple[str, ...]:
        """The label, and all columns of numbers of the first part."""
        first = self._parts["train"][0]
        numbers = [name for name, kind in _kinds(first).items() if kind.is_numeric()]
        fields = [name for name in numbers if name != _LABEL]
        if not fields:
            raise InputError(f"{first} has no columns of ids")
        return (_LABEL, *fields)

    def _count(self, split: str) -> int:
        parts = (pl.scan_parquet(p, glob=False).select(pl.len()) for p in self._parts[split])
        return sum(frame.item() for frame in pl.collect_all(parts))

    def _check_range(self) -> list[int]:
        """The largest value of each column, over all parts."""
        every = pl.concat(
            pl.scan_parquet(part, glob=False).select(pl.col(self._columns).cast(pl.Int64))
            for part in self._versions
        )
        nulls, lowest, largest = pl.collect_all([every.null_count(), every.min(), every.max()])
        low, high = ([value or 0 for value in frame.row(0)] for frame in (lowest, largest))
        for name, missing, least, most in zip(self._columns, nulls.row(0), low, high, strict=True):
            if missing:
                raise InputError(f"{self._path}: {name!r} is missing in {missing} rows")
            if least < 0 or most >= _LARGEST:
                raise InputError(
                    f"{self._path}: {name!r} holds {least if least < 0 else most}; ids count from "
                    "0 without large gaps, since each needs a row of the embedding table"
                )
        if high[0] > 1:
            raise InputError(f"{self._path}: {self._columns[0]!r} holds {high[0]}, not 0 or 1")
        return high


def open_encoded(path: Path) -> Dataset:
    """Reads an encoded log into memory.

    Raises:
      InputError: As `EncodedLog` and its chunks.
    """
    log = EncodedLog(path)
    splits = []
    for split, rows in zip(SPLITS, log.rows, strict=True):
        ids, done = np.empty((rows, len(log.schema.fields)), np.int32), 0
        labels = np.empty(rows, np.uint8)
        for some_ids, some_labels in log.chunks(split):
            part = slice(done, done + len(some_ids))
            ids[part], labels[part] = some_ids, some_labels
            done = part.stop
        splits.append(Split(ids, labels))
    return Dataset(log.schema, *splits)


def convert_encoded(path: Path, output: Path) -> Dataset:
    """Makes a store of an encoded log in bounded memory, and opens it.

    Raises:
      InputError: As `EncodedLog` and its chunks; or `output` exists or cannot be written.
    """
    log = EncodedLog(path)
    with (
        new_store(output) as folder,
        StoreWriter(folder, log.schema, log.rows, {"sources": [path.name]}) as writer,
        track("Converting", sum(log.rows)) as progress,
    ):
        for index, split in enumerate(SPLITS):
            for ids, labels in log.chunks(split):
                writer.append(index, ids, labels)
                progress.advance(len(ids))
    return open_store(output)


def _find_parts(path: Path, split: str) -> list[Path]:
    single = path / f"{split}.parquet"
    parts = [single] if single.is_file() else sorted((path / split).glob("*.parquet"))
    if not parts:
        raise InputError(f"{path} holds no {split}.parquet, and no {split}/*.parquet")
    return parts


def _kinds(part: Path) -> dict[str, pl.DataType]:
    with _named(part):
        return dict(pl.read_parquet_schema(part))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Names what cannot be read."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from None
