"""The rows of a log that are used, in parts; a process reads a part from its spool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ihas_jax.data.raw.logs import START, Chunk
from ihas_jax.data.raw.reading import sampled, select_rows
from ihas_jax.data.raw.spool import Spool
from ihas_jax.data.spark.spooling import Spooled

_NOWHERE = np.zeros(0, np.int64)
_HASHES = 1 << 20


@dataclass(frozen=True)
class Selection:
    """The rows of a log to take.

    Attributes:
      sample: The share of the usable rows.
      seed: Decides which rows are in the sample.
      limit: The number of usable rows to read, or None.
    """

    sample: float
    seed: int
    limit: int | None


@dataclass(frozen=True)
class Part:
    """The rows of a spooled unit that are used.

    Attributes:
      number: The place of the part among all parts.
      place: Where its rows begin in the log, for messages.
      folder: Its spool.
      columns: The number of columns of the spool.
      first: The number of its first usable row in the log.
      kept_first: The number of its first selected row among all selected rows.
      kept: The number of its selected rows.
      selection: The selection.
    """

    number: int
    place: str
    folder: Path
    columns: int
    first: int
    kept_first: int
    kept: int
    selection: Selection

    def chunks(self) -> Iterator[tuple[int, Chunk]]:
        """The selected rows, with the number of the first of them among all selected rows."""
        first, kept, chosen = self.first, self.kept_first, self.selection
        with Spool(self.folder, {}, self.columns) as spool:
            for labels, columns in spool.chunks():
                chunk = Chunk(labels, tuple(columns), _NOWHERE, None, 1.0, START)
                left = len(labels) if chosen.limit is None else max(chosen.limit - first, 0)
                chunk = select_rows(chunk, first, left, chosen.sample, chosen.seed)
                yield kept, chunk
                first, kept = first + len(labels), kept + len(chunk.labels)


def make_parts(units: Sequence[Spooled], selection: Selection) -> list[Part]:
    """Numbers the rows of spooled units in the order of the log."""
    parts: list[Part] = []
    first = kept_first = 0
    for unit in units:
        rows = unit.rows
        if selection.limit is not None:
            rows = min(rows, max(selection.limit - first, 0))
        kept = rows
        if selection.sample < 1:
            kept = sum(
                int(sampled(row, min(_HASHES, first + rows - row), *_sample(selection)).sum())
                for row in range(first, first + rows, _HASHES)
            )
        spool = unit.place, unit.folder, len(unit.bytes)
        parts.append(Part(len(parts), *spool, first, kept_first, kept, selection))
        first, kept_first = first + unit.rows, kept_first + kept
    return parts


def _sample(selection: Selection) -> tuple[float, int]:
    return selection.sample, selection.seed
