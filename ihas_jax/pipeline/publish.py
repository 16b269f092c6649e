"""Writes the numbers of a finished run, then report, figures and the closing table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ihas_jax import checksums
from ihas_jax.errors import InputError
from ihas_jax.files import null_to_nan, read_json, write_json, write_text
from ihas_jax.pipeline.parts import make_parts
from ihas_jax.processes import by_first
from ihas_jax.progress import say, show
from ihas_jax.reporting.drawing import FigureNames, figure_names, save_figure
from ihas_jax.reporting.figures import (
    History,
    count_gates,
    draw_learning_curves,
    draw_probabilities,
    draw_widths,
)
from ihas_jax.reporting.report import render_report
from ihas_jax.reporting.scores import closing_table, titles
from ihas_jax.stages.run import Run

_METRICS, _CURVES, _REPORT = "metrics.json", "curves.json", "report.md"
_WIDTHS, _NAMES = "figures/widths.png", "figures/names.json"


@by_first
def publish(
    run: Run,
    metrics: dict[str, Any],
    histories: dict[str, History],
    shown: dict[str, np.ndarray] | None = None,
) -> None:
    """Writes the numbers of a run, and what `present` needs to show them.

    Args:
      run: the run.
      metrics: the content of metrics.json.
      histories: epochs of each training; those without epochs are left out.
      shown: gate probabilities `[S, K]` and thresholds `[S]` of some test rows, if there are any.
    """
    _remove(run, _parts(metrics))
    gates = count_gates(shown["probs"], shown["thresholds"]) if shown else None
    trained = {name: history for name, history in histories.items() if history}
    write_json(run.workdir / _CURVES, {"histories": trained, "gates": gates})
    write_json(run.workdir / _METRICS, metrics)  # its presence means that all numbers are there
    run.event("metrics", metrics)


@by_first
def read_published(run: Run) -> dict[str, Any] | None:
    """The metrics of a finished run; None if a file that evaluation writes is missing."""
    files = [run.workdir / name for name in (_METRICS, "bundle/bundle.json")]
    if not all(path.exists() for path in files):
        return None
    metrics: dict[str, Any] = read_json(files[0])
    if not (run.workdir / _CURVES).exists() and _missing(run, metrics, _names(metrics)):
        return None
    # the AUC of a test split with one class is null in the file
    clusters = [cluster["test"] for cluster in metrics.get("clusters", []) if cluster["test"]]
    for scores in [*(metrics[name] for name in titles() if name in metrics), *clusters]:
        scores["auc"] = null_to_nan(scores["auc"])
    if "gain" in metrics:  # which has no noise with few test rows, either
        metrics["gain"] = null_to_nan(metrics["gain"])
    return metrics


@by_first
def present(run: Run, metrics: dict[str, Any]) -> tuple[str, ...]:
    """Makes the missing parts of report and figures, and prints the closing table.

    A part that fails costs a line in the log, which says why.

    Returns:
      The parts that are still missing.
    """
    folder, names = run.workdir, _names(metrics)
    parts: dict[str, Callable[[], None]] = {}
    if absent := _missing(run, metrics, names):
        checksums.forget(folder, absent)
        _remove(run, absent)  # a file may show old names
        curves = read_json(folder / _CURVES)
        makers = _makers(run, metrics, names, null_to_nan(curves["histories"]), curves["gates"])
        parts = {str(folder / name): makers[name] for name in absent}
    parts["the closing table"] = lambda: show(closing_table(metrics))
    missing = make_parts(parts)
    if note := names.note():
        say(note)
    if not missing:
        say(f"Report: {folder / _REPORT}")
    return missing


def _names(metrics: dict[str, Any]) -> FigureNames:
    """The names of the fields in figures; none if no figure shows fields."""
    models = metrics["clusters"][:1] if "clusters" in metrics else [metrics.get("selection", {})]
    return figure_names(list(models[0].get("widths", {})))


def _parts(metrics: dict[str, Any]) -> list[str]:
    """The files of report and figures."""
    names = [_REPORT, "figures/learning_curves.png"]
    names += ["figures/probabilities.png"] if metrics.get("gates", "clusters" in metrics) else []
    return [*names, _WIDTHS] if "clusters" in metrics or "selection" in metrics else names


def _missing(run: Run, metrics: dict[str, Any], names: FigureNames) -> list[str]:
    """The files that are missing, or show other names than they would show now."""
    folder = run.workdir
    missing = [name for name in _parts(metrics) if not (folder / name).is_file()]
    if _shown(folder / _NAMES) != names.stand_ins:
        missing = [*dict.fromkeys([*missing, _REPORT, _WIDTHS]), _NAMES]
    return missing


def _shown(path: Path) -> dict[str, str] | None:
    """The stand-ins that the files of a run show; None if they can't be read."""
    try:
        return read_json(path) if path.exists() else {}
    except InputError:
        return None


def _remove(run: Run, names: list[str]) -> None:
    for name in names:
        with suppress(OSError):  # making it again fails too, and says why
            (run.workdir / name).unlink(missing_ok=True)


def _makers(
    run: Run,
    metrics: dict[str, Any],
    names: FigureNames,
    histories: dict[str, History],
    gates: dict[str, Any] | None,
) -> dict[str, Callable[[], None]]:
    """The functions that make the files, by name."""
    folder = run.workdir

    def figure(name: str, draw: Callable[[], Any], fonts: tuple[str, ...] = ()) -> None:
        (folder / "figures").mkdir(exist_ok=True)
        save_figure(folder / name, draw, fonts)
        checksums.record(folder, [name])

    def write_report() -> None:
        write_text(folder / _REPORT, render_report(run.config, metrics, histories, names))

    def write_names() -> None:
        path: Path = folder / _NAMES
        if names.stand_ins:
            write_json(path, names.stand_ins)
        checksums.record(folder, [_NAMES])

    return {
        _REPORT: write_report,
        "figures/learning_curves.png": lambda: figure(
            "figures/learning_curves.png", lambda: draw_learning_curves(histories)
        ),
        "figures/probabilities.png": lambda: figure(
            "figures/probabilities.png", lambda: draw_probabilities(gates or {})
        ),
        _WIDTHS: lambda: figure(_WIDTHS, lambda: draw_widths(metrics, names.texts), names.fonts),
        _NAMES: write_names,
    }
