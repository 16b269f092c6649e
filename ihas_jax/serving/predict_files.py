"""Predicts files of raw rows: batches are read, encoded, predicted, scored and written."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Literal

import polars as pl

from ihas_jax.data.drift import Drift
from ihas_jax.data.raw.reading import BadRowError
from ihas_jax.data.raw.rows import RowBatch, RowFiles
from ihas_jax.errors import InputError
from ihas_jax.progress import track
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.outputs import Kinds, Write
from ihas_jax.serving.stream import Predicted, Stream
from ihas_jax.training.metrics import Scores
from ihas_jax.training.running import RunningScores


@dataclass(frozen=True)
class Outcome:
    """The result of `predict_files`.

    Attributes:
      rows: the number of rows written.
      bad: the number of rows that were skipped.
      complaint: what is wrong with the first of these rows, and where it is.
      scores: AUC and logloss; None without rows or without labels.
      drifts: the fields with far more "other" than in the log of the schema.
    """

    rows: int
    bad: int
    complaint: str | None
    scores: Scores | None
    drifts: tuple[Drift, ...]


def output_kinds(bundle: Bundle, source: RowFiles) -> Kinds:
    """The columns that `predict_files` writes, in order, and their types.

    Raises:
      InputError: A column to keep has the name of another one.
    """
    own: dict[str, pl.DataType] = {"probability": pl.Float32()}
    if Stream(bundle).routed:
        own["cluster"] = pl.Int32()
    for name in own.keys() & source.kept.keys():
        raise InputError(
            f"the column {name!r} can't be kept, since the predictions have that name; rename it"
        )
    return {**source.kept, **own}


def predict_files(
    bundle: Bundle,
    source: RowFiles,
    write: Write,
    *,
    on_bad_rows: Literal["error", "skip"] = "error",
) -> Outcome:
    """Predicts all rows of files in their order, in memory that does not grow with their number.

    Args:
      bundle: the models.
      source: the files, from `open_rows`.
      write: called with each part of the rows, whose columns are those of `output_kinds`.
      on_bad_rows: whether a row that can't be used is an error, or is skipped and counted.

    Raises:
      InputError: a file can't be read, or has a row that can't be used.
    """
    kinds, stream, scores = output_kinds(bundle, source), Stream(bundle), RunningScores()
    bad, complaint = 0, None
    batches = source.batches()
    first = next(batches, None)
    total = 0 if first is None else round(len(first.ids) / first.share)
    with track("Predicting", total) as progress:
        for batch in chain([] if first is None else [first], batches):
            if batch.bad and on_bad_rows == "error":
                raise _bad_row(batch, source.label)
            bad, complaint = bad + batch.bad, complaint or batch.complaint
            found = stream(batch.ids)
            if batch.labels is not None:
                scores.add(batch.labels, found.probability)
            write(_frame(kinds, batch, found))
            progress.advance(len(batch.ids))
    return Outcome(stream.rows, bad, complaint, scores.scores, tuple(stream.drifts))


def _frame(kinds: Kinds, batch: RowBatch, found: Predicted) -> pl.DataFrame:
    """The rows to write."""
    own = [pl.Series(one) for one in found if one is not None]
    columns = zip(kinds, (*batch.kept, *own), strict=True)
    return pl.DataFrame([column.alias(name) for name, column in columns])


def _bad_row(batch: RowBatch, label: str | None) -> InputError:
    """The error for the first row that can't be used."""
    if batch.complaint and label and f"the label {label} is" in batch.complaint:
        return InputError(
            f"{batch.complaint}; mend it, leave out such rows with --on-bad-rows skip, or leave "
            "the label unread with --no-score"
        )
    return BadRowError(batch.complaint)
