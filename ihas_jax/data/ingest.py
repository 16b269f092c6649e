"""From a raw log to a store, in two passes and bounded memory: count the values, then encode."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from ihas_jax.data.logs import Chunk, Fields, Log, field_text
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.split import SPLITS, assign_splits
from ihas_jax.data.store import StoreWriter, new_store
from ihas_jax.errors import InputError
from ihas_jax.progress import track

_FEWEST_ROWS = 10
_MERGE_ROWS = 1 << 20

Raw = pl.DataFrame | Mapping[str, Sequence[object]]


@dataclass(frozen=True)
class Summary:
    """What `prepare` made.

    Attributes:
      schema: The fields and their vocabularies.
      rows: Rows per split, in the order of `SPLITS`.
      clicks: Rows with label 1 per split.
      other_shares: Per field, the share of all rows whose value is "other".
      bad_rows: Rows left out because they could not be used.
      complaint: About the first of these.
      seconds: The time it took.
    """

    schema: Schema
    rows: tuple[int, ...]
    clicks: tuple[int, ...]
    other_shares: tuple[float, ...]
    bad_rows: int
    complaint: str | None
    seconds: float


def prepare(
    log: Log,
    output: str | Path,
    *,
    min_count: int = 10,
    seed: int = 0,
    on_bad_rows: Literal["error", "skip"] = "error",
) -> Summary:
    """Encodes a raw log into a store: same log, `min_count` and `seed`, same bytes.

    The vocabularies are counted on the whole log, validation and test rows included, as in
    pytorch-fm and the papers that build on it. Values are ordered by count, then by their
    bytes. An empty category is a value like any other.

    Args:
      log: What to read; see `ihas_jax.data.formats`.
      output: The folder to make.
      min_count: Values seen in fewer rows become the field's "other".
      seed: Decides which rows are for training, validation and test.
      on_bad_rows: Whether a row that cannot be used is an error, or left out and counted.

    Raises:
      InputError: The log cannot be read or has a bad row, there are fewer than 10 rows,
        `output` exists or cannot be written, or the log changed between the passes.
    """
    if min_count < 1:
        raise InputError(f"min_count is {min_count}; it must be at least 1")
    start, version = time.monotonic(), _version(log.path)
    with new_store(output) as folder:
        counts = _count(log, on_bad_rows)
        if counts.rows < _FEWEST_ROWS:
            left_out = f"; {counts.bad_rows} were left out, the first: {counts.complaint}"
            raise InputError(
                f"{log.path} holds {counts.rows} usable rows, a split of 80/10/10 needs "
                f"{_FEWEST_ROWS}{left_out if counts.bad_rows else ''}"
            )
        schema = counts.schema(log.label, min_count)
        splits = assign_splits(counts.rows, seed)
        rows = tuple(np.bincount(splits, minlength=len(SPLITS)).tolist())
        origin = {
            "sources": [log.path.name],
            "min_count": min_count,
            "seed": seed,
            "bad_rows": counts.bad_rows,
        }
        with StoreWriter(folder, schema, rows, origin) as writer:
            clicks, others = _encode(log, schema, splits, writer)
            if _version(log.path) != version:
                raise _changed(log)
    return Summary(
        schema,
        rows,
        tuple(clicks.tolist()),
        tuple((others / counts.rows).tolist()),
        counts.bad_rows,
        counts.complaint,
        time.monotonic() - start,
    )


def encode(schema: Schema, frame: Raw) -> np.ndarray:
    """Encodes raw columns in memory, by the rule of `prepare`; see `Encoder`."""
    return Encoder(schema)(frame)


class Encoder:
    """Turns raw columns into ids; keeps the vocabularies ready, so make it once and call it often.

    The rows of the log that a schema was counted on get the ids that `prepare` stored. So a
    missing category (None) is the empty string, which has an id of its own where the log had it
    often enough, and a missing number is the code "NULL". All values without an id of their
    own, and numbers that are none, get the field's "other".
    """

    def __init__(self, schema: Schema) -> None:
        """Builds the look-up tables of a schema."""
        self._kinds: Fields = tuple((field.name, field.kind) for field in schema.fields)
        self._ids = [
            pl.col(field.name)
            .cast(pl.Enum(field.values), strict=False)
            .to_physical()
            .cast(pl.Int32)
            .fill_null(field.other)
            for field in schema.fields
        ]

    def __call__(self, frame: Raw) -> np.ndarray:
        """Encodes raw columns.

        Args:
          frame: A data frame, or lists by column name; other columns are ignored.

        Returns:
          [n, N] int32, ids local to each field.

        Raises:
          InputError: A column is missing, or the columns differ in length.
        """
        columns = frame.columns if isinstance(frame, pl.DataFrame) else list(frame)
        names = [name for name, _ in self._kinds]
        for name in names:
            if name not in columns:
                raise InputError(f"no column {name!r}; the columns are {', '.join(columns)}")
        if not isinstance(frame, pl.DataFrame):
            lengths = {name: len(frame[name]) for name in names}
            if len(set(lengths.values())) > 1:
                raise InputError(f"the columns differ in length: {lengths}")
            frame = pl.DataFrame({n: pl.Series(n, frame[n], strict=False) for n in names})
        return self.look_up(
            frame.lazy().select(field_text(*field) for field in self._kinds).collect()
        )

    def look_up(self, frame: pl.DataFrame) -> np.ndarray:
        """Returns the ids [n, N] int32 of text columns as `Log.chunks` yields them."""
        return frame.lazy().select(self._ids).collect().to_numpy(order="c")


class _Counts:
    """How often each value of each field was seen.

    New counts wait, and are merged when they outnumber the merged ones: a merge is then paid
    for by the rows that came since, and memory stays within a few times the distinct values.
    """

    def __init__(self, fields: Fields) -> None:
        self._kinds = fields
        self._parts: dict[str, list[pl.DataFrame]] = {name: [] for name, _ in fields}
        self.rows = self.bad_rows = 0
        self.complaint: str | None = None

    def add(self, chunk: Chunk) -> None:
        """Counts the rows of a chunk."""
        self.rows += chunk.frame.height
        self.bad_rows += chunk.bad
        self.complaint = self.complaint or chunk.complaint
        counted = pl.collect_all(
            chunk.frame.lazy()
            .select(value=pl.col(name))
            .group_by("value")
            .agg(count=pl.len().cast(pl.Int64))
            for name in self._parts
        )
        for parts, frame in zip(self._parts.values(), counted, strict=True):
            parts.append(frame)
            if sum(part.height for part in parts[1:]) > max(_MERGE_ROWS, parts[0].height):
                parts[:] = [_merge(parts)]

    def schema(self, label: str, min_count: int) -> Schema:
        """The vocabularies: values by count, then by their bytes; counts are dropped."""
        fields = []
        for name, kind in self._kinds:
            kept = _merge(self._parts.pop(name)).filter(pl.col("count") >= min_count)
            values = kept.sort("count", "value", descending=[True, False])["value"]
            fields.append(Field(name, tuple(values.to_list()), kind))
        return Schema(label, tuple(fields))


def _merge(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).group_by("value").agg(pl.col("count").sum())


def _count(log: Log, on_bad_rows: str) -> _Counts:
    """First pass: counts the values of the usable rows."""
    counts = _Counts(log.fields)
    chunks = _ahead(log.chunks())
    first = next(chunks, None)
    if first is None:
        raise InputError(f"{log.path} holds no rows")
    with track("Counting", round(first.frame.height / first.share)) as progress:
        for chunk in chain([first], chunks):
            if chunk.bad and on_bad_rows == "error":
                raise InputError(
                    f"{chunk.complaint}; mend it, or leave out such rows with --on-bad-rows skip"
                )
            counts.add(chunk)
            progress.advance(chunk.frame.height)
    return counts


def _encode(
    log: Log, schema: Schema, splits: np.ndarray, writer: StoreWriter
) -> tuple[np.ndarray, np.ndarray]:
    """Second pass: writes every row to its split; returns clicks per split, "other" per field."""
    encoder, done = Encoder(schema), 0
    clicks = np.zeros(len(SPLITS), np.int64)
    others = np.zeros(len(schema.fields), np.int64)
    with track("Encoding", len(splits)) as progress:
        for chunk in _ahead(log.chunks()):
            ids, labels = encoder.look_up(chunk.frame), chunk.labels.to_numpy()
            where = splits[done : done + len(ids)]
            if len(where) < len(ids):
                raise _changed(log)
            for split in range(len(SPLITS)):
                writer.append(split, ids[where == split], labels[where == split])
            clicks += np.bincount(where[labels == 1], minlength=len(SPLITS))
            others += (ids == np.array(schema.sizes) - 1).sum(0)
            done += len(ids)
            progress.advance(len(ids))
    if done < len(splits):
        raise _changed(log)
    return clicks, others


def _ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yields `chunks`, reading the next one in a thread while the last one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = reader.submit(next, chunks, None)
            yield chunk


def _version(path: Path) -> tuple[int, int] | None:
    """What tells two states of a file apart; None where there is no file, for the log to say."""
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _changed(log: Log) -> InputError:
    return InputError(f"{log.path} changed while it was being read; prepare it again")
