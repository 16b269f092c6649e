"""Figure 6 as Markdown and JSON, with its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import common
from case_figure import Facts, draw_cases
from comparison import Record
from matplotlib.figure import Figure

from ihas_jax.names import link, markdown
from ihas_jax.reporting.comparison import paired_gain, spread
from ihas_jax.reporting.drawing import figure_names

_SURE = 1.96
_OVER_SEEDS = (
    *("log", "own model better", "logloss, own", "others", "gain", "p"),
    *("AUC, own", "others", "gain", "p"),
)
_OF_ROWS = (
    *("rows", "number", "clicks", "own model better", "logloss, own", "others", "gain"),
    *("AUC, own", "others", "gain"),
)
_EXAMPLES = ("cluster", "test row", "click", "own model", "other models")
_ABOUT = (
    "Each test row is predicted by the model of its own cluster, and by the others, whose mean "
    "prediction counts (with two clusters: by the other one). 'Own model better' is the share of "
    "rows whose logloss is smaller by their own model. A gain is how much smaller the logloss "
    "(in nats per row) or how much larger the AUC is. The others have not learnt from such rows, "
    "so a gain over them says that the clusters differ, and not that iHAS is better than one model "
    "of all rows, which Table 2 says. The first table has means over the seeds with standard "
    "deviations, and p of a paired t-test. The tables by cluster are of the first seed, with "
    "intervals of 95 % over its rows (of the AUC by DeLong et al.)."
)
_CAPTION = (
    "Left: test rows that were drawn by chance; the nearer a prediction is to the diamond, the "
    "better. Right: gains of the first seed with intervals of 95 % over its rows; small dots are "
    "the other seeds."
)


def write(record: Record, logs: Mapping[str, Sequence[Facts]]) -> tuple[str, ...]:
    """Writes JSON, Markdown and the figure of some logs, whose facts are by seed.

    Returns:
      The files that could not be made.
    """
    arguments, names = record.arguments, figure_names(list(logs), "log")

    def draw() -> Figure:
        return draw_cases(dict(zip(names.texts, logs.values(), strict=True)))

    def lines() -> list[str]:
        figure = f"![Cases]({link(arguments.destination.name)}.png)\n\n{_CAPTION}"
        return common.report("Figure 6: case study", lines_of(logs), arguments.config, figure)

    return common.write_results(arguments.destination, record.content, lines, {".png": draw}, names)


def lines_of(logs: Mapping[str, Sequence[Facts]]) -> list[str]:
    """The tables over seeds, by cluster and of examples."""
    over_seeds = [seeds_row(markdown(name), seeds) for name, seeds in logs.items()]
    body = [*common.markdown_table(_OVER_SEEDS, over_seeds), ""]
    for name, seeds in logs.items():
        first = seeds[0]
        sets = [(f"cluster {c}", facts) for c, facts in enumerate(first["clusters"])]
        rows = [rows_row(title, facts) for title, facts in (*sets, ("all", first["all"])) if facts]
        examples = [
            [
                *(str(one["cluster"]), f"{one['row']:,}", "yes" if one["label"] else "no"),
                *(f"{one['own']:.3f}", f"{one['other']:.3f}"),
            ]
            for one in first["examples"]
        ]
        body += [f"## {markdown(name)}", "", *common.markdown_table(_OF_ROWS, rows), ""]
        body += [*common.markdown_table(_EXAMPLES, examples, texts=(2,)), ""]
    return [*body, _ABOUT]


def seeds_row(name: str, seeds: Sequence[Facts]) -> list[str]:
    """The row of a log in the table over seeds."""
    every = [facts["all"] for facts in seeds]
    cells = [name, f"{_percent([facts['better'] for facts in every])}"]
    for metric in ("logloss", "auc"):
        own, other = ([facts[metric][whose] for facts in every] for whose in ("own", "other"))
        up = paired_gain(own, other) if metric == "auc" else paired_gain(other, own)
        cells += [f"{spread(own):.4f}", f"{spread(other):.4f}", f"{up.spread:+.4f}", up.p_text]
    return cells


def rows_row(title: str, facts: Mapping[str, Any]) -> list[str]:
    """The row of some rows of a log in the table of one seed."""
    better = f"{facts['better']:.1%} ± {_SURE * facts['better_error']:.1%}"
    cells = [title, f"{facts['rows']:,}", f"{facts['clicks']:.1%}", better]
    for metric in ("logloss", "auc"):
        own = facts[metric]
        cells += [f"{spread([own[whose]]):.4f}" for whose in ("own", "other")]
        gain = f"{spread([own['gain']]):+.4f}"
        sure = own["error"] == own["error"]
        cells.append(f"{gain} ± {_SURE * own['error']:.4f}" if sure else gain)
    return cells


def _percent(shares: Sequence[float]) -> str:
    found = spread([100 * share for share in shares])
    return f"{found:.1f} %"
