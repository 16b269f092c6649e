"""The figure of the studies: test AUC by setting, a row of panels for each study."""

from __future__ import annotations

from collections.abc import Mapping

import common
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sizes.drawing import leave_room
from study_list import DEFAULT, Setting, Study
from table_figures import look

from ihas_jax.config import Config

_GREY = "#555555"


def draw_studies(
    studies: Mapping[str, Study], logs: Mapping[str, Mapping[str, common.Runs]], config: Config
) -> Figure:
    """Draws a page of panels: a row for each study, a column for each log.

    Args:
      studies: the studies, by name.
      logs: scores by the name of the log in the figure and by setting, with those of the default
        and of the full-size model.
      config: the default.
    """
    size = (4.0 * len(logs) + 0.4, 2.7 * len(studies) + 0.3)
    figure, axes = common.panels(len(studies) * len(logs), len(logs), size)
    places = [(study, log) for study in studies.values() for log in logs]
    for panel, (study, log) in zip(axes, places, strict=True):
        panel.set_title(f"{study.title}\n{log}", loc="left", fontsize=9)
        panel.set_xlabel(study.axis, fontsize=8)
        panel.set_ylabel("test AUC", fontsize=8)
        panel.tick_params(labelsize=7)
        _draw(panel, study, logs[log], config)
    return figure


def _draw(panel: Axes, study: Study, found: Mapping[str, common.Runs], config: Config) -> None:
    settings = [one for one in study.settings if one.name(config) in found]
    undefined = [runs for runs in found.values() if np.isnan([r["auc"] for r in runs]).any()]
    if undefined:
        common.say_undefined(panel, undefined[0])
        return
    base = _mean(found["base"], "auc")
    panel.axhline(base, color=_GREY, ls="--", lw=1.0, zorder=1)
    places = {one.label: place for place, one in enumerate(study.settings)}

    def across(setting: Setting) -> float:
        """The place of a setting on the horizontal axis."""
        return (
            _mean(found[setting.name(config)], "kept") if study.by_kept else places[setting.label]
        )

    means = {one.label: _mean(found[one.name(config)], "auc") for one in settings}
    for number, line in enumerate(dict.fromkeys(one.line for one in settings)):
        own = [one for one in settings if one.line == line]
        color, marker = look(number)
        for one in own:
            runs = found[one.name(config)]
            x = [run["kept"] for run in runs] if study.by_kept else [across(one)] * len(runs)
            panel.plot(x, [run["auc"] for run in runs], ".", color=color, ms=3, alpha=0.6)
        x, y = [across(one) for one in own], [means[one.label] for one in own]
        width = 1.0 if study.joined else 0.0
        panel.plot(x, y, marker=marker, color=color, ms=5, lw=width, label=line or None)
        if study.by_kept:
            for one in own:
                text = one.label.partition(",")[0]
                panel.annotate(
                    text,
                    (across(one), means[one.label]),
                    xytext=(3, 3),
                    textcoords="offset points",
                    fontsize=6,
                    color=color,
                )
    for one in settings:
        if one.name(config) == DEFAULT:
            panel.plot([across(one)], [means[one.label]], "*", color="black", ms=10, zorder=4)
    if study.by_kept:
        panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        panel.legend(frameon=False, fontsize=6)
    else:
        panel.set_xticks([*places.values()], [*places])
        panel.set_xlim(-0.5, len(places) - 0.5)
    leave_room(panel, list(means.values()), [base])


def _mean(runs: common.Runs, name: str) -> float:
    return float(np.mean([run[name] for run in runs]))
