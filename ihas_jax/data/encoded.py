"""Encoded logs of other engines: folders of Parquet whose columns are ids.

    train/*.parquet   (or train.parquet) and likewise valid and test: an integer column `label` of
                      0 and 1 (or of booleans), and one integer column of ids from 0 on for each
                      field
    schema.json       the vocabularies in the form of `Schema.save`; optional
    checksums.json    the CRC-32 of each file, see `ihas_jax.checksums`; optional
    mapped/           a store of the rows, which opening a large folder makes

With a schema the label and the fields have its names, ids must be below its sizes, and other
columns are ignored. Without a schema every column must be a field, unless the user names the
fields.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ihas_jax import checksums
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.encoded_files import check_sums, find_parts
from ihas_jax.data.encoded_log import EncodedLog
from ihas_jax.data.split import SPLITS
from ihas_jax.data.store import map_store, read_description
from ihas_jax.data.store_writer import StoreWriter, new_store
from ihas_jax.errors import InputError
from ihas_jax.files import fingerprints
from ihas_jax.progress import track

_MEMORY_BYTES = 1 << 30
_MAPPED = "mapped"


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
    from ihas_jax.processes import agreed  # it brings in JAX, which preparing does without

    path = Path(path)
    if agreed(lambda: _made_store(path, fields)):
        return map_store(path / _MAPPED)
    return _read(EncodedLog(path, fields))


def _made_store(path: Path, fields: Sequence[str]) -> bool:
    """Whether the rows stand in a store beside a large log, which is made if it is missing."""
    mapped, states = path / _MAPPED, _states(path, fields)
    if mapped.exists():
        origin = read_description(mapped)["origin"]
        if origin == states:
            return True
        if origin.keys() != states.keys():
            raise InputError(f"{mapped} is a store of another log; move it away")
        shutil.rmtree(mapped)
    log = EncodedLog(path, fields)
    if sum(log.rows) * len(log.schema.fields) * 4 <= _MEMORY_BYTES:
        return False
    try:
        _convert(log, mapped, states)
    except InputError as error:
        raise InputError(
            f"{error}; rows of more than {_MEMORY_BYTES >> 30} GiB are stored there when they are "
            f"first opened; prepare.py encoded --input {path} stores them elsewhere"
        ) from None
    return True


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
    files = [*(part for name in SPLITS for part in find_parts(path, name)), path / "schema.json"]
    names = [str(file.relative_to(path)) for file in files]
    states = [state and list(state) for state in fingerprints(files)]
    return {"encoded": dict(zip(names, states, strict=True)), "fields": list(fields)}


def verify_encoded(path: str | Path) -> None:
    """Compares the files of an encoded log with its checksums.

    Raises:
      InputError: There are no checksums, or a file is damaged, exchanged, missing or strange; the
        message names it.
    """
    path = Path(path)
    if not (path / checksums.FILE).exists():
        raise InputError(f"{path} is encoded Parquet without checksums, so nothing can be verified")
    check_sums(path, [part for name in SPLITS for part in find_parts(path, name)])
