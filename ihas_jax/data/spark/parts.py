"""What a process does with one unit of a log: read it into a spool, and read the spool again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np

from ihas_jax.data.raw.logs import START, Chunk, Log
from ihas_jax.data.raw.reading import sampled, select_rows
from ihas_jax.data.raw.spool import Read, Spool
from ihas_jax.data.spark.units import Unit
from ihas_jax.errors import InputError

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


@dataclass(frozen=True, eq=False)
class Spooled:
    """A unit that was read.

    Attributes:
      folder: Its spool.
      rows: Usable rows.
      bad: [m], for each row that cannot be used the number of usable rows of the unit before it.
      complaint: What is wrong with the first of these rows, and where it is.
      error: Why the rest of the unit could not be read, or None.
      files: The usable rows of each file of the log that has any rows in it, by its number.
      bytes: The memory that the values of each column take.
    """

    folder: Path
    rows: int
    bad: np.ndarray
    complaint: str | None
    error: str | None
    files: dict[int, int]
    bytes: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """The rows of a spooled unit that are used.

    Attributes:
      number: The place of the part among all parts.
      folder: Its spool.
      columns: The number of columns of the spool.
      first: The number of its first usable row in the log.
      kept_first: The number of its first selected row among all selected rows.
      kept: The number of its selected rows.
      selection: The selection.
    """

    number: int
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


def spool_unit(log: Log, folder: Path, strict: bool, limit: int | None, unit: Unit) -> Spooled:
    """Reads the usable rows of a unit into a spool of its own.

    Args:
      log: The log.
      folder: The folder of all spools.
      strict: Whether a row that cannot be used ends the reading.
      limit: The number of rows after which reading may end, or None.
      unit: The unit.
    """
    # another attempt at the same unit, which may still run, has another name
    place = folder / f"{unit.number:06}-{uuid4().hex[:8]}"
    columns = len(log.fields) + (log.time is not None)
    rows, bad, complaint, error = 0, [_NOWHERE], None, None
    files: dict[int, int] = {}
    with Spool(place, {}, columns) as spool:
        try:
            for chunk in unit.chunks(log):
                bad.append(rows + chunk.bad)
                complaint = complaint or chunk.complaint
                rows += len(chunk.labels)
                files[chunk.end.file] = files.get(chunk.end.file, 0) + len(chunk.labels)
                spool.append(chunk, Read(rows, rows, position=chunk.end))
                if (strict and complaint) or (limit is not None and rows >= limit):
                    break
        except InputError as wrong:
            error = str(wrong)
        sizes = tuple(spool.size(number) for number in range(columns))
    return Spooled(place, rows, np.concatenate(bad), complaint, error, files, sizes)


def make_parts(units: list[Spooled], selection: Selection) -> list[Part]:
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
        columns = len(unit.bytes)
        parts.append(Part(len(parts), unit.folder, columns, first, kept_first, kept, selection))
        first, kept_first = first + unit.rows, kept_first + kept
    return parts


def _sample(selection: Selection) -> tuple[float, int]:
    return selection.sample, selection.seed
