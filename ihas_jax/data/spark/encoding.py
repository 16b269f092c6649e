"""The second pass over a part of a log: its rows as ids, into Parquet."""

from __future__ import annotations

import io
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import polars as pl

from ihas_jax.data.raw.encoder import Encoder
from ihas_jax.data.schema import Schema
from ihas_jax.data.spark.parts import Part
from ihas_jax.data.spark.splitters import Splitter
from ihas_jax.data.split import SPLITS
from ihas_jax.files import fingerprints

FILE_ROWS = 1 << 20
_GROUP_ROWS = 1 << 17


class Encoded(NamedTuple):
    """What a part holds.

    Attributes:
      rows: [3], rows per split.
      clicks: [3], rows with label 1 per split.
      others: [N], rows whose value is "other", per field.
      sums: The checksum of each file, by its name below the folder.
    """

    rows: np.ndarray
    clicks: np.ndarray
    others: np.ndarray
    sums: dict[str, int]


def encode_part(folder: Path, splitter: Splitter, part: Part) -> Encoded:
    """Writes the rows of a part to files of each split, in their order.

    The files of all parts, sorted by their names, have the rows in the order of the log. A file has
    `FILE_ROWS` rows or little more.

    Args:
      folder: Holds schema.json, and a folder for each split.
      splitter: Puts the rows into splits.
      part: The part.

    Raises:
      InputError: A value can't be spelled.
    """
    path = folder / "schema.json"
    schema, encoder = _open(path, *fingerprints([path]))
    files = [_Files(folder / name, part.number, schema) for name in SPLITS]
    clicks = np.zeros(len(SPLITS), np.int64)
    others = np.zeros(len(schema.fields), np.int64)
    for chunk, splits in splitter(part):
        ids = encoder.look_up(chunk.columns)
        for split, own in enumerate(files):
            own.append(ids[splits == split], chunk.labels[splits == split])
        clicks += np.bincount(splits[chunk.labels == 1], minlength=len(SPLITS))
        others += (ids == np.array(schema.sizes) - 1).sum(0)
    rows = np.array([file.close() for file in files])
    sums = {f"{file.folder.name}/{n}": known for file in files for n, known in file.sums.items()}
    return Encoded(rows, clicks, others, sums)


@lru_cache(maxsize=1)
def _open(path: Path, _state: tuple[int, ...]) -> tuple[Schema, Encoder]:
    """A schema and its encoder, which a process makes once for a file and its state."""
    schema = Schema.load(path)
    return schema, Encoder(schema)


class _Files:
    """The files of a part in one split; there is at least one, perhaps without rows.

    Attributes:
      folder: The folder of the split.
      sums: The checksum of each file, by its name.
    """

    def __init__(self, folder: Path, part: int, schema: Schema) -> None:
        self.folder, self._part, self._schema = folder, part, schema
        self.sums: dict[str, int] = {}
        self._ids: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._waiting = self._rows = 0

    def append(self, ids: np.ndarray, labels: np.ndarray) -> None:
        """Adds rows: ids [n, N], labels [n]."""
        self._ids.append(ids)
        self._labels.append(labels)
        self._waiting += len(labels)
        if self._waiting >= FILE_ROWS:
            self._write()

    def close(self) -> int:
        """Writes the rest, and returns the number of all rows."""
        if self._waiting or not self.sums:
            self._write()
        return self._rows

    def _write(self) -> None:
        ids = np.concatenate([np.zeros((0, len(self._schema.names)), np.int32), *self._ids])
        labels = np.concatenate([np.zeros(0, np.uint8), *self._labels]).astype(np.int8)
        columns = [pl.Series(self._schema.label, labels)]
        columns += [pl.Series(n, ids[:, f]) for f, n in enumerate(self._schema.names)]
        name = f"part-{self._part:06}-{len(self.sums):06}.parquet"
        content = io.BytesIO()
        pl.DataFrame(columns).write_parquet(content, row_group_size=_GROUP_ROWS)
        # another attempt at the same part, which may still run, writes the same
        partial = self.folder / f".{name}.{uuid4().hex}"
        partial.write_bytes(content.getbuffer())
        partial.rename(self.folder / name)
        self.sums[name] = zlib.crc32(content.getbuffer())
        self._rows += len(labels)
        self._ids, self._labels, self._waiting = [], [], 0
