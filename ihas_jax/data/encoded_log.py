"""The rows of an encoded log, see `ihas_jax.data.encoded`, in chunks; their ids are checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs

from ihas_jax.data.encoded_files import (
    LABEL,
    check_sums,
    column_types,
    find_parts,
    load_schema,
    readable,
)
from ihas_jax.data.id_columns import check_columns, check_row_numbers, find_fields
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.split import SPLITS
from ihas_jax.errors import InputError
from ihas_jax.files import fingerprints

_ROWS = 1 << 17
_LARGEST = 1 << 28


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
          InputError: A split has no files, a file is no Parquet or disagrees with its checksum, a
            column holds no ids (see `ihas_jax.data.id_columns`), or an id or a label is out of
            range.
        """
        self._path = path
        self._parts = {name: find_parts(path, name) for name in SPLITS}
        every = [part for parts in self._parts.values() for part in parts]
        self._states = dict(zip(every, fingerprints(every), strict=True))
        check_sums(path, every)
        given = load_schema(path, fields)
        label = given.label if given else LABEL
        kinds = {part: column_types(part) for part in every}
        with readable(path):
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
            LABEL,
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
        with readable(self._path):
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
