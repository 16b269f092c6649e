from __future__ import annotations

import pytest

from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.serving.storage import load_bundle
from ihas_jax.training.metrics import score


@pytest.fixture(scope="session")
def log():
    """A log of 2,000 rows and nine fields, on which a run takes seconds."""
    return synthetic(SyntheticConfig(rows=2000, own=2, noise=2, values=30))


@pytest.fixture(scope="session")
def load_served(log):
    """`load_served(result, name)`: the bundle of a run, which predicts what its metrics say."""

    def load(result, name):
        bundle = load_bundle(result.workdir)
        found = score(log.test.labels, bundle.predict_ids(log.test.ids))
        assert found.auc == pytest.approx(result.metrics[name]["auc"], abs=1e-6)
        assert found.logloss == pytest.approx(result.metrics[name]["logloss"], abs=1e-6)
        return bundle

    return load
