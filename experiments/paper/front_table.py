"""The comparison of pareto.py as Markdown and JSON, with its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import common
from comparison import Record
from front import Found, Point, front_of, size_of
from front_figure import draw_front
from matplotlib.figure import Figure
from reference import BASE
from sizes.rows import percent

from ihas_jax.names import link, markdown
from ihas_jax.reporting.drawing import figure_names

_ABOUT = (
    "Test AUC, mean ± standard deviation over seeds, of the share of the embedding table's numbers "
    "that the column names; the last column has models that can have no budget. **Bold**: on the "
    "Pareto front of the log, so that no other model of the table is at most as large with at "
    "least this mean AUC, and better in one of the two. Parameters are those of the whole model, "
    "its network and the router of clusters included. Differences are from the model of full size "
    "that learns from clicks, paired by seed, with the p-value of a paired t-test, not corrected "
    "for the number of tests; a logloss difference below 0 is a gain. A front of means of test "
    "scores favours what was lucky on the test rows: differences within the deviations are noise."
)
_CAPTION = (
    "Means over seeds. Lines are solid for models that learn from teachers, dashed for models that "
    "learn from clicks; circles are on the front, the stars and the horizontal lines are the "
    "models of full size. The panel ends a little below the lowest mean that is near the best, or "
    "below the full size; means further below are left out."
)
_FRONT = ("model", "learns from", "budget", "parameters", "times smaller", "AUC", "logloss")
_GAINS = ("AUC difference", "p", "logloss difference", "p")


def write(
    record: Record, points: Sequence[Point], logs: Sequence[str], note: str
) -> tuple[str, ...]:
    """Writes JSON, Markdown and the figures of some logs.

    Args:
      record: the scores.
      points: what is compared.
      logs: the names of the logs whose scores are complete.
      note: what the teachers are, as Markdown.

    Returns:
      The files that could not be made.
    """
    names = figure_names(list(logs), "log")
    figures: dict[str, Callable[[], Figure]] = {
        _ending(log): partial(draw_front, text, points, record.logs[log])
        for log, text in zip(logs, names.texts, strict=True)
    }
    content = {"points": {log: facts_of(points, record.logs[log]) for log in logs}}
    return common.write_results(
        record.arguments.destination,
        record.content | content,
        lambda: lines_of(record, points, logs, note),
        figures,
        names,
    )


def facts_of(points: Sequence[Point], found: Found) -> list[dict[str, Any]]:
    """All numbers of a log as JSON: choices, means, deviations, differences from the full size."""
    front = front_of(points, found)
    scored = [point for point in points if point.name in found]
    runs_of = {point.name: found[point.name] for point in scored}
    summary = common.summarize(runs_of, ("auc", "logloss"))
    return [
        {
            "name": point.name,
            "method": point.method,
            "taught": point.taught,
            "budget": point.budget,
            "parameters": size_of(runs_of[point.name]),
            "front": point in front,
            **summary[point.name],
        }
        for point in scored
    ]


def lines_of(record: Record, points: Sequence[Point], logs: Sequence[str], note: str) -> list[str]:
    """The lines of the Markdown file: for each log the table, the front and the figure."""
    body = [note, ""] if note else []
    for log in logs:
        found = record.logs[log]
        body += [f"## {markdown(log)}", "", *_table(points, found), ""]
        if refused := [p for p in points if p.name not in found]:
            said = "; ".join(p.variant(record.arguments).title for p in refused)
            body += [f"Left out, as the command's output explains: {said}.", ""]
        if front := front_of(points, found):
            rows = [_front_row(point, found) for point in front]
            table = common.markdown_table((*_FRONT, *_GAINS), rows, (0, 1))
            body += ["The front, from the smallest model on:", "", *table, ""]
        file = link(f"{record.arguments.destination.name}{_ending(log)}")
        body += [f"![Test AUC against parameters]({file})", ""]
    body += [_CAPTION, "", _ABOUT]
    return common.report("Accuracy against size", body, record.arguments.config)


def _ending(log: str) -> str:
    return f"_{log}.png"


def _table(points: Sequence[Point], found: Found) -> list[str]:
    """A row for each method and what it learns from, a column for each budget."""
    budgets = sorted({p.budget for p in points if p.budget is not None})
    columns = [*budgets, None]
    headers = ("method", "learns from", *map(percent, budgets), "no budget")
    front, lines = front_of(points, found), dict.fromkeys(p.line for p in points)
    rows = []
    for method, taught in lines:
        row = [Point(method, taught, budget) for budget in columns]
        cells = [_cell(found.get(p.name), p in front) if p in points else "" for p in row]
        rows.append([markdown(row[0].title), row[0].source, *cells])
    return common.markdown_table(headers, rows, (0, 1))


def _cell(runs: common.Runs | None, bold: bool) -> str:
    if runs is None:
        return "left out"
    text = common.spread_cell(runs, "auc")
    return f"**{text}**" if bold else text


def _front_row(point: Point, found: Found) -> list[str]:
    runs, base = found[point.name], found[BASE]
    gains = [cell for m in ("auc", "logloss") for cell in common.gain_cells(base, runs, m)]
    return [
        markdown(point.title),
        point.source,
        "" if point.budget is None else percent(point.budget),
        f"{size_of(runs):,.0f}",
        f"{size_of(base) / size_of(runs):.3g}",
        *(common.spread_cell(runs, metric) for metric in ("auc", "logloss")),
        *gains,
    ]
