"""The comparison at equal sizes as Markdown, JSON and a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import common
import numpy as np
from compare import Scores
from comparison import Record
from matplotlib.figure import Figure
from reference import BASE, TEACHER, learning

from ihas_jax.names import link, markdown
from ihas_jax.reporting.drawing import figure_names
from sizes.answers import cluster_content, cluster_lines, goal_lines
from sizes.drawing import draw_budgets
from sizes.rows import Found, Sizes, percent, row_of
from sizes.verdict import verdict_content

_HEADERS = (
    *("model", "budget", "table", "parameters", "router", "MB", "AUC", "logloss"),
    *("compared with", "AUC difference", "p", "logloss difference", "p"),
)
_TEXTS = (0, 8)
_ABOUT = (
    "Test split, mean ± standard deviation over seeds. Table: the share that is kept of the "
    "numbers of the full-size embedding table, all models of a method together. Parameters: those "
    "of the whole model, its network and the router included; the router's are in the next "
    "column, too. MB: float32 parameters and the record of which numbers are kept. Differences "
    "are paired by seed, with the p-value of a paired t-test, not corrected for the number of "
    "tests; a logloss difference below 0 is a gain."
)
_CAPTION = (
    "Lines are means, bars standard deviations over seeds; methods of one budget stand a little "
    "apart, so that their bars can be told apart. The dashed line is the full-size model "
    "with the same labels; the dotted one, where there are teachers, that of clicks alone. The "
    "panels end a little below the lowest mean that is near the best; means further below are left "
    "out."
)


def write(record: Record, sizes: Sizes, logs: Sequence[str]) -> tuple[str, ...]:
    """Writes JSON, Markdown and figure of some logs.

    Returns:
      The files that could not be made.
    """
    names = figure_names(list(logs), "log")

    def draw() -> Figure:
        shown = {t: record.logs[name] for name, t in zip(logs, names.texts, strict=True)}
        return draw_budgets(sizes, shown)

    content = {
        "budgets": sizes.budgets,
        "verdicts": {name: verdict_content(sizes, record.logs[name]) for name in logs},
        "clusters": {name: cluster_content(sizes, record.logs[name]) for name in logs},
    }
    return common.write_results(
        record.arguments.destination,
        record.content | content,
        lambda: lines_of(record, sizes, logs),
        {".png": draw},
        names,
    )


def lines_of(record: Record, sizes: Sizes, logs: Sequence[str]) -> list[str]:
    """The lines of the Markdown file: the answers, then all rows by log."""
    taught = learning(record.arguments.config)
    found_by_log = {name: record.logs[name] for name in logs}
    body = [taught, ""] if taught else []
    body += [*goal_lines(sizes, found_by_log), *cluster_lines(sizes, found_by_log)]
    for name, found in found_by_log.items():
        rows = [*_whole_rows(sizes, found), *_rows(sizes, found)]
        body += [f"## {markdown(name)}", "", *common.markdown_table(_HEADERS, rows, _TEXTS), ""]
        if refused := _refused(sizes, found):
            body += [f"Left out, as the command's output explains: {'; '.join(refused)}.", ""]
    body.append(_ABOUT)
    figure = f"![Test AUC and size]({link(record.arguments.destination.name)}.png)\n\n{_CAPTION}"
    return common.report("Selection at equal sizes", body, record.arguments.config, figure)


def _whole_rows(sizes: Sizes, found: Found) -> Iterator[list[str]]:
    for name, title in sizes.whole.items():
        compared = "" if name == BASE else sizes.whole[BASE]
        table = "" if name == TEACHER else percent(1)
        yield [title, "", table, *_cells(found[name], found[BASE], compared)]


def _rows(sizes: Sizes, found: Found) -> Iterator[list[str]]:
    for budget in sizes.budgets:
        for kind in sizes.kinds:
            runs = found.get(row_of(kind, budget))
            if runs is None:
                continue
            reference = sizes.reference(kind, budget)
            compared = sizes.whole.get(reference, sizes.kinds[0].title)
            share = f"{100 * _mean(runs, 'table_share'):.2f} %"
            cells = _cells(runs, found.get(reference, runs), compared)
            yield [kind.title, percent(budget), share, *cells]


def _cells(runs: Sequence[Scores], reference: Sequence[Scores], compared: str) -> list[str]:
    router = _mean(runs, "router_parameters")
    differences = [
        cell for m in ("auc", "logloss") for cell in common.gain_cells(reference, runs, m)
    ]
    return [
        f"{_mean(runs, 'parameters') + router:,.0f}",
        f"{router:,.0f}" if router else "",
        f"{_mean(runs, 'bytes') / 1e6:.3f}",
        *(common.spread_cell(runs, metric) for metric in ("auc", "logloss")),
        "" if runs is reference else compared,
        *differences,
    ]


def _refused(sizes: Sizes, found: Found) -> list[str]:
    return [
        f"{kind.title}, {percent(budget)}"
        for budget in sizes.budgets
        for kind in sizes.kinds
        if row_of(kind, budget) not in found
    ]


def _mean(runs: Sequence[Scores], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))
