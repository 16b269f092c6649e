"""The first pass over a raw log: its usable rows, or a sample of them, into a spool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ihas_jax.data.raw.logs import Chunk, Coded, Log
from ihas_jax.data.raw.prefetch import prefetch
from ihas_jax.data.raw.spool import Read, Spool, remove_spool
from ihas_jax.data.split import hash_rows
from ihas_jax.errors import InputError
from ihas_jax.progress import say, track


class BadRowError(InputError):
    """A row that cannot be used."""

    def __init__(self, complaint: str | None) -> None:
        """Adds the remedy to the complaint."""
        remedy = "mend it, or leave out such rows with --on-bad-rows skip"
        super().__init__(f"{complaint}; {remedy}")


@contextmanager
def open_spool(folder: Path, job: Mapping[str, Any], columns: int) -> Iterator[Spool]:
    """Opens the spool of a job, and removes it after the block.

    The spool is kept if the process is killed, and if a bad row follows good ones: the user may run
    the command again with --on-bad-rows skip.
    """
    try:
        with Spool(folder, job, columns) as spool:
            yield spool
    except InputError as error:
        if not (isinstance(error, BadRowError) and spool.read.rows):
            remove_spool(folder)
        raise
    remove_spool(folder)


def read_log(
    log: Log,
    spool: Spool,
    on_bad_rows: str,
    sample: float,
    limit_rows: int | None,
    seed: int,
) -> None:
    """Reads the usable rows of a log into a spool, from where the spool ends.

    Raises:
      InputError: A file cannot be read, or a row cannot be used and is not to be skipped.
    """
    if spool.read.rows:
        say(f"Resuming after row {spool.read.rows:,}")
    if spool.read.bad and on_bad_rows == "error":
        raise BadRowError(spool.read.complaint)
    if limit_rows is not None and spool.read.rows >= limit_rows:
        return
    chunks = prefetch(log.chunks(spool.read.position))
    first = next(chunks, None)
    if first is None:
        return
    total = spool.read.rows + round(
        len(first.labels) * (1 - spool.read.share) / max(first.share - spool.read.share, 1e-9)
    )
    if limit_rows is not None:
        total = min(total, limit_rows)
    with track("Reading", total, done=spool.read.rows) as progress:
        for chunk in chain([first], chunks):
            before = spool.read
            left = len(chunk.labels) + 1 if limit_rows is None else limit_rows - before.rows
            bad = int((chunk.bad < left).sum())
            if bad and on_bad_rows == "error":
                raise BadRowError(chunk.complaint)
            taken = select_rows(chunk, before.rows, left, sample, seed)
            read = Read(
                rows=before.rows + len(chunk.labels),
                kept=before.kept + len(taken.labels),
                bad=before.bad + bad,
                complaint=before.complaint or (chunk.complaint if bad else None),
                position=chunk.end,
                share=chunk.share,
            )
            spool.append(taken, read)
            progress.advance(len(chunk.labels))
            if limit_rows is not None and read.rows >= limit_rows:
                break


def select_rows(chunk: Chunk, first: int, left: int, sample: float, seed: int) -> Chunk:
    """Samples the first `left` rows of a chunk; `first` is the number of its first row."""
    rows = len(chunk.labels)
    if left >= rows and sample == 1:
        return chunk
    taken = sampled(first, rows, sample, seed) & (np.arange(rows) < left)
    columns = tuple(Coded(codes[taken], values) for codes, values in chunk.columns)
    return replace(chunk, labels=chunk.labels[taken], columns=columns)


def sampled(first: int, rows: int, sample: float, seed: int) -> np.ndarray:
    """Which of some usable rows are in the sample, [rows] bool; `first` is the first's number."""
    # another seed than for the splits, so that sample and splits are independent
    highest = np.uint64(min(int(sample * 2.0**64), 2**64 - 1))
    return hash_rows(first, rows, ~seed) <= highest


def find_empty(log: Log, spool: Spool, limit_rows: int | None) -> tuple[Path, ...]:
    """The files that were read and have no rows."""
    stopped = limit_rows is not None and spool.read.rows >= limit_rows
    read = log.paths[: spool.read.position.file] if stopped else log.paths
    files = spool.files()
    return tuple(path for place, path in enumerate(read) if place not in files)
