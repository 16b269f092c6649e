"""Finished runs of iHAS, read back for figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from compare import run_alone
from gate_figure import Gates
from inference import COMPILED, EXACT, NONE, Timed
from timing import take_turns_in_predicting

from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError
from ihas_jax.files import null_to_nan, read_json
from ihas_jax.flags import replaced
from ihas_jax.pipeline.about import differences_that_matter, read_about
from ihas_jax.pipeline.workdir import fingerprint
from ihas_jax.progress import say
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages.base import train_base
from ihas_jax.stages.bundles import base_bundle, search_bundle
from ihas_jax.stages.gates import show_gates
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import search

_POLARIZATION = "gates.polarization"
_TURNS = 41


def read_run(folder: Path, data: Dataset, flag: str) -> Run:
    """A finished run of iHAS on a log.

    Raises:
      InputError: the folder holds none; the message begins with the flag that named it.
    """
    about = read_about(folder, f"Pass the folder of a finished run of iHAS as {flag}.")
    path, wrong = folder.resolve(), ""
    if about.kind != "run" or about.config.method != "ihas":
        what = about.kind if about.kind != "run" else f"run of --method {about.config.method}"
        wrong = f"is a {what}. Pass a run of --method ihas"
    elif about.data != fingerprint(data):
        wrong = (
            f"is a run on other data ({about.data} there, {fingerprint(data)} here). Pass the same "
            "--data"
        )
    elif about.searched_by is not None:
        wrong = "has the search of another run. Pass a run with its own search"
    elif not (path / "metrics.json").exists():
        wrong = "is not finished. Finish it by the command that began it"
    if wrong:
        raise InputError(f"{flag} {path} {wrong}.")
    return Run(about.config, data, path)


def polarized_run(folder: Path, data: Dataset) -> Run:
    """The run of `--run`, whose search has the polarisation.

    Raises:
      InputError: as `read_run`, or it has none.
    """
    run = read_run(folder, data, "--run")
    if not replaced(run.config, _POLARIZATION, True) == run.config:
        raise InputError(
            f"--run {run.workdir} was searched without the polarisation. Pass it as --without, and "
            "a run with --gates.polarization as --run."
        )
    return run


def unpolarized_run(run: Run, without: Path | None, folder: Path) -> Run:
    """The run that differs from another one in the polarisation alone.

    Args:
      run: the other run.
      without: its folder; None trains it.
      folder: where it is trained, or resumed.

    Raises:
      InputError: as `read_run`, or `without` differs in more.
    """
    config = replaced(run.config, _POLARIZATION, False)
    if without is None:
        say(f"[Figure 3] trains the run without polarisation in {folder}")
        run_alone(config, run.data, folder, [run.workdir])
        return Run(config, run.data, folder.resolve())
    found = read_run(without, run.data, "--without")
    if others := differences_that_matter(config, found.config):
        raise InputError(
            f"--without {found.workdir} must differ from --run in --no-gates.polarization alone, "
            f"and differs from that in {'; '.join(others)}. Leave --without out to train it."
        )
    return found


def gates_of(run: Run) -> Gates:
    """The gates of the first test rows."""
    (found,) = search([run])  # the search has ended and is read back
    shown = show_gates(run, found)
    return Gates(shown["probs"], shown["thresholds"])


def timed_models(run: Run) -> dict[str, Timed]:
    """Base model, searched model and iHAS with the router of a run, timed by turns."""
    metrics = published(run)
    key, title = EXACT, "iHAS, exact router"
    if metrics.get("router", {}).get("kept"):
        key, title = COMPILED, "iHAS, compiled router"
    (base,), (found,) = train_base([run]), search([run])
    models = {
        NONE: ("base", metrics["base"], base_bundle(run, base).predict_ids),
        "search": ("iHAS-1 (searched model)", metrics["search"], _searched(run, found)),
        key: (title, metrics["ihas"], load_bundle(run.workdir).predict_ids),
    }
    predictors = {name: predict for name, (_, _, predict) in models.items()}
    times = take_turns_in_predicting(predictors, run.data.test.ids, _TURNS)
    rows = len(run.data.test.labels)
    return {
        name: Timed(title, [scores], [1e-3 * rows * times[name]])
        for name, (title, scores, _) in models.items()
    }


def _searched(run: Run, found: Any) -> Any:
    (served,) = search_bundle(run, found).models

    def predict(ids: np.ndarray) -> np.ndarray:
        probs: np.ndarray = served.predict(ids, title="[predict] searched model").probs
        return probs

    return predict


def published(run: Run) -> dict[str, Any]:
    """The content of a run's metrics.json."""
    metrics: dict[str, Any] = read_json(run.workdir / "metrics.json")
    for key in ("base", "search", "ihas"):  # the AUC of test rows of one class is null in the file
        metrics[key]["auc"] = null_to_nan(metrics[key]["auc"])
    return metrics
