"""Makes the bundles in `bundles/`, by which tests see that other versions of JAX read them.

Run `python tests/serving/make_bundles.py` under each version of JAX that the package supports, when
the format of bundles has changed. A folder has the version of JAX as its name, and beside each
bundle are the clusters and click probabilities of some rows.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np

import ihas_jax as ihas

BUNDLES = Path(__file__).parent / "bundles"
CONFIG = ihas.Config(
    model=ihas.ModelConfig(dim=4, hidden=(4,), batch_norm=True),
    optimizer=ihas.OptimizerConfig(learning_rate=0.02),
    train=ihas.TrainConfig(batch_size=100, max_epochs=2),
    search=ihas.SearchConfig(pretrain_epochs=2, gate_every=2),
)


def main() -> None:
    """Trains a run with each router, and keeps its bundle and its predictions."""
    data = ihas.synthetic(ihas.SyntheticConfig(rows=2000, own=1, noise=1, values=10))
    folder = BUNDLES / "_".join(["jax", *jax.__version__.split(".")[:2]])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    exact = ihas.ClusterConfig(min_rows=100)
    compiled = dataclasses.replace(exact, router="compiled", min_agreement=0.0)
    for router, options in (("exact", exact), ("compiled", compiled)):
        with tempfile.TemporaryDirectory() as workdir:
            ihas.fit(CONFIG.having(options), data, workdir=workdir)
            bundle = ihas.load_bundle(workdir)
        ihas.save_bundle(bundle, folder / router)
        ids = data.test.ids[:40]
        clusters, probs = bundle.assign(ids), bundle.predict_ids(ids)
        assert len(np.unique(clusters)) == 2
        rows = {"ids": ids.tolist(), "clusters": clusters.tolist(), "probs": probs.tolist()}
        (folder / f"{router}.json").write_text(json.dumps(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
