from __future__ import annotations

import numpy as np
import pytest

from ihas_jax.errors import InputError
from ihas_jax.stages.evaluate import scores_of

LABELS = np.array([0, 1, 1], np.uint8)


def test_scores_stand_beside_the_size_of_the_model():
    found = scores_of("base", LABELS, np.array([0.5, 0.5, 0.75]), 7)
    assert found["auc"] == 0.75
    assert (found["parameters"], found["bytes"]) == (7, 28)


def test_a_model_that_diverged_is_named():
    probs = np.array([0.5, np.nan, 0.5])
    words = (
        "no scores by 'search'. The prediction in row 1 is nan.*smaller --optimizer.learning-rate"
    )
    with pytest.raises(InputError, match=words):
        scores_of("search", LABELS, probs, 7)
