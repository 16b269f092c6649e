"""The report, figure and table of a compression: how small, how good, how fast, how sure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ihas_jax.config import Config
from ihas_jax.reporting.report import provenance
from ihas_jax.reporting.tables import Grid
from ihas_jax.training.metrics import auc_text

_COLORS = ("#3b6ea5", "#c8553d", "#588b4a", "#8c6bb1", "#b8860b", "#4d9f9f")
_HEADERS = (
    *("model", "AUC", "logloss", "validation AUC"),
    *("parameters", "MB", "µs per row", "on the front"),
)
_SCORES = (("auc", "test AUC"), ("logloss", "test logloss"))
_COSTS = (("parameters", "parameters"), ("microseconds", "microseconds per row"))
Metrics = Mapping[str, Any]


def front_table(metrics: Metrics) -> Grid:
    """The table of all candidates for a terminal."""
    return Grid("Test split", _HEADERS, _rows(metrics))


def render_front(config: Config, metrics: Metrics) -> str:
    """The text of report.md, which shows figures/front.png."""
    choices, chosen = metrics["choices"], metrics["chosen"]
    teachers = _counted(metrics["teachers"])
    lines = [
        "# The smallest good model",
        "",
        _answer(metrics),
        "",
        _sureness(metrics),
        "",
        "## Sizes and scores",
        "",
        f"| {' | '.join(_HEADERS)} |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
        *(f"| {' | '.join(row)} |" for row in _rows(metrics)),
        "",
        "AUC and logloss are those of the test rows. MB counts float32 parameters and the record "
        "of which numbers are kept; what spectral removes from a table is a zero in memory so far. "
        "A model is on the front if no other one is at least as good on validation rows, as small "
        "and as fast. Times that differ by less than a quarter count as equal.",
        "",
        "![Test AUC and logloss against size and time](figures/front.png)",
        "",
        "## How it was chosen",
        "",
        f"{chosen['name']} is the smallest model of the table whose AUC on the validation rows is "
        f"below that of the best one by at most {choices['tolerance']:g} plus "
        f"{choices['standard_errors']:g} standard errors of the difference (for this model "
        f"{chosen['valid_doubt']:.4f} in all), since few rows can't tell models apart. "
        "Where the validation rows have one class, minus the logloss takes the place of the AUC. "
        "The test rows chose nothing.",
        "",
        f"The base model is the best of its trials on validation rows: {metrics['base']['trial']}. "
        + (
            f"Models that are not said to learn from clicks learn from the mean of {teachers}."
            if teachers
            else "All models learn from clicks."
        ),
        "",
        "Before anything is cut, "
        + "; ".join(
            f"{student['name']}, has a test AUC of {_auc(student)} and "
            f"{student['parameters']:,} parameters"
            for student in metrics["students"]
        )
        + ". `spectral` cuts these models.",
        "",
        "| on clicks | validation AUC | validation logloss |",
        "|---|---:|---:|",
        *(
            f"| {member['name']} | {_auc(member, 'valid_')} | {member['valid_logloss']:.4f} |"
            for member in metrics["pool"]
        ),
        "",
        "A name has the click model, the coefficient of its L2 term, batch norm (norm) and dropout "
        "where they differ from those of the flags' defaults, and the number of its seed after the "
        "first.",
        "",
        "## How it was made",
        "",
        *provenance(config),
        "",
    ]
    return "\n".join(lines)


def draw_front(metrics: Metrics) -> Figure:
    """Test AUC and logloss against parameters and microseconds per row, of all candidates."""
    figure = Figure(figsize=(11.5, 7.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for row, (score, title) in zip(panels, _SCORES, strict=True):
        for panel, (cost, _) in zip(row, _COSTS, strict=True):
            _draw(panel, metrics, cost, score)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(title)
    for panel, (_, title) in zip(panels[-1], _COSTS, strict=True):
        panel.set(xscale="log", xlabel=title)
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        panel.xaxis.set_minor_locator(NullLocator())
    handles, labels = panels[-1][0].get_legend_handles_labels()  # the AUC may not be defined
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure


def _draw(panel: Axes, metrics: Metrics, cost: str, score: str) -> None:
    """A line for each way to smaller models, from the smallest one on."""
    base, chosen = metrics["base"], metrics["chosen"]
    if not _defined(base[score]):
        panel.text(0.5, 0.5, f"AUC {_auc(base)}", ha="center", transform=panel.transAxes)
        return
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for facts in metrics["candidates"][1:]:
        name = facts["name"].rpartition(", ")[0] or facts["name"]
        groups.setdefault(name, []).append(facts)
    for i, (name, found) in enumerate(groups.items()):
        found = sorted(found, key=lambda facts: facts["parameters"])
        points = [(facts[cost], facts[score]) for facts in found]
        color = _COLORS[i % len(_COLORS)]
        panel.plot(*zip(*points, strict=True), color=color, marker="o", label=name)
    panel.plot([base[cost]], [base[score]], "k*", ms=11, label="base")
    panel.plot([chosen[cost]], [chosen[score]], "o", ms=14, mfc="none", mec="black", label="chosen")


def _answer(metrics: Metrics) -> str:
    base, chosen, gain = metrics["base"], metrics["chosen"], metrics["gain"]
    if chosen["name"] == base["name"]:
        return (
            "**No smaller model is good enough, so the base model is kept**: "
            f"{base['parameters']:,} parameters, test AUC {_auc(base)}, logloss "
            f"{base['logloss']:.4f}. A larger --tolerance takes a smaller one of the table below."
        )
    times = base["parameters"] / chosen["parameters"]
    speed = base["microseconds"] / chosen["microseconds"]
    change = chosen["logloss"] - base["logloss"]
    return (
        f"**{chosen['name']}** has {chosen['parameters']:,} parameters, "
        f"{_times(times, 'fewer', 'more')} than the base model ({base['parameters']:,}), and takes "
        f"{chosen['microseconds']:.2f} µs for a row, {_times(speed, 'less', 'more')} than the base "
        f"({base['microseconds']:.2f} µs). Its test AUC is {_auc(chosen)}"
        + (f" ({_signed(gain['auc'])})" if _defined(gain["auc"]) else "")
        + f", its logloss {chosen['logloss']:.4f} ({_signed(change)})."
    )


def _sureness(metrics: Metrics) -> str:
    gain = metrics["gain"]
    if metrics["chosen"]["name"] == metrics["base"]["name"]:
        return "The base model is compared with itself."
    if not _defined(gain["low"]):
        return (
            "The test rows are too few, or of one class, to say how sure the difference in AUC is."
        )
    verdict = "beyond" if gain["low"] > 0 or gain["high"] < 0 else "within"
    return (
        f"The difference in AUC from the base model, {_signed(gain['auc'])}, is {verdict} the "
        "noise of the test rows: with "
        f"95 % certainty it lies between {_signed(gain['low'])} and {_signed(gain['high'])} for "
        "these two models. Models of other seeds would differ, too; --seed trains them."
    )


def _rows(metrics: Metrics) -> list[list[str]]:
    front = {facts["name"] for facts in metrics["front"]}
    chosen = metrics["chosen"]["name"]
    return [
        [
            f"{facts['name']} (chosen)" if facts["name"] == chosen else facts["name"],
            _auc(facts),
            f"{facts['logloss']:.4f}",
            _auc(facts, "valid_"),
            f"{facts['parameters']:,}",
            f"{facts['bytes'] / 1e6:.3f}",
            f"{facts['microseconds']:.2f}",
            "yes" if facts["name"] in front else "",
        ]
        for facts in metrics["candidates"]
    ]


def _auc(facts: Mapping[str, Any], prefix: str = "") -> str:
    value = _number(facts[f"{prefix}auc"])
    return auc_text({"auc": value, "only_label": facts.get(f"{prefix}only_label", "0 or 1")})


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _defined(value: float | None) -> bool:
    return math.isfinite(_number(value))


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _times(factor: float, less: str, more: str) -> str:
    """How many times less or more."""
    return f"{factor:.1f} times {less}" if factor >= 1 else f"{1 / factor:.1f} times {more}"


def _counted(names: list[str]) -> str:
    """Names in their order, with the number of times that each occurs."""
    counts = {name: names.count(name) for name in names}
    shown = [name if n == 1 else f"{name} ({n} times)" for name, n in counts.items()]
    return ", ".join(shown)
