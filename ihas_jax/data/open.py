"""Data sets on disk, whichever form they have."""

from __future__ import annotations

from pathlib import Path

from ihas_jax.data.dataset import Dataset
from ihas_jax.data.schema import Schema
from ihas_jax.data.store import map_store
from ihas_jax.errors import as_path


def open_store(path: str | Path) -> Dataset:
    """Opens a store of `prepare` in milliseconds, or a folder of encoded Parquet.

    The rows of a store stay in its files, see `ihas_jax.data.store`, as do those of encoded Parquet
    of more than 1 GiB, which gets such files when it is opened first, see `ihas_jax.data.encoded`.

    Raises:
      InputError: `path` holds neither, or its files are not what they should be.
    """
    path = as_path(path, "Name the folder of a store.")
    if _is_encoded(path):
        from ihas_jax.data.encoded import open_encoded  # polars is needed for Parquet only

        return open_encoded(path)
    return map_store(path)


def read_schema(path: str | Path) -> Schema:
    """The schema of what `open_store` opens, for which the rows are read only if they define it.

    Raises:
      InputError: As `open_store`, or schema.json cannot be used.
    """
    path = as_path(path, "Name the folder of a store.")
    if _is_encoded(path):
        from ihas_jax.data.encoded_files import load_schema  # as above

        if schema := load_schema(path, ()):
            return schema
    return open_store(path).schema


def _is_encoded(path: Path) -> bool:
    return (path / "train").is_dir() or (path / "train.parquet").is_file()
