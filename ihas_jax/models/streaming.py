"""Applies a pure function of a batch of ids to any number of rows, in large fixed shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array

from ihas_jax.models.chunks import compile_chunks, deal, join, reading, sharing
from ihas_jax.models.local import on_devices
from ihas_jax.progress import track

_BATCH_ROWS = 4096
_SHAPES = ((1, 16), (4, 64), (16, 256), (64, 256), (64, _BATCH_ROWS))
"""Shapes of a chunk, as batches and the rows of each. A chunk takes the first that holds its rows;
of the batches only those are computed that have rows."""
SIZES = tuple(math.prod(shape) for shape in _SHAPES)
"""The largest numbers of rows that share a program: a call of each compiles all of them."""
_CHUNK_ROWS = SIZES[-1]


class Streamed:
    """Calls `function(params, ids [B, N]) -> tree of [B, ...]` over the rows of a split.

    Rows go to the device in chunks, each one dispatch. A chunk has one of a few shapes, and the
    number of rows in it is a value, so that no more programs are compiled whatever the number of
    rows, and no batch of padding alone is computed. Devices that all hold the parameters share the
    batches of a chunk.
    """

    def __init__(self, function: Callable[[Any, Array], Any]) -> None:
        self._map = compile_chunks(lambda params, ids, valid: (function(params, ids), ()))

    def chunks(
        self,
        params: Any,
        ids: np.ndarray,
        *,
        title: str,
        rows: np.ndarray | None = None,
        chunk_rows: int = _CHUNK_ROWS,
    ) -> Iterator[tuple[slice, Any]]:
        """Yields `(slice, outputs)` on the host for each part of `rows`, or of all rows.

        The `title` stands beside the progress bar. A part has `chunk_rows` rows.
        """
        parts = _stream(self._map, _shape, title, params, ids, rows, chunk_rows)
        return ((part, outputs) for part, outputs, _ in parts)

    def __call__(
        self, params: Any, ids: np.ndarray, *, title: str, rows: np.ndarray | None = None
    ) -> Any:
        """The outputs of `rows`, or of all rows, in order and as NumPy arrays."""
        return self.begin(params, ids, title=title, rows=rows)()

    def begin(
        self, params: Any, ids: np.ndarray, *, title: str, rows: np.ndarray | None = None
    ) -> Callable[[], Any]:
        """Starts on the rows, and returns a function that gives what a call gives.

        Several programs that have begun compute at once.
        """
        parts = self.chunks(params, ids, title=title, rows=rows)
        return lambda: _concatenate([outputs for _, outputs in parts])


class Summed:
    """Calls a function of batches over all rows of a split, and adds up its sums.

    The function is `function(params, ids [B, N], valid [B]) -> (tree of [B, ...], tree of sums)`,
    where rows that are not valid must not count in the sums. Batches are 4096 rows in the order of
    the split, and the last may be smaller.
    """

    def __init__(self, function: Callable[[Any, Array, Array], Any]) -> None:
        self._map = compile_chunks(function)

    def __call__(self, params: Any, ids: np.ndarray, *, title: str) -> tuple[Any, Any]:
        """The outputs of all rows as NumPy arrays, and the sums in float64."""
        outputs, totals = [], []
        for _, part, sums in _stream(self._map, _batches, title, params, ids, None, _CHUNK_ROWS):
            outputs.append(part)
            totals.append(sums)
        return _concatenate(outputs), jax.tree.map(lambda *leaves: np.sum(leaves, axis=0), *totals)


def _stream(
    program: Callable[..., Any],
    shape_of: Callable[[int], tuple[int, int]],
    title: str,
    params: Any,
    ids: np.ndarray,
    rows: np.ndarray | None,
    chunk_rows: int,
) -> Iterator[tuple[slice, Any, Any]]:
    """Parts with their outputs and sums; a chunk computes while the one before it is used.

    The first chunk computes when this returns.
    """
    total = len(ids) if rows is None else len(rows)
    step = max(1, min(chunk_rows, total))
    batches, size = shape_of(step)
    params = on_devices(params)
    mesh, specs = sharing(params, batches)

    def start(first: int) -> tuple[slice, Any, Any]:
        part = slice(first, min(first + step, total))
        count = part.stop - part.start
        padded = np.empty((batches * size, ids.shape[1]), np.int32)
        padded[:count] = ids[part] if rows is None else ids.take(rows[part], axis=0)
        padded[count : -(-count // size) * size] = 0
        own = padded.reshape(batches, size, -1)
        dealt = own if mesh is None else deal(own, mesh)
        with reading(params):
            return part, *program(params, dealt, np.int32(count), mesh, specs)

    def finish(ahead: tuple[slice, Any, Any] | None) -> Iterator[tuple[slice, Any, Any]]:
        with track(title, total) as bar:
            while ahead:
                part, outputs, sums = ahead
                ahead = start(part.stop) if part.stop < total else None
                count = part.stop - part.start
                host = jax.tree.map(lambda leaf, n=count: join(leaf, mesh, n), outputs)
                yield part, host, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sums)
                bar.advance(count)

    return finish(start(0) if total else None)


def _shape(rows: int) -> tuple[int, int]:
    """Batches in a chunk and rows in a batch: the first shape that holds the rows."""
    larger = (-(-rows // _BATCH_ROWS), _BATCH_ROWS)  # for callers that ask for longer chunks
    return next((shape for shape in _SHAPES if rows <= math.prod(shape)), larger)


def _batches(rows: int) -> tuple[int, int]:
    """Batches in a chunk and rows in a batch: the least powers of two that hold the rows."""
    if rows <= _BATCH_ROWS:
        return 1, max(16, 1 << (rows - 1).bit_length())
    return 1 << (-(-rows // _BATCH_ROWS) - 1).bit_length(), _BATCH_ROWS


def _concatenate(parts: list[Any]) -> Any:
    if not parts:
        raise ValueError("no rows to stream")
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
