"""Predicts files of raw rows by the model of a run: `predict.py --run RUN --input FILE ...`."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts("nothing was written")  # importing what follows takes seconds

import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from bench.peak import peak_bytes

from ihas_jax.data.drift import describe_drift
from ihas_jax.data.raw.parts import find_parts
from ihas_jax.data.raw.rows import RowFiles, open_rows
from ihas_jax.errors import InputError, run_cli
from ihas_jax.programs import kept_programs
from ihas_jax.progress import say
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.outputs import csv_writer, new_file
from ihas_jax.serving.predict_files import Outcome, output_kinds, predict_files
from ihas_jax.serving.storage import load_bundle

_STDOUT = Path("-")


@dataclass(frozen=True)
class Arguments:
    """Predicts every row of raw files by the model of a run.

    The output has a row for each row of the input, in the same order. Its columns are those of
    --keep, then `probability` (of a click, float32) and, where the run has a model for each cluster
    of rows, `cluster` (from 0 on, as in the report of the run). Columns of the input may have any
    order, and those that the model does not know are ignored. AUC and logloss are printed where the
    input has the label.
    """

    run: Path
    """The folder of a run, or of its bundle."""
    input: tuple[Path, ...]
    """The rows, as prepare.py reads them.
    These are CSV with a header, Criteo's lines with or without label, plain or gzip, Parquet, or
    ml-1m.zip. Several files, a pattern in quotes such as 'day_*.gz', or a folder are read in order.
    """
    output: Path
    """The file to make, .parquet or .csv, or - for CSV on stdout, where nothing else goes then."""
    keep: tuple[str, ...] = ()
    """The columns of the input to write as they are before the predictions, such as id."""
    label: str | None = None
    """The column that is 0 or 1; by default the label of the run's log, if the input has it."""
    score: bool = True
    """Whether AUC and logloss are printed where there is a label; otherwise it is not read."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """Whether a row that cannot be used is an error, or is skipped and counted.
    A skipped row has no row in the output; --keep tells which rows are there."""
    separator: str = ","
    """The character between the columns of a CSV; '\\t' or tab is a tab."""
    overwrite: bool = False
    """Whether the output may take the place of a file, which stays until all rows are written."""


def main() -> None:
    """Reads the command line, predicts and reports."""
    arguments = tyro.cli(Arguments)
    with kept_programs():
        run(arguments)


def run(arguments: Arguments) -> None:
    """Predicts, and keeps stdout clear of all else if the predictions go there."""
    if arguments.output != _STDOUT:
        predict(arguments)
        return
    if sys.stdout is None:
        raise InputError("--output - is stdout, which is closed; open it, or name a file")
    with redirect_stdout(sys.stderr):  # messages and bars
        try:
            predict(arguments)
        except BrokenPipeError:
            say("The reader of stdout has ended before all rows were written.")
            raise SystemExit(1) from None


def predict(arguments: Arguments) -> None:
    """Predicts the files."""
    paths = find_parts(arguments.input)
    bundle = load_bundle(arguments.run)
    source = open_rows(
        paths,
        bundle.schema,
        label=arguments.label,
        labelled=arguments.score,
        keep=arguments.keep,
        separator="\t" if arguments.separator in ("tab", "\\t") else arguments.separator,
    )
    start = time.monotonic()
    outcome = write(arguments, bundle, source)
    report(outcome, source, time.monotonic() - start)


def write(arguments: Arguments, bundle: Bundle, source: RowFiles) -> Outcome:
    """Writes the predictions to the output."""
    kinds, output = output_kinds(bundle, source), arguments.output
    if output == _STDOUT:
        add = csv_writer(1, kinds, "stdout")
        return predict_files(bundle, source, add, on_bad_rows=arguments.on_bad_rows)
    if output.exists() and any(path.samefile(output) for path in source.log.paths):
        raise InputError(f"--output {output} is a file of --input; choose another output")
    with new_file(output, kinds, overwrite=arguments.overwrite) as add:
        return predict_files(bundle, source, add, on_bad_rows=arguments.on_bad_rows)


def report(outcome: Outcome, source: RowFiles, seconds: float) -> None:
    """Prints scores, doubts and speed."""
    if outcome.scores:
        say(f"{outcome.scores} (label: {source.label})")
    if outcome.drifts:
        say(f"warning: {describe_drift(outcome.drifts)}")
    if outcome.complaint:
        say(f"{outcome.bad:,} bad rows skipped; the first: {outcome.complaint}")
    if empty := [path for path in source.log.paths if not path.stat().st_size]:
        say(f"{len(empty):,} empty files skipped; the first: {empty[0]}")
    say(
        f"{outcome.rows:,} rows in {seconds:.1f} s ({outcome.rows / seconds:,.0f} rows/s), "
        f"peak memory {peak_bytes() / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    run_cli(main, interrupted="nothing was written")
