"""Encoded logs of other engines: folders of Parquet whose columns are ids.

    train/*.parquet   (or train.parquet) and likewise valid and test: an integer column `label` of
                      0 and 1 (or of booleans), and one integer column of ids from 0 on for each
                      field
    schema.json       the vocabularies in the form of `Schema.save`; optional
    mapped/           a store of the rows, which opening a large folder makes

With a schema the label and the fields have its names, ids must be below its sizes, and other
columns are ignored. Without a schema every column must be a field, unless the user names the
fields.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.id_columns import check_columns, check_row_numbers, find_fields
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.schema_checks import check_schema
from ihas_jax.data.split import SPLITS
from ihas_jax.data.store import map_store, read_description
from ihas_jax.data.store_writer import StoreWriter, new_store
from ihas_jax.errors import InputError
from ihas_jax.files import fingerprints
from ihas_jax.progress import track

_LABEL = "label"
_ROWS = 1 << 17
_LARGEST = 1 << 28
_MEMORY_BYTES = 1 << 30
_MAPPED = "mapped"


class EncodedLog:
    """An encoded log, which is read in chunks of rows.

    Attributes:
      schema: The schema of the folder, or fields whose values are their ids as text.
      rows: Rows of each split.
    """

    def __init__(self, path: Path, fields: Sequence[str] = ()) -> None:
        """Finds the parts, and checks their columns and their ids.

        Args:
          path: The folder.
          fields: The columns of ids, in the order of the new schema; by default those of
            schema.json, or all columns except the label where there is no schema.json.

        Raises:
          InputError: A split has no files, a file is no Parquet, a column holds no ids (see
            `ihas_jax.data.id_columns`), or an id or a label is out of range.
        """
        self._path = path
        self._parts = {name: _find_parts(path, name) for name in SPLITS}
        every = [part for parts in self._parts.values() for part in parts]
        self._states = dict(zip(every, fingerprints(every), strict=True))
        given = _load_schema(path, fields)
        label = given.label if given else _LABEL
        kinds = {part: _kinds(part) for part in every}
        with _named(path):
            names = given.names if given else tuple(fields)
            names = names or find_fields(path, kinds, label)
            self._columns = (label, *names)
            check_columns(path, kinds, label, names)
            self.rows = tuple(self._count(name) for name in SPLITS)
            # as 64 bits take half the memory of 128
            wide = any(kind[name] == pl.UInt64 for kind in kinds.values() for name in names)
            self._integer = pl.Int128 if wide else pl.Int64
            largest = self._check_range(given.sizes if given else (_LARGEST,) * len(names))
            if not (given or fields):
                check_row_numbers(path, self._parts["train"], names, largest)
        self.schema = given or Schema(
            _LABEL,
            tuple(
                Field(name, tuple(map(str, range(top + 1))), "integer")
                for name, top in zip(names, largest, strict=True)
            ),
        )

    def chunks(self, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields ids [n, N] int32 and labels [n] uint8 of a split, in the order of its parts.

        Raises:
          InputError: A part cannot be read, or is not what it was when its ids were checked.
        """
        label, *fields = self._columns
        with _named(self._path):
            for part in self._parts[split]:
                scan = pl.scan_parquet(part, glob=False).select(cs.by_name(*self._columns))
                for frame in scan.collect_batches(chunk_size=_ROWS, maintain_order=True):
                    self._check_unchanged(part)
                    ids = frame.select(cs.by_name(*fields).cast(pl.Int32)).to_numpy(order="c")
                    yield ids, frame[label].cast(pl.UInt8).to_numpy()
                self._check_unchanged(part)

    def _check_unchanged(self, part: Path) -> None:
        if fingerprints([part]) != [self._states[part]]:
            raise InputError(f"{part} changed while it was being read; open it again")

    def _count(self, split: str) -> int:
        parts = (pl.scan_parquet(p, glob=False).select(pl.len()) for p in self._parts[split])
        return sum(frame.item() for frame in pl.collect_all(parts))

    def _check_range(self, sizes: Sequence[int]) -> list[int]:
        """The largest value of each field, over all parts."""
        # columns by their places: Polars takes names such as "^a$" for patterns
        places = {name: str(place) for place, name in enumerate(self._columns)}
        numbers = cs.by_name(*self._columns).cast(self._integer)
        every = pl.concat(
            pl.scan_parquet(part, glob=False).select(numbers).rename(places)
            for part in self._states
        )
        nulls, lowest, largest = pl.collect_all([every.null_count(), every.min(), every.max()])
        low, high = ([value or 0 for value in frame.row(0)] for frame in (lowest, largest))
        checked = zip(self._columns, (2, *sizes), nulls.row(0), low, high, strict=True)
        for name, size, missing, least, most in checked:
            if missing:
                first = self._find(name, cs.by_name(name).is_null())
                raise InputError(
                    f"{self._path}: {name!r} is missing in {missing} rows, the first of them "
                    f"{first}; each row needs an id (a field's last is for all values without "
                    "one), and a label"
                )
            if least < 0 or most >= size:
                wrong = least if least < 0 else most
                rule = f"{size} ids, of 0 to {size - 1}, are in schema.json"
                if name == self._columns[0]:
                    rule = "a label is 0 or 1"
                elif size == _LARGEST:
                    rule = (
                        "ids count from 0 without large gaps, since each needs a row of the "
                        "embedding table"
                    )
                place = self._find(name, cs.by_name(name).cast(self._integer) == wrong)
                raise InputError(f"{self._path}: {name!r} holds {wrong} in {place}; {rule}")
        return high[1:]

    def _find(self, name: str, wrong: pl.Expr) -> str:
        """The first row of all parts for which `wrong` is true."""
        for part in self._states:
            scan = pl.scan_parquet(part, glob=False).select(pl.arg_where(wrong).first())
            if (row := scan.collect().item()) is not None:
                return f"row {row} of {part.relative_to(self._path)}"
        raise InputError(f"{self._path} changed while it was being read; open it again")


def open_encoded(path: str | Path, fields: Sequence[str] = ()) -> Dataset:
    """Opens an encoded log in bounded memory.

    Up to 1 GiB of rows are read into memory. Shuffled rows of a larger log can't be read from
    Parquet, so a folder `mapped` in it gets a store of the same rows, whose files are mapped; it is
    made when the log is opened first, and again when the log has changed.

    Args:
      path: The folder.
      fields: The columns of ids, as for `EncodedLog`.

    Raises:
      InputError: As `EncodedLog` and its chunks, or the folder `mapped` cannot be written.
    """
    path = Path(path)
    mapped, states = path / _MAPPED, _states(path, fields)
    if mapped.exists():
        origin = read_description(mapped)["origin"]
        if origin == states:
            return map_store(mapped)
        if origin.keys() != states.keys():
            raise InputError(f"{mapped} is a store of another log; move it away")
        shutil.rmtree(mapped)
    log = EncodedLog(path, fields)
    if sum(log.rows) * len(log.schema.fields) * 4 <= _MEMORY_BYTES:
        return _read(log)
    try:
        return _convert(log, mapped, states)
    except InputError as error:
        raise InputError(
            f"{error}; rows of more than {_MEMORY_BYTES >> 30} GiB are stored there when they are "
            f"first opened; prepare.py encoded --input {path} stores them elsewhere"
        ) from None


def _read(log: EncodedLog) -> Dataset:
    """Reads an encoded log into memory."""
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


def convert_encoded(path: str | Path, output: str | Path, fields: Sequence[str] = ()) -> Dataset:
    """Makes a store of an encoded log in bounded memory, and opens it.

    Args:
      path: The folder.
      output: The store to make.
      fields: The columns of ids, as for `EncodedLog`.

    Raises:
      InputError: As `EncodedLog` and its chunks; or `output` exists or cannot be written.
    """
    return _convert(EncodedLog(Path(path), fields), Path(output), {"sources": [Path(path).name]})


def _convert(log: EncodedLog, output: Path, origin: Mapping[str, Any]) -> Dataset:
    with (
        new_store(output) as folder,
        StoreWriter(folder, log.schema, log.rows, origin) as writer,
        track("Converting", sum(log.rows)) as progress,
    ):
        for index, split in enumerate(SPLITS):
            for ids, labels in log.chunks(split):
                writer.append(index, ids, labels)
                progress.advance(len(ids))
    return map_store(output)


def _states(path: Path, fields: Sequence[str]) -> dict[str, Any]:
    """What the rows of an encoded log depend on: its files and their states; JSON-ready."""
    files = [*(part for name in SPLITS for part in _find_parts(path, name)), path / "schema.json"]
    names = [str(file.relative_to(path)) for file in files]
    states = [state and list(state) for state in fingerprints(files)]
    return {"encoded": dict(zip(names, states, strict=True)), "fields": list(fields)}


def _find_parts(path: Path, split: str) -> list[Path]:
    single = path / f"{split}.parquet"
    parts = [single] if single.is_file() else sorted((path / split).glob("*.parquet"))
    if not parts:
        raise InputError(f"{path} holds no {split}.parquet, and no {split}/*.parquet")
    return parts


def _load_schema(path: Path, fields: Sequence[str]) -> Schema | None:
    """The schema of the folder, or None; only the named fields are kept, if any are named."""
    if isinstance(fields, str):
        raise InputError(f"fields is the text {fields!r}; give a list of names, [{fields!r}]")
    if len(set(fields)) < len(fields):
        raise InputError(f"--fields names a column twice: {', '.join(fields)}")
    file = path / "schema.json"
    if not file.exists():
        if _LABEL in fields:
            raise InputError(f"--fields names {_LABEL!r}, which is the label")
        return None
    schema = Schema.load(file)
    try:
        check_schema(schema)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if strange := [name for name in fields if name not in schema.names]:
        raise InputError(
            f"--fields names {strange[0]!r}, which {file} does not have; its fields are "
            f"{', '.join(schema.names)}"
        )
    known = dict(zip(schema.names, schema.fields, strict=True))
    kept = tuple(known[name] for name in fields or schema.names)
    return Schema(schema.label, kept, schema.missing)


def _kinds(part: Path) -> dict[str, pl.DataType]:
    with _named(part):
        return dict(pl.read_parquet_schema(part))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turns errors of reading in the block into an InputError that names the path."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from None
