"""From a raw log to encoded Parquet on a Spark cluster, with the rows and ids of `prepare`.

The files of the log and the output lie in a file system that all processes see at the same paths.
"""

from __future__ import annotations

import shutil
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import numpy as np
from pyspark import StorageLevel

from ihas_jax import checksums
from ihas_jax.data.drift import find_drift
from ihas_jax.data.raw.ingest import Summary, check_request, check_rows
from ihas_jax.data.raw.logs import Log
from ihas_jax.data.raw.spool import Read
from ihas_jax.data.schema import Schema
from ihas_jax.data.spark.assigning import find_splitter
from ihas_jax.data.spark.cluster import run
from ihas_jax.data.spark.counting import count_values, share_out
from ihas_jax.data.spark.encoding import Encoded, encode_part
from ihas_jax.data.spark.failures import explained
from ihas_jax.data.spark.fields import count_fields
from ihas_jax.data.spark.parts import Part, Selection, make_parts
from ihas_jax.data.spark.splitters import AllTest, Splitter
from ihas_jax.data.spark.spooling import Spooled, empty_files, spool_unit, used_units
from ihas_jax.data.spark.units import cut_log, scan_range
from ihas_jax.data.split import SPLITS, SplitRule
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
    # a folder of its own in "work", so that what a killed process still writes is never mixed in
    with (
        new_store(output, folders=("work", *SPLITS), files=(checksums.FILE,)) as folder,
        explained("Preparing"),
    ):
        work = folder.absolute() / "work" / uuid4().hex
        for name in ("spool", *SPLITS):
            (work / name).mkdir(parents=True)
        strict = on_bad_rows == "error"
        units = cut_log(
            log, unit_bytes, lambda ranges: run(context, scan_range, ranges, "Finding rows")
        )
        read = partial(spool_unit, log, work / "spool", strict, limit_rows)
        spooled = run(context, read, units, "Reading")
        if fingerprints(log.paths) != states:
            raise InputError(f"{log.name} changed while it was being read; prepare it again")
        spooled, bad, complaint = used_units(spooled, strict, limit_rows)
        parts = make_parts(spooled, selection)
        rows = sum(unit.rows for unit in spooled)
        kept = sum(part.kept for part in parts)
        share = float(any(unit.files for unit in spooled))
        check_rows(log, Read(rows, kept, bad, complaint, share=share), split)
        splitter = find_splitter(context, log, parts, spooled, split, seed)
        if schema is None:
            schema = _count(context, log, parts, spooled, splitter, min_count, bins)
            log.check(schema)
        schema.save(work / "schema.json")
        encoded = run(context, partial(encode_part, work, splitter), parts, "Encoding")
        _complete(work, folder, encoded)
    totals = np.sum([part.rows for part in encoded], axis=0)
    clicks = np.sum([part.clicks for part in encoded], axis=0)
    other_shares = tuple((np.sum([part.others for part in encoded], axis=0) / kept).tolist())
    return Summary(
        schema,
        tuple(totals.tolist()),
        tuple(clicks.tolist()),
        other_shares,
        tuple(find_drift(schema, other_shares, kept)),
        bad,
        complaint,
        empty_files(log, spooled, limit_rows),
        time.monotonic() - start,
    )


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
    keys = share_out(context, units, columns)
    bins_of_train = not isinstance(splitter, AllTest)
    quantile = [n for n, (_, rule) in enumerate(log.fields) if rule == "quantile" and bins_of_train]
    counted = count_values(context, parts, splitter, columns, quantile, keys)
    counted.persist(StorageLevel.DISK_ONLY)
    fields = count_fields(counted, log, keys, min_count=min_count, bins=bins, tasks=len(parts))
    counted.unpersist()
    return Schema(log.label, fields, log.missing)


def _complete(work: Path, folder: Path, encoded: Sequence[Encoded]) -> None:
    """Moves the encoded rows to where they are opened, with the checksums of all files."""
    sums = {name: known for part in encoded for name, known in part.sums.items()}
    sums["schema.json"] = zlib.crc32((work / "schema.json").read_bytes())
    for name in SPLITS:
        for file in (work / name).iterdir():  # an attempt that was killed leaves some
            if f"{name}/{file.name}" not in sums:
                file.unlink()
    checksums.write(work, sums)
    # a folder without one of the splits does not open, so they come last
    for name in (checksums.FILE, "schema.json", *SPLITS):
        (work / name).rename(folder / name)
    # an attempt that has yet to end may write there again meanwhile, which must not cost the work
    shutil.rmtree(folder / "work", ignore_errors=True)
