"""Applies a pure function of a batch of ids to any number of rows, in large fixed shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array, lax

from ihas_jax.progress import track

_BATCH_ROWS = 4096
_CHUNK_ROWS = 64 * _BATCH_ROWS


class Streamed:
    """Calls `function(params, ids [B, N]) -> tree of [B, ...]` over the rows of a split.

    Rows go to the device in chunks of the same shape, each one dispatch, and the last one is
    padded; so a function is compiled at most twice per split size: for whole chunks, and for
    splits smaller than one.
    """

    def __init__(self, function: Callable[[Any, Array], Any], description: str) -> None:
        self._description = description
        self._map = jax.jit(lambda params, ids: lax.map(lambda batch: function(params, batch), ids))

    def chunks(
        self,
        params: Any,
        ids: np.ndarray,
        rows: np.ndarray | None = None,
        chunk_rows: int = _CHUNK_ROWS,
    ) -> Iterator[tuple[slice, Any]]:
        """Yields `(slice, outputs)`, on the host, for `rows[slice]` or, without rows, all rows."""
        total = len(ids) if rows is None else len(rows)
        batches = max(1, -(-min(chunk_rows, total) // _BATCH_ROWS))
        size = batches * _BATCH_ROWS
        with track(self._description, total) as bar:
            for start in range(0, total, size):
                part = slice(start, min(start + size, total))
                chunk = ids[part] if rows is None else ids[rows[part]]
                padded = np.zeros((size, ids.shape[1]), np.int32)
                rows_here = len(chunk)
                padded[:rows_here] = chunk
                outputs = self._map(params, padded.reshape(batches, _BATCH_ROWS, -1))
                yield part, jax.tree.map(lambda leaf, n=rows_here: _join(leaf, n), outputs)
                bar.advance(rows_here)

    def __call__(self, params: Any, ids: np.ndarray, rows: np.ndarray | None = None) -> Any:
        """Outputs for all `rows` (of the whole split by default), in order, as NumPy arrays."""
        parts = [outputs for _, outputs in self.chunks(params, ids, rows)]
        if not parts:
            raise ValueError("no rows to stream")
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _join(leaf: Array, rows: int) -> np.ndarray:
    host = np.asarray(leaf)
    return host.reshape(-1, *host.shape[2:])[:rows]
