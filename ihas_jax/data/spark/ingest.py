"""From a raw log to encoded Parquet on a Spark cluster, with the rows and ids of `prepare`.

The files of the log and the output lie in a file system that all processes see at the same paths.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from pyspark import StorageLevel

from ihas_jax.data.drift import find_drift
from ihas_jax.data.raw.ingest import Summary, check_request, check_rows
from ihas_jax.data.raw.logs import Log
from ihas_jax.data.raw.reading import BadRowError
from ihas_jax.data.raw.spool import Read
from ihas_jax.data.schema import Schema
from ihas_jax.data.spark.cluster import collect, from_bytes, run
from ihas_jax.data.spark.counting import SHARE_BYTES, Keys, count_values
from ihas_jax.data.spark.encoding import encode_part
from ihas_jax.data.spark.fields import count_fields
from ihas_jax.data.spark.parts import Part, Selection, Spooled, make_parts, spool_unit
from ihas_jax.data.spark.splitters import (
    AllTest,
    AtRandom,
    InOrder,
    Splitter,
    find_boundaries,
    sum_ties,
)
from ihas_jax.data.spark.units import cut_log, scan_range
from ihas_jax.data.split import SPLITS, SplitRule, random_cuts
from ihas_jax.data.store_writer import new_store
from ihas_jax.errors import InputError
from ihas_jax.files import fingerprints

if TYPE_CHECKING:
    from pyspark import SparkContext

UNIT_BYTES = 256 << 20


def prepare_with_spark(
    context: SparkContext,
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
    unit_bytes: int = UNIT_BYTES,
) -> Summary:
    """Encodes a raw log into a folder of Parquet and schema.json, which `open_store` opens.

    Rows, their order, splits, ids and schema.json are those of `prepare` on the same log with the
    same arguments, which mean the same. Nothing is resumed if the process is killed.

    Args:
      context: The connection to the cluster, whose machines have this package and see the files.
      log: The log; see `ihas_jax.data.raw.formats`.
      output: The folder to make.
      min_count: See `prepare`, as for the arguments that follow.
      seed: The seed of splits and sample.
      on_bad_rows: Whether a row that cannot be used is an error.
      split: Which rows are for training, validation and test.
      sample: The share of the rows to take.
      limit_rows: The number of usable rows to take, from the start of the log.
      schema: The vocabularies to use instead of counting new ones.
      bins: The largest number of bins of a quantile field.
      unit_bytes: The bytes of the log, as it lies on disk, that a task reads, roughly.

    Raises:
      InputError: As `prepare`.
    """
    check_request(log, min_count, sample, limit_rows, schema, bins)
    if split != "chronological":
        log = replace(log, time=None)
    if schema is not None:
        log.check(schema)
    start, states = time.monotonic(), fingerprints(log.paths)
    selection = Selection(sample, seed, limit_rows)
    with new_store(output, folders=("spool", *SPLITS)) as folder:
        for name in ("spool", *SPLITS):
            (folder / name).mkdir()
        strict = on_bad_rows == "error"
        units = cut_log(
            log, unit_bytes, lambda ranges: run(context, scan_range, ranges, "Finding rows")
        )
        read = partial(spool_unit, log, (folder / "spool").absolute(), strict, limit_rows)
        spooled = run(context, read, units, "Reading")
        if fingerprints(log.paths) != states:
            raise InputError(f"{log.name} changed while it was being read; prepare it again")
        spooled, bad, complaint = _used(spooled, strict, limit_rows)
        parts = make_parts(spooled, selection)
        rows = sum(unit.rows for unit in spooled)
        kept = sum(part.kept for part in parts)
        share = float(any(unit.files for unit in spooled))
        check_rows(log, Read(rows, kept, bad, complaint, share=share), split)
        splitter = _splitter(context, log, parts, spooled, split, seed)
        if schema is None:
            schema = _count(context, log, parts, spooled, splitter, min_count, bins)
            log.check(schema)
        schema.save(folder / "schema.json")
        encode = partial(encode_part, folder.absolute(), splitter)
        encoded = run(context, encode, parts, "Encoding")
        shutil.rmtree(folder / "spool")
    totals, clicks, others = (np.sum(sums, axis=0) for sums in zip(*encoded, strict=True))
    other_shares = tuple((others / kept).tolist())
    return Summary(
        schema,
        tuple(totals.tolist()),
        tuple(clicks.tolist()),
        other_shares,
        tuple(find_drift(schema, other_shares, kept)),
        bad,
        complaint,
        _empty(log, spooled, limit_rows),
        time.monotonic() - start,
    )


def _used(
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


def _empty(log: Log, units: Sequence[Spooled], limit: int | None) -> tuple[Path, ...]:
    """The files that were read and have no rows, see `find_empty`."""
    rows, files, read = 0, set[int](), log.paths
    for file, own in (entry for unit in units for entry in unit.files.items()):
        files.add(file)
        rows += own
        if limit is not None and rows >= limit:
            read = log.paths[:file]
            break
    return tuple(path for place, path in enumerate(read) if place not in files)


def _keys(context: SparkContext, units: Sequence[Spooled], columns: Sequence[int]) -> Keys:
    """The shares of some columns by the memory of their values; other columns have none."""
    sizes = np.sum([unit.bytes for unit in units], axis=0)
    counts = [1 + int(size) // SHARE_BYTES if n in columns else 0 for n, size in enumerate(sizes)]
    large = 1 + int(sizes[list(columns)].sum()) // SHARE_BYTES
    return Keys(tuple(counts), min(sum(counts), max(large, context.defaultParallelism)))


def _count(
    context: SparkContext,
    log: Log,
    parts: Sequence[Part],
    units: Sequence[Spooled],
    splitter: Splitter,
    min_count: int,
    bins: int,
) -> Schema:
    """Finds the kinds, and counts the vocabularies."""
    columns = range(len(log.fields))
    keys = _keys(context, units, columns)
    bins_of_train = not isinstance(splitter, AllTest)
    quantile = [n for n, (_, rule) in enumerate(log.fields) if rule == "quantile" and bins_of_train]
    counted = count_values(context, parts, splitter, columns, quantile, keys)
    counted.persist(StorageLevel.DISK_ONLY)
    try:
        fields = count_fields(counted, log, keys, min_count=min_count, bins=bins, tasks=len(parts))
    finally:
        counted.unpersist()
    return Schema(log.label, fields, log.missing)


def _splitter(
    context: SparkContext,
    log: Log,
    parts: Sequence[Part],
    units: Sequence[Spooled],
    split: SplitRule,
    seed: int,
) -> Splitter:
    """The splits of the rows; distinct times are collected."""
    rows = sum(part.kept for part in parts)
    if split == "test":
        return AllTest()
    if split == "random":
        return AtRandom(seed, random_cuts(rows, seed))
    if log.time is None:
        return InOrder(rows)
    column = len(log.fields)
    keys = _keys(context, units, [column])
    counted = count_values(context, parts, AllTest(), [column], (), keys)
    found = collect(counted, "Counting times", len(parts) + keys.tasks)
    unplaced = find_boundaries(pl.concat(from_bytes(data) for _, data in found), log.time_format)
    ties = run(context, unplaced.count_ties, parts, "Finding the splits")
    return replace(unplaced, ties=sum_ties(ties))
