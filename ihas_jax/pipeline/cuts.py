"""A finished run, cut to several sizes without training, and what each size costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError
from ihas_jax.files import write_json
from ihas_jax.progress import say, show
from ihas_jax.reporting.tables import Grid
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.storage import load_bundle, save_bundle
from ihas_jax.stages.candidates import add_speed, measure
from ihas_jax.stages.cut import measure_cut
from ihas_jax.stages.verdict import choose_smallest, efficient
from ihas_jax.training.metrics import auc_text

_HEADERS = ("table", "parameters", "worth", "rise predicted", "rise measured", "AUC", "µs per row")


def cut_run(
    run: str | Path,
    data: Dataset,
    budgets: Sequence[float],
    tolerance: float,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Cuts the bundle of a finished run to several shares of its table, and shows what they cost.

    Nothing is trained; the rises of the logloss and the AUC are those of the validation rows.

    Args:
      run: the folder of a finished run of one full-size model, or that of its bundle.
      data: the log of the run.
      budgets: shares of the table's numbers.
      tolerance: the AUC that the chosen size may lose to the best one, on validation rows.
      output: a new folder for metrics.json and the bundle of the chosen size; None for neither.

    Returns:
      `base`, `chosen`, `front` and `candidates`, as the metrics of a compression.

    Raises:
      InputError: the run has no bundle, or none of one full-size model, or is of another log; a
        budget has no room for a coordinate; or the output exists.
    """
    bundle = load_bundle(run)
    _require_log(bundle, data)
    if output is not None and Path(output).exists():
        raise InputError(f"{output} exists already. Choose another --output.")
    found = [measure("base", bundle, 1.0, data)]
    for budget in sorted(budgets, reverse=True):
        made = measure_cut(bundle, budget, data.train.ids)
        one = measure(f"{100 * budget:g} %", made.bundle, budget, data)
        one.facts.update(worth=made.share, rise=made.rise)
        found.append(one)
    add_speed(found, data.test)
    facts = [{"name": one.name, "budget": one.budget, **one.facts} for one in found]
    chosen = choose_smallest(facts, tolerance)
    metrics = {
        "base": facts[0],
        "chosen": facts[chosen],
        "front": [facts[i] for i in efficient(facts)],
        "candidates": facts,
    }
    show(Grid("Cut without training", _HEADERS, [_row(one, facts[0]) for one in facts], ()))
    say(
        f"The smallest one whose AUC is within {tolerance:g} of the best, on validation rows: "
        f"{facts[chosen]['name']}"
    )
    if output is not None:
        path = Path(output)
        path.mkdir(parents=True)
        save_bundle(found[chosen].bundle, path / "bundle")
        write_json(path / "metrics.json", metrics)
        say(f"Bundle: {path / 'bundle'}")
    return metrics


def _require_log(bundle: Bundle, data: Dataset) -> None:
    """Raises: InputError: a log has other fields or values than the models of a bundle."""
    ours, theirs = data.schema, bundle.schema
    same = ours.names == theirs.names and ours.sizes == theirs.sizes
    if not same or any(
        list(a.values) != list(b.values) for a, b in zip(ours.fields, theirs.fields, strict=True)
    ):
        raise InputError(
            "The log of --data has other fields or values than the log of --run. Pass the --data "
            "of that run."
        )


def _row(facts: dict[str, Any], base: dict[str, Any]) -> list[str]:
    rise = facts["valid_logloss"] - base["valid_logloss"]
    cut = facts is not base
    return [
        facts["name"] if cut else "whole",
        f"{facts['parameters']:,}",
        f"{facts['worth']:.2%}" if cut else "",
        f"{facts['rise']:.4f}" if cut else "",
        f"{rise:+.4f}" if cut else "",
        auc_text(
            {"auc": facts["valid_auc"], "only_label": facts.get("valid_only_label", "0 or 1")}
        ),
        f"{facts['microseconds']:.2f}",
    ]
