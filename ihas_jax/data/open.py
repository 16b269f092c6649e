"""Data sets on disk, whichever form they have."""

from __future__ import annotations

from pathlib import Path

from ihas_jax.data.dataset import Dataset
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
    if (path / "train").is_dir() or (path / "train.parquet").is_file():
        from ihas_jax.data.encoded import open_encoded  # polars is needed for Parquet only

        return open_encoded(path)
    return map_store(path)
