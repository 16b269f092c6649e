"""Trees of arrays as files of a folder, one `.npy` for each, which any language can read.

An array of floats that is mostly zeros, such as a table of which single numbers were removed, is
stored as its other numbers and one bit for each place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import numpy as np

from ihas_jax.errors import InputError

_BITS = ".nonzero"


def write_arrays(folder: Path, tree: Any) -> None:
    """Writes the arrays of a tree into a new folder, under their paths in the tree.

    Numbers are compared with 0 by value, so that a packed -0 is read as 0.
    """
    folder.mkdir()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name, array = _name(path), np.asarray(leaf)
        chosen = array != 0
        numbers = array[chosen]
        bits = np.packbits(chosen, bitorder="little")
        if array.dtype.kind == "f" and numbers.nbytes + bits.nbytes < array.nbytes:
            _write(folder / f"{name}{_BITS}.npy", bits)
            array = numbers
        _write(folder / f"{name}.npy", array)


def read_arrays(folder: Path, like: Any) -> Any:
    """The arrays of a folder as a tree.

    Args:
      folder: what `write_arrays` has written.
      like: a tree of the same structure, with arrays or their shapes.

    Raises:
      InputError: an array is missing, can't be read, or has another shape or type.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree.unflatten(
        structure, [_read(folder, _name(path), leaf) for path, leaf in leaves]
    )


def _name(path: tuple[Any, ...]) -> str:
    return quote(jax.tree_util.keystr(path, simple=True, separator="."), safe="")


def _write(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, np.asarray(array, order="C"), allow_pickle=False)


def _read(folder: Path, name: str, like: Any) -> np.ndarray:
    """Raises: InputError: as `read_arrays`."""
    path, places = folder / f"{name}.npy", folder / f"{name}{_BITS}.npy"
    try:
        array = _load(path)
        if places.exists():
            bits = _load(places)
            chosen = np.unpackbits(bits, count=int(np.prod(like.shape)), bitorder="little")
            whole = np.zeros(like.shape, array.dtype)
            whole[chosen.astype(bool).reshape(like.shape)] = array
            array = whole
    except Exception as error:  # NumPy raises what Python's parser does for a damaged header
        raise InputError(
            f"{path} can't be read ({error}). The folder was copied in part, or the click model or "
            "method that was registered in this process is not that of the bundle."
        ) from None
    if array.shape != like.shape or array.dtype != like.dtype:
        raise InputError(
            f"{path} is {array.dtype} {list(array.shape)} where the model has {like.dtype} "
            f"{list(like.shape)}. The click model or method that was registered in this process is "
            "not that of the bundle."
        )
    return array


def _load(path: Path) -> np.ndarray:
    """The array of a file, in which nothing may follow it."""
    with path.open("rb") as file:
        array: np.ndarray = np.load(file, allow_pickle=False)
        if file.read(1):
            raise ValueError("its header is damaged")
    return array
