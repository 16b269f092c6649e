"""Tables 2 and 4 as Markdown, JSON and a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import common
import jax
import numpy as np
from compare import Scores, Variant, score_logs
from comparison import Record
from matplotlib.figure import Figure
from reference import reference_of
from table_figures import draw_sizes
from timing import time_inference

from ihas_jax.data.dataset import Dataset
from ihas_jax.names import link, markdown
from ihas_jax.reporting.drawing import figure_names

Times = dict[str, dict[str, float]]
"""`time_inference` by log."""


def tabulate(
    record: Record,
    title: str,
    variants_of: Callable[[str, Dataset], Sequence[Variant]],
    note: Callable[[], str],
) -> None:
    """Scores variants on logs, writes the table after each log, and prints it at the end.

    Args:
      record: the scores of earlier calls, which are kept.
      title: the heading.
      variants_of: the rows for a log and its name, first the full-size model.
      note: explanations of this table, as Markdown.
    """
    times: Times = {}
    missing: tuple[str, ...] = ()
    arguments = record.arguments
    for name, data, variants in score_logs(record, variants_of, leave_out=True):
        scored = [variant for variant in variants if variant.name in record.logs[name]]
        folder, seed = arguments.output / name, arguments.config.seed
        times[name] = time_inference(scored, data, folder, seed)
        missing = write(record, title, variants, times, note())
    common.print_results(arguments.destination, missing)


def write(
    record: Record, title: str, variants: Sequence[Variant], times: Times, note: str
) -> tuple[str, ...]:
    """Writes a table as JSON and Markdown, and its figure, of the logs that have `times`.

    Returns:
      The files that could not be made.
    """
    names = figure_names(list(times), "log")

    def draw_table() -> Figure:
        shown = {
            text: {v.title: runs[v.name] for v in variants if v.name in (runs := record.logs[name])}
            for name, text in zip(times, names.texts, strict=True)
        }
        return draw_sizes(shown)

    return common.write_results(
        record.arguments.destination,
        record.content | {"inference": times},
        lambda: lines_of(record, title, variants, times, note),
        {".png": draw_table},
        names,
    )


def lines_of(
    record: Record, title: str, variants: Sequence[Variant], times: Times, note: str
) -> list[str]:
    """The lines of the Markdown file."""
    reference = reference_of(record.arguments.config)
    body: list[str] = []
    for name in times:
        scores = record.logs[name]
        found = [variant for variant in variants if variant.name in scores]
        rows = _rows(found, scores, times[name], name)
        table = common.markdown_table(_headers(reference.title), rows)
        body += [f"## {markdown(name)}", "", *table, ""]
        if refused := [variant.title for variant in variants if variant not in found]:
            body += [f"Left out, as the command's output explains: {', '.join(refused)}.", ""]
    about = (_ABOUT.format(jax.devices()[0].device_kind), reference.note, note)
    body.append(" ".join(part for part in about if part))
    figure = f"![Test AUC and size]({link(record.arguments.destination.name)}.png)\n\n{_CAPTION}"
    return common.report(title, body, record.arguments.config, figure)


_CAPTION = (
    "Seeds are dots, their means larger markers. An arrow at the lower edge is a mean so far below "
    "the best that it would leave the others no room; its AUC is the text beside it."
)
_ABOUT = (
    "Test split, mean ± standard deviation over seeds. Against base and best (the highest mean "
    "AUC): difference in AUC and, against base, in logloss of the same seed, with the p-value "
    "of a paired t-test, not corrected for the number of tests. Size: parameters over those of "
    "the base model; the router of iHAS in brackets. MB: float32 parameters, "
    "routing included, and the record of which numbers or values are kept. Training: seconds "
    "of all stages, compiling included, which takes most of them on a small log (the "
    "base model is compiled once for all seeds, each compact model once per shape). "
    "Inference: microseconds per row of all that a prediction needs, gates and routing "
    "included, medians of turns on {}. Paper: AUC and logloss on the full log."
)


def _headers(base: str) -> tuple[str, ...]:
    return (
        *("method", "AUC", "logloss", f"AUC vs {base}", "p", f"logloss vs {base}", "p"),
        *("AUC vs best", "p", "size", "MB", "training, s", "inference, µs", "paper"),
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
                common.spread_cell(runs, "auc"),
                common.spread_cell(runs, "logloss"),
                *common.gain_cells(base, runs, "auc"),
                *common.gain_cells(base, runs, "logloss"),
                *common.gain_cells(best, runs, "auc"),
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
