"""From a raw log to a store: reads the log once, counts its values, and encodes it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from ihas_jax.data.drift import Drift, find_drift
from ihas_jax.data.raw.encoder import Encoder
from ihas_jax.data.raw.logs import Log
from ihas_jax.data.raw.parts import part_name
from ihas_jax.data.raw.prefetch import prefetch
from ihas_jax.data.raw.reading import find_empty, open_spool, read_log
from ihas_jax.data.raw.spool import Read, Spool
from ihas_jax.data.raw.vocabulary import count_field, rank_column
from ihas_jax.data.schema import Schema
from ihas_jax.data.split import SPLITS, SplitRule, assign_splits, chronological_splits
from ihas_jax.data.store_writer import StoreWriter, new_store
from ihas_jax.errors import InputError
from ihas_jax.files import fingerprints
from ihas_jax.names import printable
from ihas_jax.progress import track

_FEWEST_ROWS = 10
_LAYOUT = 2


@dataclass(frozen=True)
class Summary:
    """The result of `prepare`.

    Attributes:
      schema: The fields and their vocabularies.
      rows: Rows per split, in the order of `SPLITS`.
      clicks: Rows with label 1 per split.
      other_shares: The share of all rows whose value is "other", per field.
      drifts: The fields with far more "other" than in the log of the given schema.
      bad_rows: The number of rows that could not be used and were skipped.
      complaint: What is wrong with the first of these rows, and where it is.
      empty: The files without rows, which were skipped.
      seconds: The duration of the work.
    """

    schema: Schema
    rows: tuple[int, ...]
    clicks: tuple[int, ...]
    other_shares: tuple[float, ...]
    drifts: tuple[Drift, ...]
    bad_rows: int
    complaint: str | None
    empty: tuple[Path, ...]
    seconds: float


def prepare(
    log: Log,
    output: str | Path,
    *,
    min_count: int = 10,
    seed: int = 0,
    on_bad_rows: Literal["error", "skip"] = "error",
    split: SplitRule = "random",
    sample: float = 1.0,
    limit_rows: int | None = None,
    schema: Schema | None = None,
    bins: int = 64,
) -> Summary:
    """Encodes a raw log into a store; the same log and arguments give the same bytes.

    The vocabularies are counted on the whole log, validation and test rows included, as in
    pytorch-fm and the papers that build on it. Values are ordered by count, then by their
    bytes. The empty text is a value like any other.

    The log is read once, into a spool beside the output. If the process is killed, the next call
    resumes after the last chunk that it read.

    Args:
      log: The log; see `ihas_jax.data.raw.formats`.
      output: The folder to make.
      min_count: Values seen in fewer rows become "other".
      seed: Decides which rows are for training, validation and test, and which are sampled.
      on_bad_rows: Whether a row that cannot be used is an error, or is skipped and counted.
      split: Which rows are for training, validation and test.
      sample: The share of the rows to take, at random.
      limit_rows: The number of usable rows to read, from the start of the log; None for all.
      schema: The vocabularies of an older store, to use instead of counting new ones.
      bins: The largest number of bins of a quantile field; their edges come from the training rows.

    Raises:
      InputError: The log cannot be read or has a bad row, there are fewer than 10 rows,
        `output` exists or cannot be written, the schema has other fields than the log, or the
        log changed while it was read.
    """
    check_request(log, min_count, sample, limit_rows, schema, bins)
    if split != "chronological":
        log = replace(log, time=None)
    if schema is not None:
        log.check(schema)
    start, states = time.monotonic(), fingerprints(log.paths)
    job = {
        "layout": _LAYOUT,
        "log": repr(log),
        "versions": states,
        "seed": seed,
        "sample": sample,
    }
    job |= {"limit_rows": limit_rows, "programs": [version("ihas_jax"), version("polars")]}
    columns = len(log.fields) + (log.time is not None)
    with (
        new_store(output, kept="spool") as folder,
        open_spool(folder / "spool", job, columns) as spool,
    ):
        read_log(log, spool, on_bad_rows, sample, limit_rows, seed)
        if fingerprints(log.paths) != states:
            raise InputError(f"{log.name} changed while it was being read; prepare it again")
        check_rows(log, spool.read, split)
        splits = _assign(log, spool, split, seed)
        train = splits == SPLITS.index("train")
        if schema is None:
            schema = _count(log, spool, min_count, train if train.any() else None, bins)
            log.check(schema)
        rows = tuple(np.bincount(splits, minlength=len(SPLITS)).tolist())
        origin = {
            "sources": [printable(part_name(path)) for path in log.paths],
            "min_count": min_count,
        }
        origin |= {"seed": seed, "bad_rows": spool.read.bad, "split": split, "sample": sample}
        with StoreWriter(folder, schema, rows, origin) as writer:
            clicks, others = _encode(spool, schema, splits, writer)
        read, empty = spool.read, find_empty(log, spool, limit_rows)
    shares = tuple((others / read.kept).tolist())
    seconds = time.monotonic() - start
    drifts = tuple(find_drift(schema, shares, read.kept))
    return Summary(
        schema,
        rows,
        tuple(clicks.tolist()),
        shares,
        drifts,
        read.bad,
        read.complaint,
        empty,
        seconds,
    )


def check_request(
    log: Log,
    min_count: int,
    sample: float,
    limit_rows: int | None,
    schema: Schema | None,
    bins: int,
) -> None:
    """Raises: InputError: an argument of `prepare` is out of range, or does not fit the log."""
    if min_count < 1:
        raise InputError(f"min_count is {min_count}; it must be at least 1")
    if not 0 < sample <= 1:
        raise InputError(f"sample is {sample}; it must be above 0, and at most 1")
    if limit_rows is not None and limit_rows < 1:
        raise InputError(f"limit_rows is {limit_rows}; it must be at least 1")
    if bins < 2:
        raise InputError(f"bins is {bins}; it must be at least 2")
    if schema is not None and log.fields != tuple((f.name, f.rule) for f in schema.fields):
        raise InputError(
            f"the log's fields are {', '.join(name for name, _ in log.fields)}, those of the "
            f"schema {', '.join(schema.names)}; names, rules (categorical, numeric, quantile) and "
            "order must be the same"
        )
    if schema is not None and log.missing != schema.missing:
        raise InputError(
            f"the words for a missing value are {list(log.missing)}, those of the schema "
            f"{list(schema.missing)}; use the same ones"
        )


def check_rows(log: Log, read: Read, split: SplitRule) -> None:
    """Raises: InputError: There are too few rows."""
    if not read.share:
        raise InputError(f"{log.name} holds no rows")
    if read.kept < (1 if split == "test" else _FEWEST_ROWS):
        left_out = f"; {read.bad} were skipped, the first: {read.complaint}"
        raise InputError(
            f"{log.name} holds {read.kept} usable rows, a split of 80/10/10 needs "
            f"{_FEWEST_ROWS}{left_out if read.bad else ''}"
        )


def _count(log: Log, spool: Spool, min_count: int, train: np.ndarray | None, bins: int) -> Schema:
    """Finds the kinds, and counts the vocabularies."""
    fields = []
    with track("Counting", len(log.fields), "fields") as progress:
        for number, (name, rule) in enumerate(log.fields):
            fields.append(
                count_field(
                    spool,
                    number,
                    name,
                    rule,
                    min_count=min_count,
                    missing=log.missing,
                    train=train,
                    bins=bins,
                )
            )
            progress.advance(1)
    return Schema(log.label, tuple(fields), log.missing)


def _assign(log: Log, spool: Spool, split: SplitRule, seed: int) -> np.ndarray:
    """The split of each row, [n] uint8."""
    rows = spool.read.kept
    if split == "test":
        return np.full(rows, SPLITS.index("test"), np.uint8)
    if split == "random":
        return assign_splits(rows, seed)
    if log.time is None:
        return chronological_splits(np.zeros(rows, np.uint8))
    return chronological_splits(rank_column(spool, len(log.fields), log.time_format))


def _encode(
    spool: Spool, schema: Schema, splits: np.ndarray, writer: StoreWriter
) -> tuple[np.ndarray, np.ndarray]:
    """Writes every row to its split, the second pass; returns clicks per split, other per field."""
    encoder, done = Encoder(schema), 0
    clicks = np.zeros(len(SPLITS), np.int64)
    others = np.zeros(len(schema.fields), np.int64)
    encoded = ((labels, encoder.look_up(columns)) for labels, columns in spool.chunks())
    with track("Encoding", len(splits)) as progress:
        for labels, ids in prefetch(encoded):
            where = splits[done : done + len(ids)]
            for split in range(len(SPLITS)):
                writer.append(split, ids[where == split], labels[where == split])
            clicks += np.bincount(where[labels == 1], minlength=len(SPLITS))
            others += (ids == np.array(schema.sizes) - 1).sum(0)
            done += len(ids)
            progress.advance(len(ids))
    return clicks, others
