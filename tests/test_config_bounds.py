"""Values of flags that are out of range, and those at its edges."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, get_origin, get_type_hints

import pytest

from ihas_jax.config import (
    Config,
)
from ihas_jax.errors import InputError
from ihas_jax.flags import option_kinds, replaced

BAD = {
    "model.dim": (0, -4),
    "model.hidden": ((8, 0), (-1,)),
    "model.dropout": (-0.1, 1.5),
    "optimizer.learning-rate": (0.0, -1.0),
    "train.batch-size": (0,),
    "train.max-epochs": (0,),
    "train.patience": (0,),
    "train.finish": ((0.5, 0.6), (0.5, 0.5)),
    "train.round-batches": (0,),
    "gates.temperature": (0.0,),
    "gates.bins": (2,),
    "search.gate-every": (0,),
    "search.gate-optimizer.learning-rate": (0.0,),
    "cluster.clusters": (0,),
    "cluster.batch-rows": (0,),
    "cluster.max-passes": (0,),
    "cluster.majority": (-0.5, 1.1),
    "cluster.min-agreement": (-0.1, 1.1),
    "cluster.starts": (0,),
    "cluster.segment-rows": (0,),
    "cluster.tolerance": (-0.1,),
    "cluster.min-rows": (-1,),
    "gates.l0-weight": (math.nan,),
    "gates.weight": (-0.1,),
    "model.hofm-order": (1,),
    "model.xdeepfm-cin": ((0,),),
    "optimizer.l2": (-0.1,),
    "search.gate-optimizer.l2": (-0.1, math.nan),
    "search.pretrain-epochs": (-1,),
    "seed": (-1, 2**32),
    "train.block-rows": (0,),
    "train.checkpoint-seconds": (-1.0,),
    "train.device-data-gb": (-1.0,),
    "search.stopping-share": (-0.1, 1.0),
    "autofield.fields": (0,),
    "autofield.anneal": (-1e-5,),
    "adafs.fields": (0,),
    "adafs.dropout": (-0.1, 1.1),
    "autodim.dims": ((), (0, 2), (4, 2), (2, 2)),
    "autodim.anneal": (-1e-5,),
    "autoemb.dims": ((), (0, 2), (4, 2), (2, 2)),
    "autoemb.hidden": (0,),
    "pep.epochs": (0,),
    "pep.kept": (0.0, 1.1),
    "pep.start": (0.0, 1.0),
    "optfs.rewind": (-1, 10),
    "optfs.temperature": (0.5,),
    "optfs.weight": (-0.1,),
    "optembed.epochs": (0,),
    "optembed.mutants": (0,),
    "optembed.children": (0,),
    "optembed.parents": (0,),
    "optembed.generations": (-1,),
    "optembed.weight": (-0.1,),
    "optembed.reach": (-0.1,),
    "optembed.mutation": (-0.1, 1.1),
    "budget": (0.0, -0.1, 1.1),
    "uniform.dim": (0,),
    "mixed.alpha": (-0.1,),
    "mixed.kept": (0.0, 1.1),
    "magnitude.kept": (0.0, 1.1),
    "random.kept": (0.0, 1.1),
    "sseds.kept": (-0.1, 1.1),
    "gates.cost": (-0.1,),
    "spectral.steps": ((0.5, 0.6),),
    "spectral.clusters": (0,),
    "spectral.kept": (0.0, -0.1, 1.1),
    "retrain.teacher-weight": (-0.1, 1.1),
    "retrain.teacher-folds": (0,),
    "retrain.groups": (1, 9),
    "dimreg.weight": (-0.1,),
    "dimreg.l1-ratio": (-0.1,),
    "dimreg.slope": (0.0,),
    "model.cross-layers": (0,),
    "model.cross-rank": (-1,),
    "model.afm-attention": (0,),
    "model.autoint-width": (0,),
    "model.autoint-heads": (0,),
    "model.autoint-layers": (0,),
    "model.afn-neurons": (0,),
    "model.finalmlp-heads": (0,),
    "model.finalmlp-gate": (0,),
    "model.masknet-blocks": (0,),
    "model.masknet-width": (0,),
    "model.masknet-ratio": (0.0,),
}


def bounded(kind, prefix=""):
    """The flags of the fields that have bounds."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        flag = prefix + name.replace("_", "-")
        if dataclasses.is_dataclass(hint):
            yield from bounded(hint, f"{flag}.")
        elif get_origin(hint) is Annotated:
            yield flag


def test_a_value_out_of_range_is_tried_for_every_bound():
    kinds = {"": Config} | {f"{flag}.": kind for flag, kind in option_kinds().items()}
    assert {flag for prefix, kind in kinds.items() for flag in bounded(kind, prefix)} <= set(BAD)


@pytest.mark.parametrize(("flag", "value"), [(f, v) for f, values in BAD.items() for v in values])
def test_a_value_out_of_range_names_its_flag(flag, value):
    with pytest.raises(InputError) as error:
        replaced(Config(), flag, value)
    assert str(error.value).startswith(f"--{flag} ") and " must " in str(error.value)
    assert str(value) in str(error.value)


EDGES = {
    "gates.bins": (3, None),
    "model.hofm-order": (2,),
    "optfs.temperature": (1.0,),
    "model.dropout": (0.0, 1.0),
    "optimizer.l2": (0.0,),
    "search.stopping-share": (0.0, 0.99),
    "seed": (0, 2**32 - 1),
    "model.hidden": ((), (1,)),
    "autodim.dims": ((1,), (1, 2)),
    "autoemb.dims": (None, (1, 2)),
    "optfs.rewind": (0, 9),
    "pep.kept": (1.0,),
    "pep.start": (-0.01,),
}


@pytest.mark.parametrize(("flag", "value"), [(f, v) for f, values in EDGES.items() for v in values])
def test_a_value_at_the_edge_of_its_range_is_taken(flag, value):
    name, _, rest = flag.replace("-", "_").partition(".")
    config = replaced(Config(), flag, value)
    part = config.of(option_kinds()[name]) if name in option_kinds() else getattr(config, name)
    assert (getattr(part, rest) if rest else part) == value
