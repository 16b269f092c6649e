"""What a raw click log is to the rest of the package: chunks of clean text columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ihas_jax.data.records import Complaint
from ihas_jax.data.schema import FieldKind

Fields = tuple[tuple[str, FieldKind], ...]

_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class Chunk:
    """Some rows of a log, in its order, those that cannot be used left out.

    Attributes:
      labels: [n] UInt8, 0 or 1.
      frame: A text column per field, as they are counted and looked up.
      bad: How many rows were left out.
      complaint: About the first of these: the file, the line and what is wrong.
      share: The share of the log read so far, in (0, 1].
    """

    labels: pl.Series
    frame: pl.DataFrame
    bad: int
    complaint: str | None
    share: float


@dataclass(frozen=True)
class Log(ABC):
    """A raw log.

    Attributes:
      path: Where it is.
      label: The name of its label.
      fields: The names and kinds of the columns to encode.
    """

    path: Path
    label: str
    fields: Fields

    @abstractmethod
    def chunks(self) -> Iterator[Chunk]:
        """Reads the log from its start; every call gives the same chunks.

        Raises:
          InputError: The file cannot be read, is empty or damaged, or lacks a column.
        """


def field_text(name: str, kind: FieldKind) -> pl.Expr:
    """A raw column as the text that vocabularies hold; null where it cannot be understood.

    Categorical: the value as text, a null as the empty string. Integer: the rule of Criteo's
    winning entry, as in pytorch-fm. Missing (null, empty, NaN) is "NULL"; of anything else the
    integer part v counts: `int(ln(v)^2)` where v > 2, v - 2 elsewhere. No ln(v)^2 of an integer
    below 2^31 comes within 1e-11 of an integer, so every machine truncates alike.
    """
    raw = pl.col(name)
    if kind == "categorical":
        return raw.cast(pl.String).fill_null("")
    number = raw.cast(pl.Float64, strict=False)
    missing = raw.is_null() | (raw.cast(pl.String) == "") | number.is_nan()
    v = number.fill_nan(None).cast(pl.Int64, strict=False)
    squashed = (v.cast(pl.Float64).log() ** 2).cast(pl.Int64, strict=False)
    code = pl.when(v > 2).then(squashed).otherwise(v - 2).cast(pl.String)
    return pl.when(missing).then(pl.lit("NULL")).otherwise(code).alias(name)


def screen(
    log: Log,
    raw: pl.DataFrame,
    places: pl.Series,
    share: float,
    *,
    unit: str = "line",
    bad: int = 0,
    complaint: Complaint | None = None,
) -> Chunk:
    """Turns raw columns into labels and text, and leaves out rows that cannot be used.

    Args:
      log: The log; its label and field columns are in `raw`.
      raw: The columns as they were read.
      places: [n], the line or row number of each row.
      share: The share of the log read so far.
      unit: What `places` counts: "line" or "row".
      bad: Rows that the reader has left out already.
      complaint: About the first of these.
    """
    label = (
        pl.col(log.label)
        .cast(pl.String)
        .replace_strict(_LABELS, default=None, return_dtype=pl.UInt8)
    )
    text = (field_text(name, kind) for name, kind in log.fields)
    # Lazily, because the lazy engine finds common subexpressions and is three times as fast.
    clean = raw.lazy().select(label.alias(log.label), *text).collect()
    usable = clean.select(pl.all_horizontal(pl.all().is_not_null())).to_series()
    if not usable.all():
        wrong = usable.not_().arg_true()
        row = wrong[0]
        first = Complaint(places[row], _reason(log, raw.row(row, named=True), clean[row]))
        complaint = min(complaint, first) if complaint else first
        bad += len(wrong)
        clean = clean.filter(usable)
    where = f"{log.path}, {unit} {complaint.line}: {complaint.reason}" if complaint else None
    return Chunk(clean[log.label], clean.drop(log.label), bad, where, share)


def _reason(log: Log, raw: dict[str, object], clean: pl.DataFrame) -> str:
    """Says what is wrong with a row: its values as read, and [1] cleaned with nulls."""
    if clean[log.label][0] is None:
        return f"the label {log.label} is {_shown(raw[log.label])}, not 0 or 1"
    name = next(name for name, _ in log.fields if clean[name][0] is None)
    return f"{name} is {_shown(raw[name])}, not a number"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
