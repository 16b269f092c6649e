"""The studies of iHAS as Markdown and JSON, with their figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import common
import numpy as np
from comparison import Record
from matplotlib.figure import Figure
from reference import reference_of
from study_figure import draw_studies
from study_list import DEFAULT, STUDIES, Study

from ihas_jax.config import Config
from ihas_jax.names import link, markdown
from ihas_jax.reporting.drawing import figure_names

BASE = "base"
"""The full-size model among the scores of a log."""
_HEADERS = (
    *("setting", "seeds", "AUC", "AUC vs default", "p", "logloss", "logloss vs default", "p"),
    *("kept by a row", "size", "training, s"),
)
_ABOUT = (
    "Test split, mean ± standard deviation over seeds. The default is iHAS with the values below, "
    "each other setting differs from it in what the study varies alone. Differences are those of "
    "the same seed, with the p-value of a paired t-test, not corrected for the number of tests. "
    "Kept by a row: the share of coordinates in the model of a row's cluster, the mean over rows. "
    "Size: parameters of the compact models together over those of the full-size model, without "
    "the router. Training: seconds of all stages but the base model, which reused ones count in, "
    "too."
)
_CAPTION = (
    "Large dots are means, small dots seeds; the black star is the default, the dashed line the "
    "mean of the full-size model. A panel ends a little below the lowest mean that is near the "
    "best."
)


def studied(logs: Mapping[str, Mapping[str, Any]], config: Config) -> dict[str, Study]:
    """The studies of which a log has more settings than the default, by name."""
    found = {name for scores in logs.values() for name in scores} - {DEFAULT}
    return {
        name: study
        for name, study in STUDIES.items()
        if any(setting.name(config) in found for setting in study.settings)
    }


def write(record: Record) -> tuple[str, ...]:
    """Writes JSON, Markdown and the figure of all scores so far.

    Returns:
      The files that could not be made.
    """
    arguments, logs = record.arguments, {k: v for k, v in record.logs.items() if DEFAULT in v}
    names, config = figure_names(list(logs), "log"), arguments.config
    shown = studied(logs, config)

    def draw() -> Figure:
        return draw_studies(shown, dict(zip(names.texts, logs.values(), strict=True)), config)

    def lines() -> list[str]:
        figure = f"![Test AUC by setting]({link(arguments.destination.name)}.png)\n\n{_CAPTION}"
        body = lines_of(shown, logs, config)
        note = reference_of(config).note
        return common.report(
            "Studies of iHAS", [*body, f"{_ABOUT} {note}".rstrip()], config, figure
        )

    figures = {".png": draw} if shown else {}
    return common.write_results(arguments.destination, record.content, lines, figures, names)


def lines_of(
    shown: Mapping[str, Study], logs: Mapping[str, Mapping[str, common.Runs]], config: Config
) -> list[str]:
    """A table for each study and log.

    Args:
      shown: the studies, by name.
      logs: scores by log and setting.
      config: the default.
    """
    body: list[str] = []
    for name, study in shown.items():
        body += [f"## {study.title}", "", f"`--study {name}`. {study.note}".rstrip(), ""]
        for log, found in logs.items():
            rows = rows_of(study, found, config)
            if rows:
                table = common.markdown_table(_HEADERS, rows)
                body += [f"### {study.title}: {markdown(log)}", "", *table, ""]
    return body


def rows_of(study: Study, found: Mapping[str, common.Runs], config: Config) -> list[list[str]]:
    """A row for each setting that has scores; none where the default alone has some."""
    names = {setting.label: setting.name(config) for setting in study.settings}
    there = {label: name for label, name in names.items() if name in found}
    if {*there.values()} <= {DEFAULT}:
        return []
    size, rows = _mean(found[BASE], "parameters"), []
    for label, name in there.items():
        runs = found[name]
        common_seeds = slice(min(len(runs), len(found[DEFAULT])))
        default, own = found[DEFAULT][common_seeds], runs[common_seeds]
        gains = {
            metric: ["", ""] if name == DEFAULT else common.gain_cells(default, own, metric)
            for metric in ("auc", "logloss")
        }
        rows.append(
            [
                f"**{label}**" if name == DEFAULT else label,
                str(len(runs)),
                *(common.spread_cell(runs, "auc"), *gains["auc"]),
                *(common.spread_cell(runs, "logloss"), *gains["logloss"]),
                f"{_mean(runs, 'kept'):.1%}",
                f"{_mean(runs, 'parameters') / size:.2f}",
                f"{_mean(runs, 'training_seconds'):.0f}",
            ]
        )
    return rows


def _mean(runs: common.Runs, name: str) -> float:
    return float(np.mean([run[name] for run in runs]))
