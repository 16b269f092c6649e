"""Encoded logs of other engines: folders of Parquet whose columns are ids.

train/*.parquet   (or train.parquet) and likewise valid and test: an integer column `label` of
0 and 1, and one integer column of ids from 0 on for each field
schema.json       the vocabularies in our form, where somebody has them; the label and the
fields then have its names, and ids must be below its sizes
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.split import SPLITS
from ihas_jax.data.store import Dataset, Split, StoreWriter, new_store, open_store
from ihas_jax.errors import InputError
from ihas_jax.progress import track

_LABEL = "label"
_ROWS = 1 << 17


class EncodedLog:
    """An encoded log; it is read in chunks of rows."""

    def __init__(self, path: Path) -> None:
        """Finds the parts, checks their columns and, without a schema, the largest ids.

        Raises:
          InputError: No parts of a split, no Parquet, other columns in some part, or a column
            that does not hold integers from 0 on.
        """
        self._parts = {name: _find_parts(path, name) for name in SPLITS}
        first = self._parts["train"][0]
        names = _integers(first)
        given = Schema.load(path / "schema.json") if (path / "schema.json").exists() else None
        label = given.label if given else _LABEL
        fields = given.names if given else tuple(name for name in names if name != label)
        for part in (part for parts in self._parts.values() for part in parts):
            missing = [name for name in (label, *fields) if name not in _integers(part)]
            if missing:
                raise InputError(f"{part} has no column {missing[0]!r} of integers")
        self._columns = (label, *fields)
        self.rows = tuple(self._count(name) for name in SPLITS)
        lowest, largest = self._range(path)
        if min(lowest) < 0 or largest[0] > 1:
            raise InputError(f"{path}: ids must not be negative, and {label!r} must be 0 or 1")
        if given:
            for name, size, found in zip(fields, given.sizes, largest[1:], strict=True):
                if found >= size:
                    raise InputError(
                        f"{path}: {name!r} has id {found}, but schema.json only {size} ids"
                    )
        self.schema = given or Schema(
            label,
            tuple(
                Field(name, tuple(map(str, range(top + 1))))
                for name, top in zip(fields, largest[1:], strict=True)
            ),
        )

    def chunks(self, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields ids [n, N] int32 and labels [n] uint8 of a split, in the order of its parts."""
        label, *fields = self._columns
        for part in self._parts[split]:
            scan = pl.scan_parquet(part, glob=False).select(self._columns)
            for frame in scan.collect_batches(chunk_size=_ROWS, maintain_order=True):
                ids = frame.select(pl.col(fields).cast(pl.Int32)).to_numpy(order="c")
                yield ids, frame[label].cast(pl.UInt8).to_numpy()

    def _count(self, split: str) -> int:
        return int(pl.scan_parquet(self._parts[split]).select(pl.len()).collect().item())

    def _range(self, path: Path) -> tuple[list[int], list[int]]:
        """The lowest and the largest value of each column, over all parts."""
        every = pl.concat(
            pl.scan_parquet(part, glob=False).select(pl.col(self._columns).cast(pl.Int64))
            for parts in self._parts.values()
            for part in parts
        )
        nulls, lowest, largest = pl.collect_all([every.null_count(), every.min(), every.max()])
        for name, found in nulls.row(0, named=True).items():
            if found:
                raise InputError(f"{path}: {name!r} is missing in {found} rows")
        return [value or 0 for value in lowest.row(0)], [value or 0 for value in largest.row(0)]


def open_encoded(path: Path) -> Dataset:
    """Reads an encoded log into memory.

    Raises:
      InputError: As `EncodedLog`.
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
      InputError: As `EncodedLog`; or `output` exists or cannot be written.
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


def _integers(part: Path) -> list[str]:
    try:
        schema = pl.read_parquet_schema(part)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{part} cannot be read as Parquet: {error}") from None
    return [name for name, kind in schema.items() if kind.is_integer() or kind == pl.Boolean]
