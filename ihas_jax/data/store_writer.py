"""Writing the encoded log to disk, see `ihas_jax.data.store`.

A store is written under another name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from ihas_jax.data.dataset import Dataset
from ihas_jax.data.schema import Schema
from ihas_jax.data.split import SPLITS
from ihas_jax.data.store import STORE_VERSION
from ihas_jax.errors import InputError
from ihas_jax.files import digest, lock_folder, write_text

_ARRAYS = tuple(f"{split}.{part}.npy" for split in SPLITS for part in ("ids", "labels"))
_TEXTS = ("schema.json", "store.json")
_FILES = frozenset((*_ARRAYS, *_TEXTS, *(f".{name}.partial" for name in _TEXTS)))


def save_dataset(
    dataset: Dataset, path: str | Path, origin: Mapping[str, Any] | None = None
) -> None:
    """Writes a data set in memory as a store; `origin` says where the data came from.

    Raises:
      InputError: `path` exists, another process is writing it, or a value is not of the schema.
    """
    dataset.check()
    splits = (dataset.train, dataset.valid, dataset.test)
    rows = [len(split.labels) for split in splits]
    with new_store(path) as folder, StoreWriter(folder, dataset.schema, rows, origin or {}) as out:
        for index, split in enumerate(splits):
            out.append(index, split.ids, split.labels)


@contextmanager
def new_store(
    path: str | Path,
    kept: str | None = None,
    folders: Sequence[str] = (),
    files: Sequence[str] = (),
) -> Iterator[Path]:
    """Yields an empty folder, which gets the name `path` when the block ends without an error.

    A block that fails, or a process that is killed, leaves nothing under `path`. The next process
    that writes to `path` removes the files that a killed process has left beside it.

    Args:
      path: The store to make.
      kept: A folder inside that is never emptied, so that the next process finds its files.
      folders: Folders inside that are deleted with all files in them.
      files: Files inside that are deleted, in addition to those of a store.

    Raises:
      InputError: `path` exists or cannot be written (because the disk is full, for instance), or
        another process is writing it.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists, and nothing is overwritten; choose another output folder")
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        handle = lock_folder(partial)
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}") from None
    try:
        _empty(partial, kept, folders, files)
        try:
            yield partial
            os.fsync(handle)
            partial.rename(path)
        except BaseException as error:
            _empty(partial, kept, folders, files)
            if not any(partial.iterdir()):
                partial.rmdir()
            if isinstance(error, OSError):
                raise InputError(f"{path} cannot be written: {error.strerror}") from None
            raise
    finally:
        os.close(handle)


def _empty(partial: Path, kept: str | None, folders: Sequence[str], files: Sequence[str]) -> None:
    """Deletes the files of an unfinished store, and refuses to delete any other file."""
    for folder in folders:  # a process that has yet to end may write there again meanwhile
        shutil.rmtree(partial / folder, ignore_errors=True)
    leftovers = [file for file in partial.iterdir() if file.name not in (kept, *folders)]
    if strange := [file.name for file in leftovers if file.name not in {*_FILES, *files}]:
        raise InputError(f"{partial} holds {strange[0]}, which no store has; move it away")
    for file in leftovers:
        file.unlink()


class StoreWriter:
    """Writes the files of a store into a folder; the rows of a split keep their order.

    As a context manager it completes the store when the block ends without an error.
    """

    def __init__(
        self, folder: Path, schema: Schema, rows: Sequence[int], origin: Mapping[str, Any]
    ) -> None:
        """Starts the files; `rows` are the numbers of rows of the three splits."""
        self._folder, self._schema, self._origin = folder, schema, origin
        self._rows = tuple(rows)
        self._written = [0] * len(SPLITS)
        self._files = {}
        for split, count in zip(SPLITS, self._rows, strict=True):
            ids, labels = (f"{split}.{part}.npy" for part in ("ids", "labels"))
            self._files[ids] = _ArrayFile(folder / ids, "<i4", (count, len(schema.fields)))
            self._files[labels] = _ArrayFile(folder / labels, "|u1", (count,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._complete()
        finally:
            for file in self._files.values():
                file.close()

    def append(self, split: int, ids: np.ndarray, labels: np.ndarray) -> None:
        """Adds rows to the split of that index: ids [n, N], labels [n]."""
        self._files[f"{SPLITS[split]}.ids.npy"].append(ids)
        self._files[f"{SPLITS[split]}.labels.npy"].append(labels)
        self._written[split] += len(labels)

    def _complete(self) -> None:
        if tuple(self._written) != self._rows:
            raise ValueError(f"{self._written} rows were written, {self._rows} announced")
        for file in self._files.values():
            file.sync()
        self._schema.save(self._folder / "schema.json")
        checksums = {name: file.checksum for name, file in self._files.items()}
        checksums["schema.json"] = digest(self._folder / "schema.json")
        about = {
            "version": STORE_VERSION,
            "rows": dict(zip(SPLITS, self._rows, strict=True)),
            "schema": self._schema.outline(),
            "origin": dict(self._origin),
            "sha256": checksums,
        }
        text = json.dumps(about, ensure_ascii=False, indent=1)
        write_text(self._folder / "store.json", text + "\n", durable=True)


class _ArrayFile:
    """A .npy file of a known shape that is written from its start to its end, with a checksum.

    It uses plain writes, no memory map, so that a full disk is an error and kills no process.
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self._dtype = dtype
        self._sum = hashlib.sha256()
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": dtype, "fortran_order": False, "shape": shape}
        )
        self._file = path.open("wb", buffering=0)
        self._write(header.getvalue())

    @property
    def checksum(self) -> str:
        return self._sum.hexdigest()

    def append(self, rows: np.ndarray) -> None:
        self._write(np.ascontiguousarray(rows, self._dtype).tobytes())

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write(self, data: bytes) -> None:
        self._sum.update(data)
        while data:
            data = data[self._file.write(data) :]
