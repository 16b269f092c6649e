"""Tables 2 and 4 as Markdown, JSON and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from variants import Scores, Shared, Table, Variant

from ihas_jax.names import link, markdown
from ihas_jax.reporting.comparison import auc_spread, paired_gain, spread
from ihas_jax.reporting.drawing import figure_names
from ihas_jax.reporting.report import provenance
from ihas_jax.stages.parts import write_results
from ihas_jax.training.metrics import auc_text

_COLORS = (*(f"C{i}" for i in range(10)), "black")
_SPAN = 0.03
"""How far below the best mean AUC a panel reaches if there are means still lower."""


def write(
    results: Path,
    title: str,
    variants: Sequence[Variant],
    table: Table,
    inference: dict[str, dict[str, float]],
    shared: Shared,
    note: str,
) -> tuple[str, ...]:
    """Writes a table as JSON and Markdown, and its figure.

    Args:
      results: path of the files without .md, .json and .png.
      title: heading.
      variants: the rows, the base model first.
      table: scores.
      inference: `time_inference` by log, of the logs to show.
      shared: what the variants share.
      note: what the reader must know of this table, as Markdown.

    Returns:
      The files that could not be made.
    """
    content = {"logs": table, "inference": inference, **shared.content()}
    names = figure_names(list(inference), "log")

    def lines() -> list[str]:
        return _lines(results, title, variants, table, inference, shared, note)

    def draw_table() -> Figure:
        shown = {
            text: {v.title: table[name][v.name] for v in variants if v.name in table[name]}
            for name, text in zip(inference, names.texts, strict=True)
        }
        return draw(shown)

    return write_results(results, content, lines, draw_table, names)


def _lines(
    results: Path,
    title: str,
    variants: Sequence[Variant],
    table: Table,
    inference: dict[str, dict[str, float]],
    shared: Shared,
    note: str,
) -> list[str]:
    """The Markdown file's."""
    lines = [f"# {title}", ""]
    for name, times in inference.items():
        found = [variant for variant in variants if variant.name in table[name]]
        lines += [f"## {markdown(name)}", "", *_markdown(found, table[name], times, name), ""]
        if refused := [variant.title for variant in variants if variant not in found]:
            lines += [f"Left out, as the command's output explains: {', '.join(refused)}.", ""]
    return [
        *lines,
        "Test split, mean ± standard deviation over seeds. Against base and best (the highest mean "
        "AUC): difference in AUC and, against base, in logloss of the same seed, with the p-value "
        "of a paired t-test, not corrected for the number of tests. Size: parameters over those of "
        "the base model; what iHAS needs to route besides in brackets. MB: float32 parameters, "
        "routing included, and what says which numbers or values are left. Training: seconds "
        "of all stages, compiling included, which takes most of them on a small log (the "
        "base model is compiled once for all seeds, each compact model of other shapes anew). "
        "Inference: microseconds per row of all that a prediction needs, gates and routing "
        f"included, medians of turns on {jax.devices()[0].device_kind}. Paper: AUC and logloss on "
        "the full log. "
        f"{note}",
        "",
        f"![Test AUC and size]({link(results.name)}.png)",
        "",
        "Seeds are dots, their means diamonds. An arrow at the lower edge is a mean so far below "
        "the best that it would leave the others no room; its AUC stands beside it.",
        "",
        *provenance(shared.config),
        "",
    ]


def _markdown(
    variants: Sequence[Variant], scores: dict[str, list[Scores]], times: dict[str, float], name: str
) -> list[str]:
    auc, logloss = (
        {v.name: [run[metric] for run in scores[v.name]] for v in variants}
        for metric in ("auc", "logloss")
    )
    base = variants[0].name
    best = max(auc, key=lambda variant: float(np.mean(auc[variant])))
    size = _mean(scores[base], "parameters")
    lines = [
        "| method | AUC | logloss | AUC vs base | p | logloss vs base | p | AUC vs best | p | "
        "size | MB | training, s | inference, µs | paper |",
        f"|---|{'---:|' * 13}",
    ]
    for variant in variants:
        runs = scores[variant.name]
        cells = [auc_spread(runs), f"{spread(logloss[variant.name]):.4f}"]
        for values, other in ((auc, base), (logloss, base), (auc, best)):
            cells += _difference(values, variant.name, other)
        router = _mean(runs, "router_parameters")
        share = f"{_mean(runs, 'parameters') / size:.2f}"
        cells.append(f"{share} (+{router / size:.2f})" if router else share)
        cells.append(f"{_mean(runs, 'bytes') / 1e6:.2f}")
        cells.append(f"{_mean(runs, 'training_seconds'):.0f}")
        cells.append(f"{times[variant.name]:.2f}")
        paper = next((p for log, p in variant.paper.items() if name.startswith(log)), ())
        cells.append(" ".join(f"{number:.4f}" for number in paper))
        lines.append(f"| {variant.title} | {' | '.join(cells)} |")
    return lines


def _difference(values: dict[str, list[float]], name: str, other: str) -> list[str]:
    if name == other:
        return ["", ""]
    gain = paired_gain(values[name], values[other])
    return [f"{gain.spread:+.4f}", gain.p_text]


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
    figure = Figure(figsize=(4.2 * len(table) + 1.2, 4.0), layout="constrained")
    panels = figure.subplots(1, len(table), squeeze=False)[0]
    titles = list(dict.fromkeys(title for variants in table.values() for title in variants))
    colors = {title: _COLORS[i % len(_COLORS)] for i, title in enumerate(titles)}
    for panel, (name, variants) in zip(panels, table.items(), strict=True):
        panel.set(title=name, xlabel="parameters, routing included", ylabel="test AUC")
        panel.spines[["top", "right"]].set_visible(False)
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
                    f"{means[title]:.3f}", (size, lowest), xytext=(6, 2),
                    textcoords="offset points", fontsize=8, color=color,
                )  # fmt: skip
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
