"""Turns a raw click log into an encoded store: `prepare.py criteo --input FILE --output DIR`."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import resource
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ihas_jax.data import formats
from ihas_jax.data.drift import describe_drift
from ihas_jax.data.encoded import convert_encoded
from ihas_jax.data.ingest import Summary, prepare
from ihas_jax.data.logs import Log
from ihas_jax.data.split import SPLITS, SplitRule
from ihas_jax.data.store import open_store
from ihas_jax.errors import InputError, run_cli
from ihas_jax.progress import console, log
from ihas_jax.reporting.tables import Grid


@dataclass(frozen=True)
class Job(ABC):
    """What every format has in common."""

    input: tuple[Path, ...]
    """The raw log: plain text or gzip, or the file that the format names. Several files, a
    pattern in quotes such as 'day_*.gz', or a folder of parts are one log, by their names."""
    output: Path
    """The folder to make; it must not exist."""
    min_count: int = 10
    """Values seen in fewer rows share the field's "other" id."""
    seed: int = 0
    """Decides which rows are for training (80 %), validation (10 %) and test (10 %)."""
    split: SplitRule = "random"
    """At random, or the earliest 80 % for training and the latest 10 % for test (by the time
    column of avazu, movielens and table --time, else in the order of the log), or all for test."""
    sample: float = 1.0
    """The share of the rows to take, at random."""
    limit_rows: int | None = None
    """Reads so many usable rows from the start of the log."""
    schema: Path | None = None
    """A store whose vocabularies are used, instead of counting new ones: for the next day's log."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """A row that cannot be used stops the work, or is left out and counted."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the log."""
        found: list[Path] = []
        for path in self.input:
            if path.is_dir():
                found += sorted(file for file in path.iterdir() if file.name[0] not in "._")
            elif "*" in path.name or "?" in path.name:
                found += sorted(path.parent.glob(path.name)) or [path]
            else:
                found.append(path)
        if not found:
            raise InputError(f"--input {self.input[0]} holds no files")
        return tuple(found)

    @abstractmethod
    def open(self) -> Log:
        """The log to read."""


@dataclass(frozen=True)
class Criteo(Job):
    """Criteo display advertising: train.txt, tab separated, no header."""

    def open(self) -> Log:
        """The log to read."""
        return formats.criteo(*self.files)


@dataclass(frozen=True)
class Avazu(Job):
    """Avazu click-through rate: train.csv with its header; the 22 fields from `hour` on."""

    def open(self) -> Log:
        """The log to read."""
        return formats.avazu(*self.files)


@dataclass(frozen=True)
class MovieLens(Job):
    """MovieLens-1M: ml-1m.zip as published; a rating above 3 is a click."""

    def open(self) -> Log:
        """The log to read."""
        if len(self.files) > 1:
            raise InputError("movielens is one file, ml-1m.zip; give it alone as --input")
        return formats.movielens(self.files[0])


@dataclass(frozen=True)
class Table(Job):
    """Any CSV with a header, plain or gzip, or Parquet."""

    label: str = tyro.MISSING
    """The column that is 0 or 1."""
    categorical: tuple[str, ...] = ()
    """The columns whose values are categories as they are."""
    numeric: tuple[str, ...] = ()
    """The columns of numbers; the integer part v becomes the category int(ln(v)^2), or v - 2
    where v is at most 2."""
    time: str | None = None
    """The column that tells when a row was, for --split chronological: numbers, or text that
    sorts, such as 2014-10-21 23:00."""

    def open(self) -> Log:
        """The log to read."""
        return formats.table(
            *self.files,
            label=self.label,
            categorical=self.categorical,
            numeric=self.numeric,
            time=self.time,
        )


@dataclass(frozen=True)
class Encoded:
    """Parquet of integer ids from another engine, as train, valid and test; see the README."""

    input: Path
    """The folder that holds train, valid and test, each NAME.parquet or NAME/*.parquet."""
    output: Path
    """The folder to make; it must not exist."""
    fields: tuple[str, ...] = ()
    """The columns of ids; others are left out. By default those of schema.json, or else every
    column but the label, and then each must hold ids."""


Command = (
    Annotated[Criteo, tyro.conf.subcommand("criteo")]
    | Annotated[Avazu, tyro.conf.subcommand("avazu")]
    | Annotated[MovieLens, tyro.conf.subcommand("movielens")]
    | Annotated[Table, tyro.conf.subcommand("table")]
    | Annotated[Encoded, tyro.conf.subcommand("encoded")]
)


def report(summary: Summary, output: Path) -> None:
    """Prints what was made: the splits, the fields, and how long it took."""
    splits = [
        (name, f"{rows:,}", f"{clicks / rows:.4f}" if rows else "")
        for name, rows, clicks in zip(SPLITS, summary.rows, summary.clicks, strict=True)
    ]
    fields = [
        (field.name, field.kind, f"{field.size:,}", f"{share:.2%}")
        for field, share in zip(summary.schema.fields, summary.other_shares, strict=True)
    ]
    console.print(Grid("", ("field", "kind", "ids", "other"), fields, texts=(0, 1)))
    console.print(Grid(str(output), ("split", "rows", "label rate"), splits))
    if summary.drifts:
        log(f"warning: {describe_drift(summary.drifts)}")
    if summary.complaint:
        log(f"{summary.bad_rows:,} bad rows left out; the first: {summary.complaint}")
    rows = sum(summary.rows)
    log(
        f"{rows:,} rows, {len(summary.schema.fields)} fields, {sum(summary.schema.sizes):,} ids "
        f"in {summary.seconds:.1f} s ({rows / summary.seconds:,.0f} rows/s), "
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"
    )


def main() -> None:
    """Reads the command line and prepares the log."""
    job = tyro.cli(Command, description=__doc__)
    if isinstance(job, Encoded):
        data = convert_encoded(job.input, job.output, job.fields)
        rows = sum(len(split.labels) for split in (data.train, data.valid, data.test))
        log(f"{job.output}: {rows:,} rows, {len(data.schema.fields)} fields")
        return
    summary = prepare(
        job.open(),
        job.output,
        min_count=job.min_count,
        seed=job.seed,
        on_bad_rows=job.on_bad_rows,
        split=job.split,
        sample=job.sample,
        limit_rows=job.limit_rows,
        schema=open_store(job.schema).schema if job.schema else None,
    )
    report(summary, job.output)


if __name__ == "__main__":
    run_cli(main)
