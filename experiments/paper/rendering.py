"""Tables 2 and 4 as Markdown, JSON and a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from common import (
    Record,
    gain_cells,
    markdown_table,
    open_logs,
    panels,
    print_results,
    spread_cell,
    write_results,
)
from compare import Scores, Table, Variant, score_all, time_inference
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from ihas_jax.data.dataset import Dataset
from ihas_jax.names import link, markdown
from ihas_jax.reporting.drawing import figure_names
from ihas_jax.reporting.report import provenance
from ihas_jax.training.metrics import auc_text

Times = dict[str, dict[str, float]]
"""`time_inference` by log."""
_COLORS = (*(f"C{i}" for i in range(10)), "black")
_SPAN = 0.03
"""How far below the best mean AUC a panel reaches if there are means still lower."""


def tabulate(
    record: Record,
    paths: Sequence[Path],
    title: str,
    variants_of: Callable[[str, Dataset], list[Variant]],
    note: Callable[[], str],
) -> None:
    """Scores variants on logs, writes the table after each log, and prints it at the end.

    Args:
      record: holds the scores of an earlier call, which are kept.
      paths: stores of the logs.
      title: heading.
      variants_of: the rows for a log and its name, the base model first.
      note: what the reader must know of this table, as Markdown.
    """
    table: Table = record.earlier()
    times: Times = {}
    missing: tuple[str, ...] = ()
    seeds = record.arguments.seed_range
    for name, data in open_logs(paths).items():
        folder, scores = record.arguments.output / name, table.setdefault(name, {})
        variants = variants_of(name, data)
        score_all(variants, data, folder, seeds, scores, lambda: record.save(table))
        scored = [variant for variant in variants if variant.name in scores]
        times[name] = time_inference(scored, data, folder, seeds[0])
        missing = write(record, title, variants, table, times, note())
    print_results(record.arguments.results, missing)


def write(
    record: Record, title: str, variants: Sequence[Variant], table: Table, times: Times, note: str
) -> tuple[str, ...]:
    """Writes a table as JSON and Markdown, and its figure, of the logs that have `times`.

    Returns:
      The files that could not be made.
    """
    content = record.content(table) | {"inference": times}
    names = figure_names(list(times), "log")

    def lines() -> list[str]:
        return _lines(record, title, variants, table, times, note)

    def draw_table() -> Figure:
        shown = {
            text: {v.title: table[name][v.name] for v in variants if v.name in table[name]}
            for name, text in zip(times, names.texts, strict=True)
        }
        return draw(shown)

    return write_results(record.arguments.results, content, lines, draw_table, names)


def _lines(
    record: Record, title: str, variants: Sequence[Variant], table: Table, times: Times, note: str
) -> list[str]:
    lines = [f"# {title}", ""]
    for name in times:
        found = [variant for variant in variants if variant.name in table[name]]
        rows = _rows(found, table[name], times[name], name)
        lines += [f"## {markdown(name)}", "", *markdown_table(_HEADERS, rows), ""]
        if refused := [variant.title for variant in variants if variant not in found]:
            lines += [f"Left out, as the command's output explains: {', '.join(refused)}.", ""]
    return [
        *lines,
        f"{_ABOUT.format(jax.devices()[0].device_kind)} {note}",
        "",
        f"![Test AUC and size]({link(record.arguments.results.name)}.png)",
        "",
        "Seeds are dots, their means diamonds. An arrow at the lower edge is a mean so far below "
        "the best that it would leave the others no room; its AUC stands beside it.",
        "",
        *provenance(record.arguments.config),
        "",
    ]


_HEADERS = (
    *("method", "AUC", "logloss", "AUC vs base", "p", "logloss vs base", "p", "AUC vs best", "p"),
    *("size", "MB", "training, s", "inference, µs", "paper"),
)
_ABOUT = (
    "Test split, mean ± standard deviation over seeds. Against base and best (the highest mean "
    "AUC): difference in AUC and, against base, in logloss of the same seed, with the p-value "
    "of a paired t-test, not corrected for the number of tests. Size: parameters over those of "
    "the base model; what iHAS needs to route besides in brackets. MB: float32 parameters, "
    "routing included, and what says which numbers or values are left. Training: seconds "
    "of all stages, compiling included, which takes most of them on a small log (the "
    "base model is compiled once for all seeds, each compact model of other shapes anew). "
    "Inference: microseconds per row of all that a prediction needs, gates and routing "
    "included, medians of turns on {}. Paper: AUC and logloss on the full log."
)


def _rows(
    variants: Sequence[Variant], scores: dict[str, list[Scores]], times: dict[str, float], log: str
) -> list[list[str]]:
    base = scores[variants[0].name]
    best = max((scores[v.name] for v in variants), key=lambda runs: _mean(runs, "auc"))
    size = _mean(base, "parameters")
    rows = []
    for variant in variants:
        runs = scores[variant.name]
        share, router = (_mean(runs, key) / size for key in ("parameters", "router_parameters"))
        paper = next((p for name, p in variant.paper.items() if log.startswith(name)), ())
        rows.append(
            [
                variant.title,
                spread_cell(runs, "auc"),
                spread_cell(runs, "logloss"),
                *gain_cells(base, runs, "auc"),
                *gain_cells(base, runs, "logloss"),
                *gain_cells(best, runs, "auc"),
                f"{share:.2f} (+{router:.2f})" if router else f"{share:.2f}",
                f"{_mean(runs, 'bytes') / 1e6:.2f}",
                f"{_mean(runs, 'training_seconds'):.0f}",
                f"{times[variant.name]:.2f}",
                " ".join(f"{number:.4f}" for number in paper),
            ]
        )
    return rows


def _mean(runs: list[Scores], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))


def say_undefined(panel: Axes, runs: Sequence[Scores]) -> None:
    """Says in an empty panel why there is no AUC."""
    undefined = next(run for run in runs if np.isnan(run["auc"]))
    panel.text(
        0.5, 0.5, f"AUC {auc_text(undefined)}", ha="center", wrap=True, transform=panel.transAxes
    )


def draw(table: Table) -> Figure:
    """Test AUC against parameters, those of routing included: seeds are dots, means diamonds.

    A mean far below the best, and what else lies there, would leave the others no room: it is an
    arrow at the lower edge with its AUC beside it.

    Args:
      table: scores by what the figure calls the log, a panel each, and title.
    """
    figure, axes = panels(len(table), len(table), (4.2 * len(table) + 1.2, 4.0))
    titles = list(dict.fromkeys(title for variants in table.values() for title in variants))
    colors = {title: _COLORS[i % len(_COLORS)] for i, title in enumerate(titles)}
    for panel, (name, variants) in zip(axes, table.items(), strict=True):
        panel.set(title=name, xlabel="parameters, routing included", ylabel="test AUC")
        means = {title: _mean(runs, "auc") for title, runs in variants.items()}
        if np.isnan(list(means.values())).any():  # of one class, which all variants are tested on
            say_undefined(panel, next(iter(variants.values())))
            continue
        lowest = max(means.values()) - _SPAN
        for title, runs in variants.items():
            sizes = [run["parameters"] + run["router_parameters"] for run in runs]
            size, color = float(np.mean(sizes)), colors[title]
            if means[title] < lowest:
                panel.plot(size, lowest, "v", color=color, clip_on=False)
                panel.annotate(
                    f"{means[title]:.3f}",
                    (size, lowest),
                    xytext=(6, 2),
                    textcoords="offset points",
                    fontsize=8,
                    color=color,
                )
                panel.set_ylim(bottom=lowest)
            else:
                panel.plot(sizes, [run["auc"] for run in runs], ".", color=color, alpha=0.6)
                panel.plot(size, means[title], "D", color=color, markersize=5)
        panel.set_xscale("log")
        narrow = np.ptp(np.log10(panel.get_xlim())) < 2
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        panel.xaxis.set_major_formatter(EngFormatter())
        panel.xaxis.set_minor_formatter(NullFormatter())
    handles = [Line2D([], [], color=colors[t], marker="D", ls="", ms=5, label=t) for t in titles]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure
