"""The methods by name: what each builds, and the pace of its search."""

from __future__ import annotations

import dataclasses

from ihas_jax.selectors.registry import METHODS, build_selector

# class, epochs of pretraining, batches between gate steps where there are any
EXPECTED = {
    "pep": ("PepThresholds", 0, None),
    "autofield": ("AutoField", 0, 10),
    "optembed": ("Supernet", 0, None),
    "adafs_soft": ("AdaFS", 2, 10),
    "adafs_hard": ("AdaFS", 2, 10),
    "optfs": ("OptFSGates", 0, None),
    "autodim": ("AutoDim", 2, 10),
    "sseds": ("Saliency", 0, None),
    "dimreg": ("DimRegGates", 0, 1),
}


def test_every_method_builds_its_selector_and_searches_at_its_pace(tiny):
    built = {}
    for name, (kind, pretraining, every) in EXPECTED.items():
        config = dataclasses.replace(tiny.config, method=name)
        config = dataclasses.replace(
            config, autodim=dataclasses.replace(config.autodim, dims=(1, 2))
        )
        built[name] = build_selector(config, tiny.model, 5)
        assert type(built[name]).__name__ == kind
        search = METHODS[name].search
        assert search.pretrain_epochs == pretraining, name
        assert every is None or search.gate_every == every, name
    assert (built["adafs_soft"].fields, built["adafs_hard"].fields) == (None, 1)
    assert set(METHODS) == {*EXPECTED, "ihas"}
