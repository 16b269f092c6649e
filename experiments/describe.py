"""Describes a store: rows, label rates, fields, and the frequencies of their values."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure

from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.drift import describe_drift, find_drift
from ihas_jax.data.encoded import verify_encoded
from ihas_jax.data.open import open_store
from ihas_jax.data.split import SPLITS
from ihas_jax.data.store import read_description, verify_store
from ihas_jax.errors import InputError, run_cli
from ihas_jax.names import printable
from ihas_jax.progress import console, say, track
from ihas_jax.reporting.drawing import FigureNames, figure_names, save_figure
from ihas_jax.reporting.tables import Grid

_BLOCK_ROWS = 1 << 18
_FIGURES = (".png", ".pdf", ".svg")
_NAMED = 10


@dataclass(frozen=True)
class Arguments:
    """Describes a store that prepare.py or prepare_spark.py made."""

    store: tyro.conf.Positional[Path]
    """The store's folder."""
    verify: bool = False
    """Whether every file is compared with the checksum that was written with it."""
    figure: Path | None = None
    """The file for a figure of the frequencies of the values (.png, .pdf or .svg)."""


def main() -> None:
    """Reads the command line, prints tables, draws the figure."""
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.figure and arguments.figure.suffix not in _FIGURES:
        raise InputError(f"--figure {arguments.figure} must end in {', '.join(_FIGURES)}")
    data = open_store(arguments.store)
    # encoded Parquet opens too, but has no description
    ours = (arguments.store / "store.json").exists()
    if arguments.verify:
        (verify_store if ours else verify_encoded)(arguments.store)
        say("Every file has the checksum that was written with it.")
    counts = count_values(data)
    origin = read_description(arguments.store)["origin"] if ours else {}
    console.print(describe_splits(data, origin))
    console.print(describe_fields(data, counts))
    rows = max(int(counts[0].sum()), 1)
    if drifts := find_drift(data.schema, [count[-1] / rows for count in counts], rows):
        say(f"warning: {describe_drift(drifts)}")
    if arguments.figure:
        try:
            arguments.figure.parent.mkdir(parents=True, exist_ok=True)
            names = figure_names(data.schema.names)
            save_figure(arguments.figure, lambda: draw_frequencies(names, counts), names.fonts)
        except OSError as error:
            raise InputError(f"{arguments.figure} cannot be written: {error.strerror}") from None
        if note := names.note():
            say(note)
        say(f"Figure: {arguments.figure}")


def count_values(data: Dataset) -> list[np.ndarray]:
    """Counts the rows of each id of each field over all splits: N arrays `[size]`."""
    counts = [np.zeros(size, np.int64) for size in data.schema.sizes]
    splits: list[Split] = [getattr(data, name) for name in SPLITS]
    with track("Counting", sum(len(split.labels) for split in splits)) as progress:
        for split in splits:
            for start in range(0, len(split.labels), _BLOCK_ROWS):
                block = np.asarray(split.ids[start : start + _BLOCK_ROWS])
                for field, column in zip(counts, np.ascontiguousarray(block.T), strict=True):
                    field += np.bincount(column, minlength=len(field))
                progress.advance(len(block))
    return counts


def describe_splits(data: Dataset, origin: dict[str, object]) -> Grid:
    """Makes a table of rows and label rates."""
    shown = [f"label: {data.schema.label}"]
    for name, value in origin.items():
        text = " ".join(map(str, value)) if isinstance(value, list) else value
        shown.append(f"{name.replace('_', ' ')}: {text}")
    parts: list[np.ndarray] = []
    rows: list[tuple[str, ...] | None] = []
    for name in SPLITS:
        labels = np.asarray(getattr(data, name).labels)
        parts.append(labels)
        rows.append(_split_row(name, labels))
    rows += [None, _split_row("all", np.concatenate(parts))]
    return Grid(", ".join(shown), ("split", "rows", "label rate"), rows)


def _split_row(name: str, labels: np.ndarray) -> tuple[str, ...]:
    return name, f"{len(labels):,}", f"{labels.mean():.4f}" if len(labels) else ""


def describe_fields(data: Dataset, counts: list[np.ndarray]) -> Grid:
    """Makes a table of kinds, sizes, and the shares of "other" and of the most frequent value.

    "expected" is the share of "other" in the log from which the values were counted.
    """
    table = []
    for field, count in zip(data.schema.fields, counts, strict=True):
        rows = max(int(count.sum()), 1)
        top = int(count[:-1].argmax()) if field.values else None
        table.append(
            (
                field.name,
                field.kind,
                f"{field.size:,}",
                f"{count[-1] / rows:.2%}",
                "" if field.other_share is None else f"{field.other_share:.2%}",
                "" if top is None else _short(field.values[top]),
                "" if top is None else f"{count[top] / rows:.2%}",
            )
        )
    headers = ("field", "kind", "ids", "other", "expected", "most frequent value", "its share")
    return Grid("", headers, table, texts=(0, 1, 5))


def draw_frequencies(names: FigureNames, counts: list[np.ndarray]) -> Figure:
    """Draws the rows of each value by rank, a line per field; both axes are logarithmic."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.add_subplot()
    order = sorted(range(len(counts)), key=lambda n: -len(counts[n]))
    for place, n in enumerate(order):
        ranked = np.sort(counts[n][:-1])[::-1]
        ranked = ranked[ranked > 0]
        if place < _NAMED:
            label = f"{names.texts[n]} ({len(counts[n]):,} ids)"
            dashes = ("-", "--", ":")[place % 3]  # ten colours alone are hard to tell apart
            style: dict[str, Any] = {"lw": 1.2, "ls": dashes, "zorder": 3, "label": label}
        else:
            style = {"lw": 0.7, "color": "0.8", "label": "the others" if place == _NAMED else None}
        axis.loglog(np.arange(1, len(ranked) + 1), ranked, **style)
    axis.set_xlabel("rank of the value in its field")
    axis.set_ylabel("rows that hold it")
    axis.set_title('Frequencies of the values, without "other"', loc="left", fontsize=10)
    axis.set_xlim(left=0.9)
    axis.legend(frameon=False, fontsize=8, title="fields, the largest first", title_fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _short(text: str) -> str:
    shown = f"'{printable(text)}'"
    return shown if len(shown) <= 48 else f"{shown[:48]}..."


if __name__ == "__main__":
    run_cli(main)
