"""What a finished run leaves for people: metrics.json, report.md, figures, the closing table."""

from __future__ import annotations

from typing import Any

import numpy as np

from ihas_jax.progress import log
from ihas_jax.reporting.figures import History, draw_figures
from ihas_jax.reporting.report import MODELS, closing_table, write_report
from ihas_jax.stages.run import Run, read_json, write_json


def publish(
    run: Run,
    metrics: dict[str, Any],
    histories: dict[str, History],
    sample: dict[str, np.ndarray] | None = None,
) -> None:
    """Draws, writes and prints the results of a run.

    Args:
      run: the run.
      metrics: what goes to metrics.json.
      histories: epochs of each training.
      sample: gate probabilities `[S, K]` and thresholds `[S]` of some test rows, of iHAS.
    """
    draw_figures(run.workdir / "figures", metrics, histories, sample)
    write_report(run.workdir, run.config, metrics, histories)
    write_json(run.workdir / "metrics.json", metrics)
    run.event("metrics", metrics)
    show(run, metrics)


def show(run: Run, metrics: dict[str, Any]) -> None:
    """Prints the closing table."""
    closing_table(metrics)
    log(f"Report: {run.workdir / 'report.md'}")


def read_published(run: Run) -> dict[str, Any] | None:
    """The metrics of a finished run, or None where one of its files is missing."""
    files = [run.workdir / name for name in ("metrics.json", "report.md", "bundle/bundle.json")]
    if not all(path.exists() for path in files):
        return None
    metrics: dict[str, Any] = read_json(files[0])
    for name in MODELS:
        if name in metrics and metrics[name]["auc"] is None:  # of a test split with one class
            metrics[name]["auc"] = float("nan")
    return metrics
