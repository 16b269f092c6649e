from __future__ import annotations

import numpy as np
import pytest

from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages.run import Run
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


@pytest.fixture(scope="session")
def planted_log():
    """`planted_log(sizes, logit_of)`: 6,000 rows of uniform values whose clicks have these logits.

    `sizes` are by field; `logit_of` makes log-odds `[n]` of values `[n, N]` from 0 on. Ids are
    values plus one, since id 0 is a value that was never seen.
    """

    def plant(sizes, logit_of):
        rng = np.random.default_rng(0)
        values = np.stack([rng.integers(size, size=6000) for size in sizes.values()], axis=1)
        labels = (rng.random(6000) < 1 / (1 + np.exp(-logit_of(values)))).astype(np.uint8)
        ids = (values + 1).astype(np.int32)
        parts = [Split(ids[a:b], labels[a:b]) for a, b in ((0, 4000), (4000, 5000), (5000, 6000))]
        fields = [Field(name, tuple(f"v{i}" for i in range(n))) for name, n in sizes.items()]
        return Dataset(Schema("label", tuple(fields)), *parts)

    return plant


@pytest.fixture
def stopped_often(monkeypatch):
    """`stopped_often(work, part)`: the result of work that is stopped once at each event of a part.

    The part is in the name of the stage or the expert of an event. The second result is how often
    the work was stopped.
    """

    def repeat(work, part):
        seen, event = set(), Run.event

        def stop(run, kind, facts):
            event(run, kind, facts)
            place = facts.get("stage", facts.get("expert", "")), facts.get("epoch")
            if part in place[0] and place not in seen:
                seen.add(place)
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Run, "event", stop)
            for _ in range(100):
                try:
                    return work(), len(seen)
                except KeyboardInterrupt:
                    continue
        raise AssertionError("stopped a hundred times")

    return repeat
