"""The map of map.py as Markdown and JSON, with its heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import common
import numpy as np
from cells import OTHERS, Cell, finished
from comparison import Record
from matplotlib.figure import Figure

from ihas_jax.names import link
from ihas_jax.reporting.comparison import Gain

_LEVEL = 0.05
_TITLES = {"base": "base", "ihas_2": "iHAS-2", "uniform": "uniform size of iHAS's size"}
_FACTS = (
    *("rows", "heterogeneity", "highest possible AUC", "base's AUC", "iHAS's AUC"),
    *("size of iHAS", "Rand index"),
)
_ABOUT = (
    "Test AUC of iHAS minus that of the other model of the same seed, mean ± standard deviation "
    "over the seeds, with the p-value of a paired t-test, not corrected for the number of tests. "
    f"**Bold**: p < {_LEVEL}. Rows are those of all three splits. Heterogeneity is what other "
    "groups lack of the effects of a group's own fields: with 0 all groups are alike, with 1 a "
    "group's own fields move its own clicks alone; the variance of the log-odds is the same. The "
    "uniform size has as many numbers of the embedding table as all models of iHAS together, at "
    "most all. Size of iHAS: that share of the table. Highest possible AUC: that of the true "
    "probabilities. Rand index: the adjusted Rand index of clusters and planted groups."
)
_CAPTION = (
    "Blue: iHAS is the better one; red: the other one is. A star: p below 0.05 in a paired t-test."
)


class Place(NamedTuple):
    """A field of the map: the logs of all seeds with these values."""

    rows: int
    heterogeneity: float


Found = dict[Place, list[dict[str, Any]]]
"""The scores of the seeds of each field of the map, of which all are finished."""


def write(record: Record, cells: Sequence[Cell]) -> tuple[str, ...]:
    """Writes JSON, Markdown and figure of the fields of the map whose seeds are all finished.

    Returns:
      The files that could not be made.
    """
    found = found_of(record, cells)
    content = {"map": [facts_of(place, runs) for place, runs in found.items()]}
    return common.write_results(
        record.arguments.destination,
        record.content | content,
        lambda: lines_of(record, found),
        {".png": lambda: draw(found)} if found else {},
    )


def found_of(record: Record, cells: Sequence[Cell]) -> Found:
    """The scores by field of the map."""
    seeds: dict[Place, list[Cell]] = {}
    for cell in cells:
        seeds.setdefault(Place(cell.rows, cell.heterogeneity), []).append(cell)
    return {
        place: [record.logs[cell.name] for cell in own]
        for place, own in seeds.items()
        if all(finished(record.logs.get(cell.name)) for cell in own)
    }


def gain_over(runs: Sequence[dict[str, Any]], other: str) -> Gain:
    """The AUC of iHAS minus that of another model."""
    return common.gain_over([run[other] for run in runs], [run["ihas"] for run in runs], "auc")


def facts_of(place: Place, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The gains of a field of the map, as JSON."""
    gains = {other: gain_over(runs, other) for other in OTHERS}
    return place._asdict() | {
        other: {"gain": gain.spread.mean, "deviation": gain.spread.deviation, "p": gain.p}
        for other, gain in gains.items()
    }


def lines_of(record: Record, found: Found) -> list[str]:
    """The lines of the Markdown file."""
    body: list[str] = []
    for other in OTHERS if found else ():
        body += [f"## iHAS minus {_TITLES[other]}", "", *_table(found, other), ""]
        body += [said_of(found, other), ""]
    facts = common.markdown_table(_FACTS, [_facts_row(*item) for item in found.items()], ())
    dials = ", ".join(f"{name} {value}" for name, value in _dials(record).items())
    body += ["## The logs", "", *facts, "", f"Dials of the logs: {dials}.", "", _ABOUT]
    name = link(record.arguments.destination.name)
    figure = f"![Gain of iHAS in test AUC]({name}.png)\n\n{_CAPTION}" if found else ""
    return common.report("When does iHAS pay?", body, record.arguments.config, figure)


def _dials(record: Record) -> dict[str, Any]:
    grid = ("rows", "heterogeneity", "seed")
    return {n: v for n, v in record.identity["dials"].items() if n not in grid}


def said_of(found: Found, other: str) -> str:
    """A sentence on where iHAS is above another model, and where below."""
    gains = {place: gain_over(runs, other) for place, runs in found.items()}
    sides = []
    for word, sign in (("above", 1), ("below", -1)):
        own = {p: g for p, g in gains.items() if sign * g.spread.mean > 0}
        sure = [p for p, g in own.items() if g.p < _LEVEL]
        where = ""
        if own:
            most = max(own, key=lambda place: abs(own[place].spread.mean))
            where = f", most with {_name(most)} ({own[most].spread.mean:+.4f})"
        sides.append(f"{word} it in {len(own)} ({len(sure)} beyond the noise){where}")
    return f"Of {len(found)} fields iHAS is {'; '.join(sides)}."


def _name(place: Place) -> str:
    return f"{place.rows:,} rows and a heterogeneity of {place.heterogeneity:g}"


def _table(found: Found, other: str) -> list[str]:
    """A row for each heterogeneity, a column for each number of rows."""
    columns, rows = _axes(found)
    cells = [
        [f"{one:g}", *(_cell(found.get(Place(n, one)), other) for n in columns)] for one in rows
    ]
    headers = ("heterogeneity", *(f"{n:,} rows" for n in columns))
    return common.markdown_table(headers, cells)


def _cell(runs: list[dict[str, Any]] | None, other: str) -> str:
    if runs is None:
        return ""
    gain = gain_over(runs, other)
    text = f"{gain.spread:+.4f}" + (f" (p {gain.p_text})" if gain.p_text else "")
    return f"**{text}**" if gain.p < _LEVEL else text


def _facts_row(place: Place, runs: list[dict[str, Any]]) -> list[str]:
    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    aucs = (mean([run[model]["auc"] for run in runs]) for model in ("base", "ihas"))
    return [
        f"{place.rows:,}",
        f"{place.heterogeneity:g}",
        f"{mean([run['ceiling'] for run in runs]):.4f}",
        *(f"{auc:.4f}" for auc in aucs),
        f"{mean([run['ihas']['table_share'] for run in runs]):.2f}",
        f"{mean([run['agreement'] for run in runs]):.2f}",
    ]


def _axes(found: Found) -> tuple[list[int], list[float]]:
    """The numbers of rows, and the heterogeneities from the largest on."""
    return sorted({p.rows for p in found}), sorted({p.heterogeneity for p in found}, reverse=True)


def draw(found: Found) -> Figure:
    """A heat map of the gains over each other model: rows of the log by heterogeneity."""
    columns, rows = _axes(found)
    size = (1.3 + len(OTHERS) * max(2.4, 0.85 * len(columns)), 1.6 + 0.6 * len(rows))
    figure, axes = common.panels(len(OTHERS), len(OTHERS), size)
    gains = {other: {p: gain_over(runs, other) for p, runs in found.items()} for other in OTHERS}
    every = [gain.spread.mean for own in gains.values() for gain in own.values()]
    most = float(np.nanmax(np.abs(every))) or 1.0
    for panel, (other, own) in zip(axes, gains.items(), strict=True):
        image = np.full((len(rows), len(columns)), np.nan)
        for place, gain in own.items():
            y, x = rows.index(place.heterogeneity), columns.index(place.rows)
            image[y, x] = gain.spread.mean
            star = "*" if gain.p < _LEVEL else ""
            color = "white" if abs(gain.spread.mean) > 0.6 * most else "black"
            text = f"{gain.spread.mean:+.4f}{star}"
            panel.text(x, y, text, ha="center", va="center", color=color, fontsize=8)
        shown = panel.imshow(image, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
        panel.set_xticks(range(len(columns)), [_short(n) for n in columns])
        panel.set_yticks(range(len(rows)), [f"{one:g}" for one in rows])
        panel.set_title(f"iHAS minus {_TITLES[other].split(' of ')[0]}", fontsize=10)
        panel.set_xlabel("rows of the log")
    axes[0].set_ylabel("heterogeneity")
    figure.colorbar(shown, ax=axes, label="gain in test AUC")
    return figure


def _short(rows: int) -> str:
    return f"{rows / 1e6:g} M" if rows >= 1e6 else f"{rows / 1e3:g} k"
