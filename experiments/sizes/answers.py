"""What the comparison at equal sizes answers: who reaches the goal, and what clusters are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping

import common

from ihas_jax.names import markdown
from ihas_jax.reporting.comparison import Gain
from sizes.rows import Found, Sizes, percent, row_of
from sizes.verdict import GOAL, LEVEL, Verdict, verdicts

Logs = Mapping[str, Found]
_HOW = (
    "AUC of each method minus that of the uniform size, mean over seeds, with the p-value where a "
    "gain is asked for. **Bold**: the goal is not reached. It is set for Spectral and for iHAS on "
    "principal axes; iHAS on the coordinates as they are stands beside them."
)
_CLUSTERS = (
    "AUC of several clusters minus that of one cluster of the same method, where all models "
    "together keep as many numbers of the table; the router of the clusters comes on top. Mean ± "
    f"standard deviation over seeds, and the p-value. **Bold**: a difference with p < {LEVEL}."
)


def goal_lines(sizes: Sizes, logs: Logs) -> list[str]:
    """The goal, and a table that says for each log and budget which methods reach it."""
    judged = {
        (name, budget): {kind.title: verdict for kind, verdict in verdicts(sizes, found, budget)}
        for name, found in logs.items()
        for budget in sizes.budgets
    }
    judged = {place: own for place, own in judged.items() if own}
    titles = [*dict.fromkeys(title for own in judged.values() for title in own)]
    if not judged:
        return []
    rows = []
    for (name, budget), own in judged.items():
        first, *_ = own.values()
        cells = [_cell(own.get(title)) for title in titles]
        rows.append([markdown(name), percent(budget), _number(-first.loss), *cells])
    outcomes = [_outcome([own.get(title) for own in judged.values()]) for title in titles]
    rows.append(["everywhere", "", "", *outcomes])
    headers = ("log", "budget", "Uniform size minus full size", *titles)
    return ["## The goal", "", GOAL, "", *common.markdown_table(headers, rows), "", _HOW, ""]


def cluster_lines(sizes: Sizes, logs: Logs) -> list[str]:
    """A table of what several clusters add to one; nothing where no method has both."""
    titles = [several.title for several, _ in sizes.clustered]
    rows = []
    for name, found in logs.items():
        for budget in sizes.budgets:
            gains = cluster_gains(sizes, found, budget)
            cells = [_gain(gains.get(several.name)) for several, _ in sizes.clustered]
            rows.append([markdown(name), percent(budget), *cells])
    if not titles or not rows:
        return []
    table = common.markdown_table(("log", "budget", *titles), rows)
    return ["## Several clusters or one", "", *table, "", _CLUSTERS, ""]


def cluster_gains(sizes: Sizes, found: Found, budget: float) -> dict[str, Gain]:
    """The AUC of several clusters minus that of one, by the name of the method."""
    pairs = {
        several.name: (found.get(row_of(one, budget)), found.get(row_of(several, budget)))
        for several, one in sizes.clustered
    }
    return {
        name: common.gain_over(one, several, "auc")
        for name, (one, several) in pairs.items()
        if one and several
    }


def cluster_content(sizes: Sizes, found: Found) -> dict[str, dict[str, dict[str, float]]]:
    """The gains of several clusters as JSON, by budget and method."""
    return {
        str(budget): {
            name: {"gain": gain.spread.mean, "deviation": gain.spread.deviation, "p": gain.p}
            for name, gain in cluster_gains(sizes, found, budget).items()
        }
        for budget in sizes.budgets
    }


def _number(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:+.4f}"


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    if not verdict.defined:
        return "not defined"
    p = f" (p {verdict.gain.p_text})" if verdict.asked and verdict.gain.p_text else ""
    text = f"{verdict.gain.spread.mean:+.4f}{p}"
    return text if verdict.reached else f"**{text}**"


def _outcome(column: list[Verdict | None]) -> str:
    if not all(verdict is not None and verdict.defined for verdict in column):
        return "not known"
    failed = sum(1 for verdict in column if verdict is not None and not verdict.reached)
    return f"**not in {failed} of {len(column)}**" if failed else "reached"


def _gain(gain: Gain | None) -> str:
    if gain is None:
        return ""
    if math.isnan(gain.spread.mean):
        return "not defined"
    text = f"{gain.spread:+.4f}" + (f" (p {gain.p_text})" if gain.p_text else "")
    return f"**{text}**" if gain.p < LEVEL else text
