"""Measures `prepare`, pandas and a Python loop on generated logs of Criteo's shape."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import math
import multiprocessing
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tyro
from bench.peak import peak_bytes, watch_family
from common import machine, markdown_table, write_results
from generate import FULL_ROWS, lines
from prepare_spark import connect

from ihas_jax.data.raw import formats
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.errors import run_cli
from ihas_jax.pipeline.parts import require_parts
from ihas_jax.progress import console, say, track
from ihas_jax.reporting.tables import Grid

_MIN_COUNT = 10
_NUMBERS = 13


@dataclass(frozen=True)
class Arguments:
    """Writes a log of Criteo's shape of each size, prepares it and deletes it.

    The first log is also prepared in two plain ways: with pandas (if it is installed), and line
    by line in Python, as pytorch-fm does. With --spark each log is prepared by Spark instead.
    """

    rows: tuple[int, ...] = (1_000_000, 4_000_000, FULL_ROWS)
    """The number of rows of each log; the full log needs 30 GB of disk."""
    turns: int = 3
    """The number of turns of ihas_jax and pandas on the first log; the loop has one turn."""
    spark: bool = False
    """Whether Spark on this machine is compared, instead of the plain ways; on Linux.
    Its memory is that of all its processes."""
    folder: Path | None = None
    """The folder for logs and stores; a temporary folder by default."""
    results: Path = Path("runs/ingest")
    """The path of the results, without their endings .md and .json."""


def main() -> None:
    """Parses the command line, measures, writes the results."""
    arguments = tyro.cli(Arguments)
    found = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for number, rows in enumerate(arguments.rows):
            path = Path(folder) / "train.txt"
            _write(path, rows)
            first = number == 0
            sides: dict[str, Callable[[Path], dict[str, float]]] = {"ihas_jax": _ours}
            if arguments.spark:
                sides["Spark"] = _with_spark
            elif first and find_spec("pandas"):
                sides["pandas"] = _with_pandas
            if first and not arguments.spark:
                sides["Python loop"] = _line_by_line
            taken: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
            for turn in range(arguments.turns if first else 1):
                for name, side in sides.items():
                    if turn == 0 or name != "Python loop":
                        taken[name].append(_measure(side, path))
                        say(f"[{rows:,} rows] {name}: {taken[name][-1]['seconds']:.1f} s")
            found += [_median(rows, path, name, runs) for name, runs in taken.items()]
            path.unlink()
    for row in found:
        comparable = row["rows"] == found[0]["rows"]
        row["ratio"] = row["seconds"] / found[0]["seconds"] if comparable else 0
    console.print(Grid("Preparing a raw log", _HEADINGS, [*map(_cells, found)], _TEXTS))
    _save(found, arguments.results)


def _write(path: Path, rows: int) -> None:
    with path.open("wb") as file, track(f"Writing {rows:,} rows", rows) as progress:
        for count, text in lines(rows, 0):
            file.write(text.data)
            progress.advance(count)


def _measure(side: Callable[[Path], dict[str, float]], path: Path) -> dict[str, float]:
    """Runs one side in a new process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(_timed, side, path).result()


def _timed(side: Callable[[Path], dict[str, float]], path: Path) -> dict[str, float]:
    start = time.perf_counter()
    facts = side(path)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak GB": peak_bytes() / 1e9} | facts


def _ours(path: Path) -> dict[str, float]:
    store = path.with_name("store")
    summary = prepare(formats.criteo(path), store, min_count=_MIN_COUNT)
    size = sum(file.stat().st_size for file in store.iterdir())
    shutil.rmtree(store)
    values = sum(summary.rows) * len(summary.schema.fields)
    return {"ids": sum(summary.schema.sizes), "bytes per value": size / values}


def _with_spark(path: Path) -> dict[str, float]:
    """Spark on this machine, from its start to its end."""
    output = path.with_name("encoded")
    with watch_family() as largest, connect() as context:
        from ihas_jax.data.spark.ingest import prepare_with_spark  # it needs PySpark

        summary = prepare_with_spark(context, formats.criteo(path), output, min_count=_MIN_COUNT)
        peak = largest()
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    shutil.rmtree(output)
    values = sum(summary.rows) * len(summary.schema.fields)
    facts = {"ids": sum(summary.schema.sizes), "bytes per value": size / values}
    return {"peak GB": peak / 1e9} | facts


def _with_pandas(path: Path) -> dict[str, float]:
    """The plain way: read everything, count each column, map it."""
    import pandas

    frame = pandas.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False)
    columns, found = [], 0
    for column in range(1, frame.shape[1]):
        values = frame[column]
        if column <= _NUMBERS:
            values = values.map(_squash)
        counts = values.value_counts()
        kept = counts.index[counts >= _MIN_COUNT]
        ids = {value: number for number, value in enumerate(kept)}
        found += len(kept) + 1
        columns.append(values.map(ids).fillna(len(kept)).astype(np.int32))
    np.save(path.with_name("ids.npy"), np.stack(columns, axis=1))
    path.with_name("ids.npy").unlink()
    return {"ids": float(found)}


def _line_by_line(path: Path) -> dict[str, float]:
    """pytorch-fm's way: two passes over the lines, a dictionary for each field."""
    counts: list[Counter[str]] = []
    with path.open() as file:
        for line in file:
            values = _values(line)
            counts = counts or [Counter() for _ in values]
            for counter, value in zip(counts, values, strict=True):
                counter[value] += 1
    tables = [
        {v: i for i, v in enumerate(v for v, n in counter.items() if n >= _MIN_COUNT)}
        for counter in counts
    ]
    with path.open() as file, path.with_name("ids.bin").open("wb") as out:
        for line in file:
            pairs = zip(tables, _values(line), strict=True)
            ids = [table.get(value, len(table)) for table, value in pairs]
            out.write(np.array(ids, np.int32).tobytes())
    path.with_name("ids.bin").unlink()
    return {"ids": float(sum(len(table) + 1 for table in tables))}


def _values(line: str) -> list[str]:
    values = line.rstrip("\n").split("\t")[1:]
    return [*map(_squash, values[:_NUMBERS]), *values[_NUMBERS:]]


def _squash(value: str) -> str:
    if value == "":
        return "NULL"
    number = int(value)
    return str(int(math.log(number) ** 2)) if number > 2 else str(number - 2)


def _median(rows: int, path: Path, name: str, runs: list[dict[str, float]]) -> dict[str, float]:
    facts = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
    size = path.stat().st_size / 1e9
    return {"rows": rows, "side": name, "text GB": size, **facts}  # type: ignore[dict-item]


def _cells(row: dict[str, float]) -> tuple[str, ...]:
    return (
        f"{row['rows']:,}",
        str(row["side"]),
        f"{row['seconds']:.1f}",
        f"{row['rows'] / row['seconds']:,.0f}",
        f"{row['peak GB']:.2f}",
        f"{row['bytes per value']:.3f}" if "bytes per value" in row else "",
        f"{row['ratio']:.1f}" if row["ratio"] else "",
    )


_HEADINGS = ("rows", "side", "seconds", "rows/s", "peak GB", "store bytes per value", "ratio")
_TEXTS = (1,)


def _save(found: list[dict[str, float]], results: Path) -> None:
    about = machine()
    lines_ = [
        "# Preparing a raw log of Criteo's shape",
        "",
        *about,
        "",
        "Generated text (`experiments/generate.py`), from the file to the finished store, each in "
        "a new process; medians. Ratio: to ihas_jax on the same file.",
        "",
        *markdown_table(_HEADINGS, map(_cells, found), _TEXTS),
        "",
    ]
    content = {"provenance": about, "rows": found}
    require_parts(write_results(results, content, lambda: lines_), f"{results}.json")
    say(f"Results: {results}.md and .json")


if __name__ == "__main__":
    run_cli(main)
