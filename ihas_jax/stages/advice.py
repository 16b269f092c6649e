"""What to try next: a rule for each diagnosis of a finished run, with the flags that may help."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ihas_jax.config import Config, GateConfig
from ihas_jax.presets import preset
from ihas_jax.selectors.experts import BELOW_SIZE
from ihas_jax.training.metrics import Scores
from ihas_jax.training.stopping import epoch_name

Metrics = Mapping[str, Any]
"""The content of metrics.json."""
Histories = Mapping[str, Sequence[Mapping[str, float]]]
"""The epochs of each training, by name."""
_ALIKE = 0.01
"""The mean of 2 m (1 - m) below which masks are alike. With --preset small it is 0 on the Criteo
sample, 0.0001 on MovieLens, and 0.14 on the synthetic log, where masks follow the groups."""
_FROM_HALF = 0.15
"""The mean distance of a probability from 1/2 below which gates have not moved. That of fresh gates
is 0.02, and 0.11 with inputs of unit variance; --preset small ends at 0.24 on the Avazu sample, at
0.33 on the Criteo sample and at 0.44 on the synthetic log."""
_REACH = 0.1
"""The number of updates times their size below which gates without probabilities per row have not
moved: a log-odds that has changed by 0.1 has changed its probability by 0.025 at most."""
_FALL = 0.001
"""What another seed may change of an AUC: a training from a trained model may end that much below
its first epoch, and does not overfit."""
_STRONG_L2 = 1e-4
"""The largest L2 term that compress.py tries by default; on the Avazu sample, it moved the best
epoch of a base model that overfits, at a learning rate of 0.005, from the first to the third."""
_CLUSTERS = {"ihas": "cluster.clusters", "spectral": "spectral.clusters"}
_SERVED = ("base", "student", "retrain")
"""How the names of trainings begin whose models a run compares or serves."""


class Advice(NamedTuple):
    """One thing to try.

    Attributes:
      found: the diagnosis, and the measurement that says so.
      remedy: the flags to try.
    """

    found: str
    remedy: str


def advise(config: Config, metrics: Metrics, histories: Histories) -> list[Advice]:
    """What to try next, an entry for each diagnosis that applies.

    A rule whose measurement is missing, as it is in metrics of earlier versions, says nothing.
    """
    still = _still_gates(config, metrics)
    found = (
        None if still else _alike_masks(config, metrics),  # gates that have not moved are alike
        still,
        _small_clusters(config, metrics),
        _overfitting(config, histories),
    )
    return [advice for advice in found if advice is not None]


def _alike_masks(config: Config, metrics: Metrics) -> Advice | None:
    """Clusters of rows can't differ where all rows have the same mask."""
    differ = _searched(metrics).get("differ")
    by_choice = config.retrain.group_by is not None or (
        config.method == "ihas" and not config.of(GateConfig).instance_wise
    )
    if differ is None or differ >= _ALIKE or by_choice or len(metrics.get("clusters", ())) < 2:
        return None
    ways = []
    if config.method == "ihas" and config.of(GateConfig).inputs == "raw":
        ways.append("`--gates.inputs unit`, which shows the gates embeddings of equal variance")
    if config.method == "ihas" and (weight := config.of(GateConfig).weight):
        ways.append(f"`--gates.weight {weight / 10:g}`, in case the penalty outweighs clicks")
    if config.retrain.start != "shared":
        ways.append("`--cluster.clusters 1`, since one model then learns from all rows")
    return Advice(
        "Masks do not depend on the instance: two test rows differ in only "
        f"{differ:.2%} of the coordinates, on average.",
        f"Try {', or '.join(ways)}.",
    )


def _still_gates(config: Config, metrics: Metrics) -> Advice | None:
    """Gates that are where they began select by chance."""
    searched = _searched(metrics)
    updates, distance = searched.get("gate_updates"), searched.get("from_half")
    if updates is None:
        return None
    rate = config.search.gate_optimizer.learning_rate
    reach = updates * rate
    if distance is not None and distance < _FROM_HALF:
        measured = f"the mean distance of their probabilities from 1/2 is {distance:.3f}"
    elif distance is None and reach < _REACH:
        measured = f"a learning rate of {rate:g} moves a weight by about {reach:.2g} at most"
    else:
        return None
    return Advice(
        f"The gates barely moved: after {updates:,} updates, {measured}.",
        f"Try to {more_updates(config)}.",
    )


def _small_clusters(config: Config, metrics: Metrics) -> Advice | None:
    """A cluster with few rows has no model of its own."""
    clusters = metrics.get("clusters", ())
    small = [c for c, one in enumerate(clusters) if BELOW_SIZE in (one["fallback"] or "")]
    if not small:
        return None
    ways = ["a smaller `--cluster.min-rows`"]
    fewest = 2 if config.retrain.start == "shared" else 1
    if config.method in _CLUSTERS and len(clusters) > fewest and config.retrain.group_by is None:
        ways.insert(0, f"`--{_CLUSTERS[config.method]} {len(clusters) - 1}`")
    reasons = "; ".join(f"cluster {c}: {clusters[c]['fallback']}" for c in small)
    return Advice(
        f"The model of all rows serves what is too small for a model of its own ({reasons}).",
        f"Try {', or '.join(ways)}.",
    )


def _overfitting(config: Config, histories: Histories) -> Advice | None:
    """Trainings that were best at first, and then fell by more than noise."""
    found, taught = [], False
    for name, history in histories.items():
        best, last = best_epoch(history), history[-1]
        fall = _scores(best).objective - _scores(last).objective
        if name.startswith(_SERVED) and best["epoch"] <= 0 and fall > _FALL:
            first = epoch_name(int(best["epoch"]))
            found.append(f"{name} goes from {_score(best)} ({first}) to {_score(last)}")
            taught |= name != "base"
    if not found:
        return None
    rate = config.optimizer.learning_rate
    ways = [f"a smaller `--optimizer.learning-rate`, such as {rate / 3:.1g}"]
    if config.optimizer.l2 < _STRONG_L2:
        ways.insert(0, f"`--optimizer.l2 {_STRONG_L2:g}`")
    if taught and not config.retrain.teachers:  # a base model learns from clicks alone
        ways.append("`--retrain.teachers dnn:2 gdcn`, since predictions are smoother than clicks")
    return Advice(
        f"Overfitting from the first epoch on: on validation rows {'; '.join(found)} at its end.",
        f"Try {', or '.join(ways)}.",
    )


def best_epoch(history: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The facts of the epoch that a training has kept."""
    return max(history, key=lambda facts: _scores(facts).objective)


def _scores(facts: Mapping[str, float]) -> Scores:
    return Scores(facts["auc"], facts["logloss"])


def _score(facts: Mapping[str, float]) -> str:
    """The AUC of an epoch, or where it is not defined the logloss."""
    if math.isnan(facts["auc"]):
        return f"a logloss of {facts['logloss']:.4f}"
    return f"an AUC of {facts['auc']:.4f}"


def more_updates(config: Config) -> str:
    """Flags that would let the gates move more; a preset only if the run has the paper's values."""
    every, batch = config.search.gate_every, config.train.batch_size
    paper, small = preset("paper", method=config.method), preset("small", method=config.method)
    if (every, batch) == (paper.search.gate_every, paper.train.batch_size):
        return "use --preset small, or a smaller --search.gate-every"
    ways = []
    if every > 1:
        ways.append(f"--search.gate-every {min(small.search.gate_every, every - 1)}")
    if batch > 32:
        ways.append(f"--train.batch-size {min(small.train.batch_size, batch // 2)}")
    ways.append("a larger --search.gate-optimizer.learning-rate")
    return f"choose {' or '.join(ways)}"


def _searched(metrics: Metrics) -> Metrics:
    """The facts of the searched model, which is the outcome where nothing is retrained."""
    return metrics.get("search") or metrics.get(metrics["method"]) or {}
