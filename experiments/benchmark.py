"""Measures ihas_jax and plain PyTorch: prints a table, writes Markdown, JSON and a figure."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal, cast, get_args

import tyro
from bench.common import HAS_TORCH, Row, Settings, torch_threads
from bench.feeding import measure_feeding
from bench.kept import Kept
from bench.limits import measure_breakdown, measure_limit
from bench.runs import (
    measure_clusters,
    measure_full_run,
    measure_memory,
    measure_seeds,
    measure_stages,
)
from bench.steps import measure_scaling, measure_search_step, measure_training_step
from bench.workload import ROWS, Shape
from common import BLUE, RED, machine, markdown_table, panels, write_results
from matplotlib.figure import Figure

from ihas_jax.data.open import open_store
from ihas_jax.errors import InputError, run_cli
from ihas_jax.names import markdown, printable
from ihas_jax.pipeline.parts import require_parts
from ihas_jax.progress import console, say
from ihas_jax.reporting.tables import Grid

Measure = Literal[
    "criteo",
    "avazu",
    "search",
    "scaling",
    "limit",
    "breakdown",
    "memory",
    "feeding",
    "clusters",
    "seeds",
    "stages",
    "full",
]


@dataclass(frozen=True)
class Arguments:
    """Measures training, search, memory and whole stages; ihas_jax and PyTorch take turns.

    Each measure is written when it is done. The same command goes on where it was cut short, and
    another one adds its measures to those that --results has, in place of older ones.

    PyTorch needs `pip install -e '.[bench]'`; without it, ihas_jax is measured alone. Nothing else
    should run at the same time.
    """

    settings: Settings = field(default_factory=Settings)
    """The size and the number of measurements."""
    only: tuple[Measure, ...] = get_args(Measure)
    """The measures to take."""
    data: Path | None = None
    """The folder that prepare.py made, for 'stages'; without it, 'stages' is left out."""
    epochs: int = 3
    """The number of epochs of each training in 'stages', on both sides."""
    stage_turns: int = 3
    """The number of turns of each side in 'stages'."""
    memory_rows: int = 2_000_000
    """The number of rows of the log of 'memory'."""
    feeding_rows: int = 2_000_000
    """The number of rows of the store of 'feeding'."""
    cluster_rows: int = 1_000_000
    """The number of rows of the log of 'clusters'."""
    full_shape: Shape | None = None
    """The shape of the log of 'full', a whole run; without it, 'full' is left out."""
    full_rows: int | None = None
    """The number of rows of the log of 'full'; by default that of the real log."""
    results: Path = Path("runs/benchmark")
    """The path of the results, without their endings .md, .json and .png."""


def main() -> None:
    """Parses the command line, measures, writes the results."""
    arguments = tyro.cli(Arguments)
    if not HAS_TORCH:
        say("torch is not installed, so ihas_jax is measured alone; pip install -e '.[bench]'")
    measures, missing = _measures(arguments), list[str]()
    without: tuple[str, ...] = ()
    asked = json.loads(json.dumps(asdict(arguments), default=str))
    can = [name for name in arguments.only if measures[name] is not None]
    kept = Kept(Path(f"{arguments.results}.json"), asked, can)
    for lacking in [name for name in arguments.only if name not in can]:
        needs = "--data, a folder made by prepare.py" if lacking == "stages" else "--full-shape"
        missing.append(f"'{lacking}' needs {needs}")
        say(f"[{lacking}] left out: it needs {needs}")
    if not can:
        raise InputError(f"Nothing was measured: {'; '.join(missing)}.")
    if kept.resumed:
        say(f"{kept.path} goes on with {', '.join(kept.left)}")
    for name in [*kept.left]:
        measure = measures[cast(Measure, name)]
        assert measure is not None
        say(f"[{name}] starts")
        row = measure()
        row.about = [*_about(), _turns(arguments)]
        kept.add(name, row)
        without = _write(kept)
    for about, rows in kept.by_command():
        for line in about:
            console.print(line)
        console.print(_table(rows))
    require_parts(without, f"{arguments.results}.json")
    say(f"Results: {arguments.results}.md, .json and .png")


def _measures(arguments: Arguments) -> dict[Measure, Callable[[], Row] | None]:
    settings, data, shape = arguments.settings, arguments.data, arguments.full_shape

    def stages() -> Row:
        assert data is not None
        name = data.resolve().name
        turns = arguments.stage_turns
        return measure_stages(open_store(data), name, arguments.epochs, turns)

    def full() -> Row:
        assert shape is not None
        return measure_full_run(settings, arguments.full_rows or ROWS[shape], shape)

    return {
        "criteo": lambda: measure_training_step("criteo", settings),
        "avazu": lambda: measure_training_step("avazu", settings),
        "search": lambda: measure_search_step(settings),
        "scaling": lambda: measure_scaling(settings),
        "limit": lambda: measure_limit(settings),
        "breakdown": lambda: measure_breakdown(settings),
        "memory": lambda: measure_memory(settings, arguments.memory_rows),
        "feeding": lambda: measure_feeding(settings, arguments.feeding_rows),
        "clusters": lambda: measure_clusters(settings, arguments.cluster_rows),
        "seeds": lambda: measure_seeds(settings),
        "stages": None if data is None else stages,
        "full": None if shape is None else full,
    }


_HEADERS = ("measure", "side", "median", "ratio", "goal")
_TEXTS = (0, 1)
_LINE = 160
"""The largest number of characters in a line of the figure."""


def _table(rows: Sequence[Row]) -> Grid:
    cells: list[tuple[str, ...] | None] = []
    for row in rows:
        cells += [*_cells(row), None]
    return Grid("Benchmark", _HEADERS, cells, _TEXTS)


def _cells(row: Row) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for i, (name, value) in enumerate(row.values.items()):
        ratio = f"{row.ratios[name]:.2f}" if name in row.ratios else ""
        goal = f"{row.goals[name]:g}" if name in row.goals else ""
        lines.append((row.measure if i == 0 else "", name, f"{value:.3g} {row.unit}", ratio, goal))
    return lines


def _turns(arguments: Arguments) -> str:
    return (
        f"- medians over {arguments.settings.turns} turns of each side ({arguments.stage_turns} of "
        "whole stages; memory, the parts of a step, clustering and a whole run once)"
    )


def _write(kept: Kept) -> tuple[str, ...]:
    rows = [*kept.rows.values()]
    content = {
        "asked": kept.asked,
        "left": kept.left,
        "rows": [asdict(row) | {"ratios": row.ratios} for row in rows],
    }
    figures = {".png": lambda: _draw(rows)}
    return write_results(
        Path(str(kept.path).removesuffix(".json")), content, lambda: _lines(kept), figures
    )


def _lines(kept: Kept) -> list[str]:
    lines = [
        "# Benchmark",
        "",
        "Ratio: time as a multiple of the first side's. Goal: the ratio that we wanted.",
        "",
    ]
    for about, rows in kept.by_command():
        cells = [[*map(markdown, cells)] for row in rows for cells in _cells(row)]
        facts = [f"- {markdown(row.measure)}: {_sentence(row)}" for row in rows if row.facts]
        table = markdown_table(_HEADERS, cells, _TEXTS)
        lines += [*about, "", *table, "", *([*facts, ""] if facts else [])]
    return lines


def _about() -> list[str]:
    """List items on hardware, versions and command."""
    torch = f"{version('torch')}, {torch_threads()} threads" if HAS_TORCH else "not measured"
    return [*machine(), f"- torch: {torch}"]


def _sentence(row: Row) -> str:
    def show(value: object) -> str:
        return f"{value:,.4g}" if isinstance(value, float) else str(value)

    return "; ".join(f"{name} {show(value)}" for name, value in row.facts.items())


def _plain(line: str) -> str:
    """A line of Markdown as a text for matplotlib; a long line is wrapped."""
    return textwrap.fill(printable(line).replace("`", "").replace("$", r"\$"), _LINE)


def _draw(rows: Sequence[Row]) -> Figure:
    """One panel of bars for each row of the table."""
    figure, axes = panels(len(rows), 2, (11, 1.4 + 2.1 * -(-len(rows) // 2)))
    abouts = dict.fromkeys(line for row in rows for line in row.about)
    figure.suptitle("\n".join(_plain(line) for line in abouts), fontsize=7)
    for axis, row in zip(axes, rows, strict=True):
        names, values = list(row.values), list(row.values.values())
        colors = [RED if name.startswith("torch") else BLUE for name in names]
        bars = axis.barh(names, values, color=colors)
        labels = [
            f"{value:.3g}" + (f"  ({row.ratios[name]:.1f} x)" if name in row.ratios else "")
            for name, value in row.values.items()
        ]
        axis.bar_label(bars, labels, padding=3, fontsize=8)
        axis.set_title(f"{_plain(row.measure)} [{row.unit}]", fontsize=9, loc="left")
        axis.margins(x=0.25)
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
    return figure


if __name__ == "__main__":
    run_cli(main)
