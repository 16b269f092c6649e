"""iHAS and spectral keep to a budget, whatever the clusters, the axes and the fields.

What each model gets is its equal part of the budget, `part = budget // models`. Of single numbers
it keeps exactly its part, so that all models together leave less than one number each. Of whole
axes it keeps at most its part, no further axis fits into what is left, and at least 98 % of the
part are kept wherever a choice of axes keeps as much; see `ihas_jax.selectors.budget.fill`.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ihas_jax.config import ClusterConfig, Config, ModelConfig
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.models.base import Variables
from ihas_jax.models.forward import init_model
from ihas_jax.nn.axes import shape
from ihas_jax.selectors import bernoulli, spectral
from ihas_jax.selectors import usage as finding
from ihas_jax.selectors.budget import numbers_of
from ihas_jax.selectors.clusters import Clusters
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.selectors.registry import build_selector

ROWS = 60
# models whose embeddings may be turned field by field, by one rotation, or not at all
MODELS = ("dnn", "fm", "gdcn")
METHODS = ("ihas, shared axes", "ihas, own axes", "spectral")


@pytest.fixture(scope="module", autouse=True)
def made_up():
    """Made-up clusters and curvature, since programs change with every example."""

    def fit_clusters(found, selector, config):
        rng, number = np.random.default_rng(found.seed), config.clusters
        # the last cluster may be too small for a model, or empty
        train, valid = (rng.choice(number, size=ROWS, p=skewed(number)) for _ in range(2))
        masks = rng.integers(2, size=(number, found.model.embedding.coordinates))
        clusters = Clusters(
            np.zeros(masks.shape, np.float32),
            (masks * rng.uniform(size=masks.shape)).astype(np.float32),
            np.bincount(train, minlength=number),
            train,
            valid,
        )
        return clusters, {}

    def logit_moments(model, variables, ids):
        fields, (vectors, dim) = shape(model.embedding)
        root = np.random.default_rng(len(ids)).normal(size=(fields, vectors, dim, dim))
        return root @ root.swapaxes(-1, -2)

    with pytest.MonkeyPatch.context() as patch:
        for module in (bernoulli, spectral):
            patch.setattr(module, "fit_clusters", fit_clusters)
        patch.setattr(finding, "logit_moments", logit_moments)
        yield


def skewed(number):
    """Shares of clusters, each a fifth of the one before."""
    shares = 0.2 ** np.arange(number)
    return shares / shares.sum()


def chosen(method, cut, model, sizes, dim, clusters, share, seed):
    """The plan of a method for random weights and rows, and what it may keep."""
    name, _, kind = method.partition(", ")
    own = "own" if kind == "own axes" else "shared"
    cluster = ClusterConfig(clusters=clusters, min_rows=8, axes=own)
    if name == "ihas":
        cluster = dataclasses.replace(cluster, cut=cut)
    config = Config(
        method=name,
        model=ModelConfig(model, dim=dim, hidden=(2,)),
        options=(cluster, SpectralConfig(cut=cut, clusters=clusters)),
        budget=share,
    )
    model, rng = build_model(config.model, sizes), np.random.default_rng(seed)
    selector = build_selector(config, model, 10)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        jax.eval_shape(lambda: init_model(jax.random.key(0), model)).params,
    )
    ids = np.stack([rng.integers(size, size=ROWS) for size in sizes], axis=1).astype(np.int32)
    rows = Split(ids, rng.integers(2, size=ROWS).astype(np.uint8))
    budget = numbers_of(share, model.embedding)
    found = SearchResult(model, Variables(params), rows, rows, jax.random.key(0), seed, budget)
    return SimpleNamespace(plan=selector.choose(found), spec=model.embedding, budget=budget)


def reachable(sizes, dim, most):
    """The largest number that whole coordinates of fields keep, at most `most`."""
    totals = 1  # bit t: some choice keeps t numbers
    for size in sizes:
        for _ in range(dim):
            totals |= totals << size
    return (totals & ((1 << (most + 1)) - 1)).bit_length() - 1


@pytest.mark.parametrize("cut", ["numbers", "axes"])
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=30)
@given(
    model=st.sampled_from(MODELS),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    dim=st.sampled_from([1, 2, 4, 8]),
    clusters=st.integers(1, 3),
    share=st.floats(0.02, 1),
    seed=st.integers(0, 10**6),
)
@example("dnn", [30, 30, 30], 4, 3, 0.25, 0)
@example("dnn", [1, 1], 2, 1, 1.0, 0)
def test_all_models_together_keep_to_the_budget(
    method, cut, model, sizes, dim, clusters, share, seed
):
    sizes = tuple(sizes)
    spec = build_model(ModelConfig(model, dim=dim, hidden=(2,)), sizes).embedding
    if numbers_of(share, spec) // clusters < max(min(sizes), dim):
        with pytest.raises(InputError, match=r"Choose (a (larger )?--budget|fewer clusters)"):
            chosen(method, cut, model, sizes, dim, clusters, share, seed)
        return
    found = chosen(method, cut, model, sizes, dim, clusters, share, seed)
    experts, budget = found.plan.experts, found.budget
    part, kept = budget // len(experts), [e.selection.parameters(spec) for e in experts]
    assert 1 <= len(experts) <= clusters
    assert found.plan.parameters(spec) == sum(kept) <= budget
    if cut == "numbers":
        assert kept == [part] * len(experts)
        assert budget - sum(kept) < len(experts)
        return
    for expert, numbers in zip(experts, kept, strict=True):
        widths = np.array([len(field) for field in expert.selection.kept])
        left = part - numbers
        assert expert.selection.mask is None
        assert numbers == np.dot(sizes, widths) and left >= 0
        assert (np.array(sizes)[widths < dim] > left).all()  # no further axis fits
        if reachable(sizes, dim, part) >= 0.98 * part:
            assert numbers >= 0.98 * part


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("clusters", [1, 2, 3])
def test_98_percent_are_kept_of_a_table_of_small_fields(method, clusters):
    sizes = (90, 40, 70, 20, 1, 6, 55, 33)
    for cut, share in (("numbers", 0.31), ("axes", 0.31), ("axes", 0.125), ("axes", 0.06)):
        found = chosen(method, cut, "dnn", sizes, 16, clusters, share, 0)
        kept = found.plan.parameters(found.spec)
        assert 0.98 * found.budget <= kept <= found.budget


def test_clusters_that_carry_no_model_have_one_of_all_rows_which_shares_the_budget():
    plans = [
        chosen("ihas, own axes", "numbers", "dnn", (20, 30), 4, 3, 0.5, seed) for seed in range(9)
    ]
    names = {tuple(expert.name for expert in found.plan.experts) for found in plans}
    assert ("cluster_0", "all") in names or ("cluster_0", "cluster_1", "all") in names
    for found in plans:
        parts = [expert.selection.parameters(found.spec) for expert in found.plan.experts]
        assert parts == [100 // len(parts)] * len(parts)


def test_the_count_of_what_whole_axes_can_keep_is_that_of_all_choices():
    sums = {3 * a + 5 * b for a in range(3) for b in range(3)}
    for most in range(17):
        assert reachable((3, 5), 2, most) == max(total for total in sums if total <= most)
