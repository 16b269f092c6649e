"""The first pass over a log: each process reads a unit into a spool, and reports what it read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np

from ihas_jax.data.raw.logs import Log
from ihas_jax.data.raw.reading import BadRowError
from ihas_jax.data.raw.spool import Read, Spool
from ihas_jax.data.spark.units import Unit
from ihas_jax.errors import InputError

_NOWHERE = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Spooled:
    """A unit that was read.

    Attributes:
      place: Where its rows begin, for messages.
      folder: Its spool.
      rows: Usable rows.
      bad: [m], for each row that cannot be used the number of usable rows of the unit before it.
      complaint: What is wrong with the first of these rows, and where it is.
      error: Why the rest of the unit could not be read, or None.
      files: The usable rows of each file of the log that has any rows in it, by its number.
      bytes: The memory that the values of each column take.
    """

    place: str
    folder: Path
    rows: int
    bad: np.ndarray
    complaint: str | None
    error: str | None
    files: dict[int, int]
    bytes: tuple[int, ...]


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
    return Spooled(unit.place, place, rows, np.concatenate(bad), complaint, error, files, sizes)


def used_units(
    units: Sequence[Spooled], strict: bool, limit: int | None
) -> tuple[list[Spooled], int, str | None]:
    """The units up to the limit, the bad rows before it, and what is wrong with the first.

    Raises:
      InputError: A unit before the limit could not be read, or has a bad row that is not to be
        skipped.
    """
    used: list[Spooled] = []
    rows, bad, complaint = 0, 0, None
    for unit in units:
        if limit is not None and rows >= limit:
            break
        before = len(unit.bad)
        if limit is not None:
            before = int((rows + unit.bad < limit).sum())
        if before and strict:
            raise BadRowError(unit.complaint)
        if unit.error and (limit is None or rows + unit.rows < limit):
            raise InputError(unit.error)
        bad += before
        complaint = complaint or (unit.complaint if before else None)
        rows += unit.rows
        used.append(unit)
    return used, bad, complaint


def empty_files(log: Log, units: Sequence[Spooled], limit: int | None) -> tuple[Path, ...]:
    """The files that were read and have no rows, see `find_empty`."""
    rows, files, read = 0, set[int](), log.paths
    for file, own in (entry for unit in units for entry in unit.files.items()):
        files.add(file)
        rows += own
        if limit is not None and rows >= limit:
            read = log.paths[:file]
            break
    return tuple(path for place, path in enumerate(read) if place not in files)
