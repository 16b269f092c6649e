"""Figure 4 as Markdown and JSON, with its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import common
import jax
from compare import Variant
from comparison import Record
from inference import COMPILED, EXACT, GOAL_HEADERS, HEADERS, Timed, goal_row, rows_of
from inference_figure import draw_inference
from matplotlib.figure import Figure
from reference import reference_of

from ihas_jax.config import ClusterConfig
from ihas_jax.names import link, markdown
from ihas_jax.reporting.drawing import figure_names

_ABOUT = (
    "Test AUC, and the time of predicting all test rows from their ids: checks, gates, routing and "
    "models. All models of a seed take turns in one process, and the median of {} turns on {} "
    "counts, so other work meets all alike. Means over the seeds with standard deviations; "
    "differences and times over the base's are those of the same seed, and p is that of a paired "
    "t-test. {}"
)
_CAPTION = (
    "Bars and large dots are means over the seeds, small dots seeds; the dashed line is the base "
    "model. Behind a bar stands its multiple of the base model's time. An arrow is an AUC so far "
    "below the best that it would leave the others no room."
)


def timed(
    variants: Sequence[Variant], scores: Mapping[str, common.Runs], measured: Mapping[str, Any]
) -> dict[str, Timed]:
    """The models of a log that have scores, by the name of their variant."""
    rows, times = measured["test_rows"], measured["microseconds"]
    return {
        v.name: Timed(v.title, scores[v.name], [1e-3 * rows * time for time in times[v.name]])
        for v in variants
        if v.name in times
    }


def write(
    record: Record,
    variants: Sequence[Variant],
    measured: Mapping[str, Mapping[str, Any]],
    turns: int,
) -> tuple[str, ...]:
    """Writes JSON, Markdown and the figure of the logs that are measured.

    Args:
      record: the scores.
      variants: the models, the base model first and iHAS with the compiled router last.
      measured: by log the number of test rows, microseconds per row by variant and seed, and
        whether the compiled router is kept, by seed.
      turns: the number of turns of which a time is the median.

    Returns:
      The files that could not be made.
    """
    arguments, names = record.arguments, figure_names(list(measured), "log")
    models = {name: timed(variants, record.logs[name], own) for name, own in measured.items()}

    def draw() -> Figure:
        return draw_inference(dict(zip(names.texts, models.values(), strict=True)))

    def lines() -> list[str]:
        body = ["## Goal", "", *goal_lines(variants, models, measured)]
        for name, own in models.items():
            table = common.markdown_table(HEADERS, rows_of(own, measured[name]["test_rows"]))
            body += [f"## {markdown(name)}", "", f"{measured[name]['test_rows']:,} test rows.", ""]
            body += [*table, ""]
            if refused := [v.title for v in variants if v.name not in own]:
                body += [f"Left out, as the command's output explains: {', '.join(refused)}.", ""]
        note = reference_of(arguments.config).note
        body.append(_ABOUT.format(turns, jax.devices()[0].device_kind, note).rstrip())
        figure = f"![Time and test AUC]({link(arguments.destination.name)}.png)\n\n{_CAPTION}"
        return common.report("Figure 4: time of prediction", body, arguments.config, figure)

    content = record.content | {"inference": measured}
    return common.write_results(arguments.destination, content, lines, {".png": draw}, names)


def goal_lines(
    variants: Sequence[Variant],
    models: Mapping[str, Mapping[str, Timed]],
    measured: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """The table of what the compiled router should reach, on the logs where iHAS could run."""
    clusters = variants[-1].config.of(ClusterConfig).clusters
    rows, notes = [], []
    for name, own in models.items():
        if {EXACT, COMPILED} <= own.keys():
            rows.append(goal_row(markdown(name), clusters, own))
        if exact := measured[name]["compiled"].count(False):
            notes += [
                f"On {markdown(name)} the compiled router agrees too little with the exact one in "
                f"{exact} of {len(measured[name]['compiled'])} seeds, where the exact one is kept.",
                "",
            ]
    return [*common.markdown_table(GOAL_HEADERS, rows, texts=(0, 3, 6)), "", *notes]
