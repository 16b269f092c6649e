"""A finished run, cut to several sizes, perhaps trained on, and what each size costs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ihas_jax.config.compress import CompressConfig
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError
from ihas_jax.files import write_json
from ihas_jax.pipeline.cut_source import SIZES, lessons_of, open_source, require_same
from ihas_jax.pipeline.fit import require_rows
from ihas_jax.pipeline.present_front import METRICS
from ihas_jax.pipeline.workdir import open_run
from ihas_jax.presets import search_of
from ihas_jax.progress import say, show
from ihas_jax.reporting.front_words import choice
from ihas_jax.reporting.tables import Grid
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.storage import save_bundle
from ihas_jax.stages.base import fresh_state
from ihas_jax.stages.bundles import outcome_bundle
from ihas_jax.stages.candidates import add_speed, measure
from ihas_jax.stages.candidates import choose as choose_candidate
from ihas_jax.stages.choose import choose
from ihas_jax.stages.cut import measure_cut, with_room
from ihas_jax.stages.retrain import retrain as retrain_plan
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns
from ihas_jax.stages.verdict import efficient
from ihas_jax.training.metrics import auc_text
from ihas_jax.training.task import Trained

_HEADERS = ("table", "parameters", "worth", "rise predicted", "rise measured", "AUC", "µs per row")


def cut_run(
    run: str | Path,
    data: Dataset,
    choices: CompressConfig,
    output: str | Path | None = None,
    *,
    retrain: bool = False,
) -> dict[str, Any]:
    """Cuts the bundle of a finished run to several shares of its table, and shows what they cost.

    The rises of the logloss and the AUC are those of the validation rows.

    Args:
      run: the folder of a finished run of one full-size model, or that of its bundle.
      data: the log of the run.
      choices: the budgets, and how far behind the best size the chosen one may be.
      output: the folder for metrics.json and the bundle of the chosen size, new or that of an
        earlier cut of the same run; None for neither.
      retrain: whether each size is trained on, from the cut model, on what the run has learnt from;
        the output is then needed, and the same call resumes after an interruption.

    Returns:
      `base`, `chosen`, `front` and `candidates`, as the metrics of a compression, and `retrained`.

    Raises:
      InputError: the run has no bundle, or none of one full-size model, or is of another log; no
        budget has room for a coordinate; the output holds something else, such as sizes of another
        bundle; or there is none for what is trained.
    """
    require_rows(data)
    bundle, folder = open_source(Path(run), data)
    if output is None:
        if retrain:
            raise InputError("--retrain needs a folder for what is trained. Name it as --output.")
        return _cut(bundle, data, choices)
    taught = lessons_of(folder, bundle, data) if retrain else None
    with open_run(bundle.config, data, output, kind="cut") as own:
        require_same(own, bundle, taught, retrain=retrain)
        own = replace(own, taught=taught)
        return _cut(bundle, data, choices, own, retrain=retrain)


def _cut(
    bundle: Bundle,
    data: Dataset,
    choices: CompressConfig,
    own: Run | None = None,
    *,
    retrain: bool = False,
) -> dict[str, Any]:
    """Cuts, measures and chooses; writes into the folder of a run, if there is one."""
    found = [measure("base", bundle, 1.0, data)]
    for budget in with_room(bundle, choices.budget):
        made = measure_cut(bundle, budget)
        small = made.bundle
        if retrain and own is not None:
            say(f"[cut] trains {100 * budget:g} % of the table")
            small = _trained_on(own, bundle, budget)
        one = measure(f"{100 * budget:g} %", small, budget, data)
        one.facts.update(worth=made.share, rise=made.rise)
        found.append(one)
    add_speed(found, data.test)
    chosen = choose_candidate(found, data.valid.labels, choices)
    facts = [{"name": one.name, "budget": one.budget, **one.facts} for one in found]
    metrics: dict[str, Any] = {
        "retrained": retrain,
        "base": facts[0],
        "chosen": facts[chosen],
        "front": [facts[i] for i in efficient(facts)],
        "candidates": facts,
    }
    title = "Cut, and trained on" if retrain else "Cut without training"
    title += ": AUC and rise of the logloss on validation rows"
    show(Grid(title, _HEADERS, [_row(one, facts[0]) for one in facts], ()))
    say(f"Chosen: {facts[chosen]['name']}. {choice(metrics | {'choices': asdict(choices)})}")
    if own is not None:
        # metrics that are there mean that the bundle is theirs
        (own.workdir / METRICS).unlink(missing_ok=True)
        save_bundle(found[chosen].bundle, own.workdir / "bundle", replace=True)
        write_json(own.workdir / METRICS, metrics)
        say(f"Bundle: {own.workdir / 'bundle'}")
    return metrics


def _trained_on(own: Run, bundle: Bundle, budget: float) -> Bundle:
    """The whole model of a bundle, cut to a share of its table and trained on."""
    config = replace(
        bundle.config,
        method="spectral",
        budget=budget,
        search=search_of("spectral", "small"),
        retrain=replace(bundle.config.retrain, teachers=()),
    ).having(SpectralConfig())
    run = replace(own, config=config, workdir=own.workdir / SIZES / repr(budget))
    run.workdir.mkdir(parents=True, exist_ok=True)
    whole = Trained(bundle.models[0].variables, fresh_state(run, "search", run.model), [], 0.0)
    found = SearchRuns(whole, None, whole)
    plan, _ = choose(run, found)
    return outcome_bundle(run, found, *retrain_plan(run, plan, found))


def _row(facts: dict[str, Any], base: dict[str, Any]) -> list[str]:
    rise = facts["valid_logloss"] - base["valid_logloss"]
    cut = facts is not base
    return [
        facts["name"],
        f"{facts['parameters']:,}",
        f"{facts['worth']:.2%}" if cut else "",
        f"{facts['rise']:.5f}" if cut else "",
        f"{rise:+.5f}" if cut else "",
        auc_text(
            {"auc": facts["valid_auc"], "only_label": facts.get("valid_only_label", "0 or 1")}
        ),
        f"{facts['microseconds']:.2f}",
    ]
