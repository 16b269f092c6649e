"""Shows a finished compression: report, figure and closing table, from its metrics."""

from __future__ import annotations

from typing import Any

from ihas_jax import checksums
from ihas_jax.files import write_text
from ihas_jax.pipeline.parts import make_parts
from ihas_jax.progress import say, show
from ihas_jax.reporting.drawing import save_figure
from ihas_jax.reporting.front import render_front
from ihas_jax.reporting.front_figure import draw_front
from ihas_jax.reporting.front_table import front_table
from ihas_jax.reporting.front_words import verdict
from ihas_jax.stages.run import Run

METRICS = "metrics.json"
_REPORT, _FIGURE = "report.md", "figures/front.png"


def present_front(run: Run, metrics: dict[str, Any]) -> tuple[str, ...]:
    """Makes report and figure, and prints the closing table.

    Returns:
      The parts that could not be made.
    """
    folder = run.workdir

    def figure() -> None:
        (folder / _FIGURE).parent.mkdir(exist_ok=True)
        save_figure(folder / _FIGURE, lambda: draw_front(metrics))
        checksums.record(folder, [_FIGURE])

    missing = make_parts(
        {
            str(folder / _REPORT): lambda: write_text(
                folder / _REPORT, render_front(run.config, metrics)
            ),
            str(folder / _FIGURE): figure,
            "the closing table": lambda: show(front_table(metrics)),
        }
    )
    say(verdict(metrics))
    if not missing:
        say(f"Report: {folder / _REPORT}")
    return missing
