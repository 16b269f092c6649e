"""What the methods other than iHAS find on a log of four informative and four noise fields.

Methods that weigh or choose fields rank the informative ones above the noise; methods that choose
coordinates or values leave them more. AutoDim tells them apart where fields have so many values
that the larger vectors of a noise field overfit; elsewhere all sizes of it are as good.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import ihas_jax as ihas
from ihas_jax.flags import replaced
from ihas_jax.models.forward import embed
from ihas_jax.selectors.base import Pretraining, Selecting
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import search

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimised")]

# where the defaults, made for longer logs, would not move a method enough to tell
_ADAFS = {
    "search.pretrain_epochs": 0,
    "search.gate_every": 1,
    "search.gate_optimizer.learning_rate": 1e-2,
    "adafs.dropout": 0.0,
    "optimizer.learning_rate": 3e-4,
}
FLAGS = {
    "autofield": {},
    "adafs_soft": _ADAFS,
    "adafs_hard": _ADAFS,
    "autodim": {
        "search.pretrain_epochs": 0,
        "search.gate_every": 1,
        "train.max_epochs": 20,
        "train.patience": 20,
    },
    "pep": {"optimizer.l2": 1e-3},
    "optembed": {"optimizer.l2": 1e-3},
    "optfs": {},
    "sseds": {},
    "dimreg": {"dimreg.l1_ratio": 1.7, "search.gate_optimizer.learning_rate": 1e-2},
}
VALUES = {"autodim": 2000}


@functools.cache
def log_of(values):
    config = ihas.SyntheticConfig(
        rows=40_000, groups=1, context=0, own=3, shared=1, noise=4, values=values, seed=1
    )
    return ihas.synthetic(config)


def shares(method, log, workdir):
    """The mean weight of each field in the searched model, or the coordinates it is left."""
    config = replaced(ihas.preset("small", method=method), "train.max_epochs", 12)
    for flag, value in FLAGS[method].items():
        config = replaced(config, flag, value)
    run = Run(config, log, workdir)
    model, selector = run.searched_model, run.selector
    variables = search([run])[0].searched.variables
    found = SearchResult(
        model, variables, log.train, log.valid, run.key("choose"), run.seed("choose")
    )
    if experts := selector.choose(found).experts:
        (expert,) = experts
        left = expert.selection.parameters_by_field(model.embedding)
        return np.array(left) / np.array(model.embedding.sizes)

    @jax.jit
    def sizes(ids):
        transforms = (Selecting(selector), Pretraining(selector))
        made = (embed(model, variables, ids, transform)[1] for transform in transforms)
        return [abs(one.vectors).sum(axis=2) for one in made]

    after, before = sizes(log.test.ids)
    return np.asarray(after / before).mean(axis=0)


@pytest.mark.parametrize("method", FLAGS)
def test_informative_fields_come_before_noise(method, tmp_path):
    log = log_of(VALUES.get(method, 50))
    found = shares(method, log, tmp_path)
    informative = np.array(log.roles) != "noise"
    assert roc_auc_score(informative, found) > 0.8
    assert found[informative].mean() > 1.2 * found[~informative].mean()
