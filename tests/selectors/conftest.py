from __future__ import annotations

import jax
import pytest

from ihas_jax.models.base import Variables
from ihas_jax.selectors.plan import SearchResult


@pytest.fixture(scope="session")
def choose():
    """What a selector keeps for retraining: `choose(selector, params, model, valid)`."""

    def choose(selector, params, model=None, valid=None):
        # there are no training rows to choose by
        found = SearchResult(model, Variables(params), None, valid, jax.random.key(1), 0)
        plan = selector.choose(found)
        # one model of all rows, and nothing that routes
        assert (plan.routes, plan.reasons, plan.centroids) == ((0,), (None,), None)
        (expert,) = plan.experts
        assert (expert.name, expert.rows, expert.valid_rows) == ("", None, None)
        return expert.selection

    return choose
