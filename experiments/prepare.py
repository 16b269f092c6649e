"""Turns a raw click log into an encoded store: `prepare.py criteo --input FILE --output DIR`."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from bench.peak import peak_bytes

from ihas_jax.data.drift import describe_drift
from ihas_jax.data.encoded import convert_encoded
from ihas_jax.data.open import read_schema
from ihas_jax.data.raw import formats
from ihas_jax.data.raw.guess import Guess, find_collapse, first_rows, guess_fields
from ihas_jax.data.raw.ingest import Summary, prepare
from ihas_jax.data.raw.logs import Fields, Log
from ihas_jax.data.raw.parts import find_parts
from ihas_jax.data.schema import Rule, Schema
from ihas_jax.data.split import SPLITS, SplitRule
from ihas_jax.errors import InputError, run_cli
from ihas_jax.progress import console, say
from ihas_jax.reporting.tables import Grid

_FLAGS: dict[Rule, str] = {
    "category": "categorical",
    "numeric": "numeric",
    "quantile": "quantile",
}


@dataclass(frozen=True)
class Job(ABC):
    """The flags of every format."""

    input: tuple[Path, ...]
    """The raw log: plain text, gzip, or the file that the format names.
    Several files, a pattern in quotes such as 'day_*.gz', or a folder are one log."""
    output: Path
    """The folder to make; it must not exist."""
    min_count: int = 10
    """Values seen in fewer rows share the "other" id of their field."""
    seed: int = 0
    """Decides which rows are for training (80 %), validation (10 %) and test (10 %)."""
    split: SplitRule = "random"
    """How rows are split: at random, by time, or all rows for test.
    By time, the earliest 80 % are for training and the latest 10 % for test.
    The time is a column of avazu, movielens and table --time, and the order of rows elsewhere."""
    sample: float = 1.0
    """The share of the rows to take, at random."""
    limit_rows: int | None = None
    """The number of usable rows to read, from the start of the log; by default all of them."""
    schema: Path | None = None
    """A store whose vocabularies are used instead of new ones, for the log of the next day."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """Whether a row that cannot be used is an error, or is skipped and counted."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the log."""
        return find_parts(self.input)

    @property
    def old_schema(self) -> Schema | None:
        """The vocabularies to use instead of counting."""
        return read_schema(self.schema) if self.schema else None

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
    """Any CSV with a header (plain or gzip) or Parquet; a folder dt=2014-10-21 is a column."""

    label: str = tyro.MISSING
    """The column that is 0 or 1; true, TRUE and 1.0 are 1 too."""
    categorical: tuple[str, ...] = ()
    """The columns whose values are categories.
    Without --categorical, --numeric and --quantile, all but label, time and --drop are used.
    Rules are guessed from the first rows and printed before the work starts."""
    numeric: tuple[str, ...] = ()
    """The columns of counts, which become categories by Criteo's rule.
    The integer part v becomes int(ln(v)^2), or v - 2 where v is at most 2."""
    quantile: tuple[str, ...] = ()
    """The columns of fractions, prices, ages and other numbers.
    They are cut into --bins ranges with about equally many training rows."""
    bins: int = 64
    """The largest number of bins of a --quantile column."""
    drop: tuple[str, ...] = ()
    """The columns to ignore when rules are guessed."""
    missing: tuple[str, ...] = ()
    """Words that mean a missing value, in addition to the empty text, such as - NA '\\N'.
    A number such as -999 also stands for -999.0.
    A store and its models keep the words, and --schema uses those of its store by default."""
    separator: str = ","
    """The character between the columns of a CSV; '\\t' or tab is a tab."""
    time: str | None = None
    """The column with the time of a row, for --split chronological.
    It holds numbers, or times of ISO 8601 such as 2014-10-21 23:00."""
    time_format: str | None = None
    """The format of times that are not ISO 8601, in the letters of strftime: %d/%m/%Y %H:%M."""

    def open(self) -> Log:
        """The log to read; guesses and doubts about its columns are printed."""
        named: Fields = (
            *((name, "category") for name in self.categorical),
            *((name, "numeric") for name in self.numeric),
            *((name, "quantile") for name in self.quantile),
        )
        old = self.old_schema
        for name, _ in named:
            if name in self.drop:
                raise InputError(f"the column {name!r} is named and dropped; do one of both")
        if not named:
            named = tuple((f.name, f.rule) for f in old.fields) if old else self._guess()
        table = self._table(named)
        if self.numeric and not old:
            numbers = self._table(tuple((name, "category") for name in self.numeric))
            for column in first_rows(numbers).get_columns():
                if collapse := find_collapse(column, table.missing):
                    say(f"--numeric {column.name}: {collapse}; --quantile keeps them apart")
        return table

    def _guess(self) -> Fields:
        """Guesses the rules of all columns, and prints them."""
        columns = formats.columns_of(*self.files, separator=self._separator)
        for name in self.drop:
            if name not in columns:
                raise InputError(
                    f"--drop: there is no column {name!r}; the columns are {', '.join(columns)}"
                )
        unused = (self.label, self.time, *self.drop)
        every = self._table(tuple((name, "category") for name in columns if name not in unused))
        guesses = guess_fields(first_rows(every), min_count=self.min_count, missing=every.missing)
        show_guesses(guesses)
        return tuple(sorted(((g.column, g.rule) for g in guesses), key=lambda pair: pair[1]))

    def _table(self, rules: Fields) -> Log:
        old = self.old_schema
        return formats.table(
            *self.files,
            label=self.label,
            categorical=[name for name, rule in rules if rule == "category"],
            numeric=[name for name, rule in rules if rule == "numeric"],
            quantile=[name for name, rule in rules if rule == "quantile"],
            time=self.time,
            time_format=self.time_format,
            missing=self.missing or (old.missing if old else ()),
            separator=self._separator,
        )

    @property
    def _separator(self) -> str:
        return "\t" if self.separator in ("tab", "\\t") else self.separator


@dataclass(frozen=True)
class Encoded:
    """Parquet of integer ids from another engine, in the parts train, valid and test."""

    input: Path
    """The folder that holds train, valid and test, each NAME.parquet or NAME/*.parquet."""
    output: Path
    """The folder to make; it must not exist."""
    fields: tuple[str, ...] = ()
    """The columns of ids; other columns are ignored.
    By default they are those of schema.json, or all columns except the label without that file."""


Command = (
    Annotated[Criteo, tyro.conf.subcommand("criteo")]
    | Annotated[Avazu, tyro.conf.subcommand("avazu")]
    | Annotated[MovieLens, tyro.conf.subcommand("movielens")]
    | Annotated[Table, tyro.conf.subcommand("table")]
    | Annotated[Encoded, tyro.conf.subcommand("encoded")]
)


def show_guesses(guesses: Sequence[Guess]) -> None:
    """Prints how each column will be used, and the equivalent flags."""
    rows = [
        (guess.column, _FLAGS[guess.rule], guess.kind, f"{guess.distinct:,}", guess.note)
        for guess in guesses
    ]
    headers = ("column", "rule", "kind", "distinct", "note")
    console.print(Grid("Guessed from the first rows", headers, rows, texts=(0, 1, 2, 4)))
    flags = []
    for rule, flag in _FLAGS.items():
        if names := [shlex.quote(guess.column) for guess in guesses if guess.rule == rule]:
            flags.append(f"--{flag} {' '.join(names)}")
    say(f"For another choice, stop and name the columns, as in: {' '.join(flags)}")


def report(summary: Summary, output: Path, memory: int | None = None) -> None:
    """Prints the splits and the fields of the new store, the duration and the bytes of memory."""
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
        say(f"warning: {describe_drift(summary.drifts)}")
    if summary.complaint:
        say(f"{summary.bad_rows:,} bad rows skipped; the first: {summary.complaint}")
    if summary.empty:
        say(f"{len(summary.empty):,} empty files skipped; the first: {summary.empty[0]}")
    rows = sum(summary.rows)
    say(
        f"{rows:,} rows, {len(summary.schema.fields)} fields, {sum(summary.schema.sizes):,} ids "
        f"in {summary.seconds:.1f} s ({rows / summary.seconds:,.0f} rows/s)"
        + (f", peak memory {memory / 1e9:.2f} GB" if memory else "")
    )


def main() -> None:
    """Reads the command line and prepares the log."""
    job = tyro.cli(Command, description=__doc__)
    if isinstance(job, Encoded):
        data = convert_encoded(job.input, job.output, job.fields)
        rows = sum(len(split.labels) for split in (data.train, data.valid, data.test))
        say(f"{job.output}: {rows:,} rows, {len(data.schema.fields)} fields")
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
        schema=job.old_schema,
        bins=job.bins if isinstance(job, Table) else Table.bins,
    )
    report(summary, job.output, peak_bytes())


if __name__ == "__main__":
    run_cli(main)
