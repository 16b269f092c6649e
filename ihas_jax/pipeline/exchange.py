"""Copies of objects for other processes: mapped arrays by their files, kept objects by numbers."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from io import BufferedIOBase, BytesIO
from typing import Any

import jax
import numpy as np

from ihas_jax.data.checks import file_of


class _Pickler(pickle.Pickler):
    """Writes mapped arrays as the names of their files, and kept objects as their numbers.

    An array of JAX that was donated to a program has no content, and None is written for it.
    """

    def __init__(self, stream: BufferedIOBase, kept: Sequence[Any]) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self._numbers = {id(one): number for number, one in enumerate(kept)}

    def persistent_id(self, value: Any) -> int | None:
        """The number of a kept object."""
        return self._numbers.get(id(value))

    def reducer_override(self, value: Any) -> Any:
        """Says how a mapped array is made again."""
        if isinstance(value, jax.Array) and value.is_deleted():
            return type(None), ()
        if isinstance(value, np.ndarray) and (path := file_of(value)) is not None:
            return _reopen, (*path, value.dtype, value.shape)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Reads what `_Pickler` has written."""

    def __init__(self, stream: BufferedIOBase, kept: Sequence[Any]) -> None:
        super().__init__(stream)
        self._kept = kept

    def persistent_load(self, number: int) -> Any:
        """A kept object."""
        return self._kept[number]


def _reopen(path: str, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))


def dumps(content: Any, kept: Sequence[Any] = ()) -> bytes:
    """What `load` reads, as bytes; see `send`."""
    whole = BytesIO()
    _Pickler(whole, kept).dump(content)
    return whole.getvalue()  # shares the memory of the stream, which goes


def load(stream: BufferedIOBase, kept: Sequence[Any] = ()) -> Any:
    """Reads what another process has sent, which has the same number of kept objects."""
    return _Unpickler(stream, kept).load()


def send(stream: BufferedIOBase, content: Any, kept: Sequence[Any] = ()) -> None:
    """Writes a copy of some content for another process.

    Mapped arrays are written as the names of their files.

    Args:
      stream: a pipe to that process.
      content: what can be pickled.
      kept: objects that the other process has, of which numbers are written.
    """
    whole = dumps(content, kept)  # what can't be sent must not be sent in part
    stream.write(whole)
    stream.flush()
