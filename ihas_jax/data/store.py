"""The encoded log on disk: a folder of plain NumPy arrays that opens in milliseconds.

    store.json            version, rows, label, fields, checksums, where the log came from
    schema.json           the label, the fields and their values
    {split}.ids.npy       [n, N] int32, ids local to each field
    {split}.labels.npy    [n] uint8, 0 or 1

`ihas_jax.data.store_writer` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.schema import Schema
from ihas_jax.data.split import SPLITS
from ihas_jax.data.stored_schema import open_schema
from ihas_jax.errors import InputError
from ihas_jax.files import digest

STORE_VERSION = 2


def map_store(path: Path) -> Dataset:
    """Opens a store in milliseconds, without reading its rows or its vocabularies.

    The arrays are views of the files, and the values of the fields are read when first needed.

    Raises:
      InputError: `path` is no folder, or not a complete store of this version, or its files
        do not have the sizes that its description states.
    """
    about = read_description(path)
    schema = _open_schema(path, about)
    splits = [
        Split(
            _open_array(path / f"{name}.ids.npy", (about["rows"][name], len(schema.fields))),
            _open_array(path / f"{name}.labels.npy", (about["rows"][name],)),
        )
        for name in SPLITS
    ]
    return Dataset(schema, *splits)


def _open_schema(path: Path, about: Mapping[str, Any]) -> Schema:
    """The schema of a store by store.json; the values of the fields are read later."""
    file = (path / "schema.json").absolute()
    if not file.exists():
        raise InputError(f"{file}: no such file; prepare the log again")
    try:
        return open_schema(file, about["schema"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: store.json is damaged ({error}); prepare the log again"
        ) from None


def read_description(path: Path) -> dict[str, Any]:
    """Returns the content of store.json: `rows`, `schema`, `sha256` and `origin`.

    Raises:
      InputError: `path` is no folder, or holds no store of this version.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; experiments/prepare.py makes a store")
    try:
        about: dict[str, Any] = json.loads((path / "store.json").read_text(encoding="utf-8"))
        version = about["version"]
        if version == STORE_VERSION and about.keys() >= {"rows", "schema", "sha256", "origin"}:
            return about
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a complete store: store.json is missing or damaged ({error}); "
            "prepare the log into another folder"
        ) from None
    raise InputError(
        f"{path} is a store of version {version}, this program reads version {STORE_VERSION}; "
        "prepare the log again"
    )


def verify_store(path: str | Path) -> None:
    """Reads every byte of a store and compares the files with their checksums.

    Raises:
      InputError: `path` is no store, or a file is damaged; the message names the file.
    """
    path = Path(path)
    for name, expected in read_description(path)["sha256"].items():
        try:
            found = digest(path / name)
        except OSError as error:
            raise InputError(f"{path / name} cannot be read: {error.strerror}") from None
        if found != expected:
            raise InputError(f"{path / name} is damaged (sha256); prepare the log again")


def _open_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Maps a .npy file of ids (two axes) or labels (one) and checks its shape."""
    try:
        array = np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be opened ({error}); prepare the log again") from None
    if array.shape != shape or array.dtype != (np.int32 if len(shape) == 2 else np.uint8):
        raise InputError(
            f"{path} holds {array.dtype} {list(array.shape)}, store.json says {list(shape)}; "
            "prepare the log again"
        )
    return array
