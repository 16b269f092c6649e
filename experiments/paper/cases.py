"""Figure 6: is a test row better predicted by the model of its own cluster than by the others?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ihas_jax.errors import InputError
from ihas_jax.serving.bundle import Bundle
from ihas_jax.stages.certainty import auc_error, logloss_error
from ihas_jax.training.metrics import auc, logloss, row_losses

_EXAMPLES = 2
"""The number of rows of each label that each cluster shows."""


def case_facts(bundle: Bundle, ids: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """How the models of a bundle predict the rows of each cluster.

    Args:
      bundle: iHAS, with a model for each cluster.
      ids: `[n, N]`, those of the test rows.
      labels: `[n]`.
      seed: seed of the choice of examples.

    Returns:
      As JSON: facts of `all` rows and of those of each of the `clusters` by `compare`, none where a
      cluster has no rows; and the `examples`.

    Raises:
      InputError: the ids are not those of the bundle, or one model serves all clusters.
    """
    if len(bundle.models) < 2:
        raise InputError(
            "The case study compares the models of clusters, and one model serves all rows of this "
            "run. Choose at least 2 --cluster.clusters, and a --cluster.min-rows that they reach."
        )
    clusters = bundle.assign(ids)
    serving = np.array(bundle.routes)[clusters]
    probs = np.stack(
        [
            served.predict(ids, title=f"[cases] model {number}").probs
            for number, served in enumerate(bundle.models)
        ]
    )
    own, other = own_and_others(probs, serving)
    parts = [clusters == c for c in range(len(bundle.routes))]
    return {
        "all": compare(labels, own, other),
        "clusters": [compare(labels[p], own[p], other[p]) if p.any() else {} for p in parts],
        "examples": [
            {"row": row, "cluster": int(clusters[row]), "label": int(labels[row])}
            | {"own": float(own[row]), "other": float(other[row])}
            for row in draw_examples(labels, clusters, len(bundle.routes), seed)
        ],
    }


def own_and_others(probs: np.ndarray, serving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The prediction `[n]` of each row's own model, and the mean of those of the other models.

    Args:
      probs: click probabilities `[M, n]` of every row by every model.
      serving: `[n]`, the model that serves each row.
    """
    own = probs[serving, np.arange(probs.shape[1])]
    return own, (probs.sum(axis=0, dtype=np.float64) - own) / (len(probs) - 1)


def compare(labels: np.ndarray, own: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """How much better the predictions `own` `[n]` of some rows are than `other` ones.

    Returns:
      `rows`, `clicks` (their share); `logloss` and `auc` of each, the `gain` of `own` in both (more
      is better) with its standard error over rows; `better`, the share of rows whose logloss is
      smaller, with its standard error. What is not defined is nan.
    """
    losses = row_losses(labels, own), row_losses(labels, other)
    better = float((losses[0] < losses[1]).mean() + (losses[0] == losses[1]).mean() / 2)
    aucs, loglosses = ([of(labels, probs) for probs in (own, other)] for of in (auc, logloss))
    return {
        "rows": len(labels),
        "clicks": float(labels.mean()),
        "better": better,
        "better_error": float(np.sqrt(better * (1 - better) / len(labels))),
        "logloss": {
            "own": loglosses[0],
            "other": loglosses[1],
            "gain": loglosses[1] - loglosses[0],
            "error": logloss_error(labels, own, other),
        },
        "auc": {
            "own": aucs[0],
            "other": aucs[1],
            "gain": aucs[0] - aucs[1],
            "error": auc_error(labels, own, other),
        },
    }


def draw_examples(
    labels: np.ndarray, clusters: np.ndarray, number: int, seed: int
) -> Sequence[int]:
    """Rows drawn by chance: of each of a `number` of clusters two with a click and two without."""
    rng, rows = np.random.default_rng(seed), []
    for cluster in range(number):
        for label in (1, 0):
            found = np.flatnonzero((clusters == cluster) & (labels == label))
            rows += sorted(rng.permutation(found)[:_EXAMPLES].tolist())
    return rows
