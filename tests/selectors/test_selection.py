"""What a method chose makes a compact model that computes what the masked full-size one does."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.config import Config, ModelConfig
from ihas_jax.config.methods import AutoDimConfig, OptEmbedConfig
from ihas_jax.data.dataset import Split
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, FACTORS, SELECTOR, Variables, fold_factors
from ihas_jax.models.cut import cut_network
from ihas_jax.models.forward import init_model, predict
from ihas_jax.nn.compact import slice_table
from ihas_jax.selectors.experts import majority_coordinates
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.selectors.registry import build_selector
from ihas_jax.selectors.selection import Selection, all_coordinates, mark_largest, select_values

SIZES, DIM = (5, 3, 4), 4
V = sum(SIZES)
CONFIG = Config(
    model=ModelConfig(name="deepfm", dim=DIM, hidden=(5,), batch_norm=True, linear_init="normal"),
    options=(
        AutoDimConfig(dims=(1, 2, 4)),
        OptEmbedConfig(generations=1, mutants=2, children=2, parents=2),
    ),
)
FULL = build_model(CONFIG.model, SIZES)
IDS = np.stack([np.arange(40) % size for size in SIZES], axis=1).astype(np.int32)
METHODS = ("ihas", "autofield", "autodim", "pep", "optembed", "optfs", "sseds", "dimreg")
pytestmark = pytest.mark.usefixtures("float64")


def draw(rng, shapes):
    """Weights of these shapes with variances above 0."""

    def leaf(path, shape):
        numbers = rng.normal(size=shape.shape)
        return abs(numbers) + 0.5 if getattr(path[-1], "key", "") == "var" else numbers

    return jax.tree.map_with_path(leaf, shapes)


def choose(method, rng):
    """What a method keeps of a model whose weights and gates are random numbers."""
    variables = draw(rng, jax.eval_shape(lambda: init_model(jax.random.key(0), FULL)))
    if method == "ihas":
        kept = majority_coordinates(rng.uniform(size=len(SIZES) * DIM), DIM, 0.5)
        return variables, Selection(kept)
    selector = build_selector(dataclasses.replace(CONFIG, method=method), FULL, 10)
    weights = draw(rng, jax.eval_shape(selector.init, jax.random.key(0)))
    # about the mean norm of the embeddings, where they divide the values
    gates = {n: g + 3 * (n == "thresholds") for n, g in weights.gates.items()}
    searched = Variables(
        variables.params | {SELECTOR: gates if method == "optembed" else weights.gates},
        variables.stats | {SELECTOR: weights.stats},
    )
    valid = Split(IDS, rng.integers(2, size=len(IDS)).astype(np.uint8))
    (expert,) = selector.choose(
        SearchResult(FULL, searched, None, valid, jax.random.key(1), 0)
    ).experts
    return variables, expert.selection


@jax.jit
def masked(variables, mask):
    """Probabilities of the full-size model whose table is multiplied by `mask [V, D]`."""
    tables = variables.params["tables"]
    ((group, table),) = tables[EMBEDDING].items()
    params = variables.params | {"tables": tables | {EMBEDDING: {group: table * mask}}}
    return predict(FULL, variables._replace(params=params), IDS)


compute = jax.jit(lambda model, variables: predict(model, variables, IDS), static_argnums=0)


def compact(variables, selection):
    """The compact model with its share of the weights."""
    spec, params = FULL.embedding, variables.params
    stored = selection.stored_values(spec)
    model = build_model(CONFIG.model, SIZES, kept=selection.kept, stored_values=stored)
    like = jax.eval_shape(lambda: init_model(jax.random.key(0), model)).params
    tables = {
        name: slice_table(
            FULL.tables[name],
            table,
            model.tables[name],
            selection.values if name == EMBEDDING else None,
        )
        for name, table in params["tables"].items()
    }
    network = cut_network(FULL, model, params["network"], like["network"])
    own = {"tables": tables, "network": network}
    return model, Variables(own, variables.stats, selection.constants(model.embedding))


def mask_of(selection):
    """`[V, D]` by which a selection multiplies a table."""
    mask = np.repeat([[j in field for j in range(DIM)] for field in selection.kept], SIZES, axis=0)
    mask = mask * selection.scale
    if selection.values is not None:
        mask = mask * selection.values[:, None]
    return mask if selection.mask is None else mask * selection.mask


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(2))
def test_the_compact_model_is_the_masked_full_size_model(method, seed):
    rng = np.random.default_rng(seed)
    variables, selection = choose(method, rng)
    mask = mask_of(selection)
    assert 0 < np.count_nonzero(mask) < V * DIM
    np.testing.assert_array_equal(selection.factors(FULL.embedding), mask.astype(np.float32))
    expected = masked(variables, mask)
    model, own = compact(variables, selection)
    found = compute(model, own)
    # factors are numbers of float32
    np.testing.assert_allclose(found, expected, rtol=1e-12 if selection.scale == 1 else 1e-6)
    folded = fold_factors(own)
    assert FACTORS not in folded.constants
    np.testing.assert_allclose(compute(model, folded), found, rtol=1e-12)
    assert selection.parameters(FULL.embedding) == np.count_nonzero(mask)


@pytest.mark.parametrize("method", ["optembed", "optfs"])
def test_removed_values_have_no_rows(method):
    variables, selection = choose(method, np.random.default_rng(0))
    assert 0 < selection.values.sum() < V
    model, own = compact(variables, selection)
    field = np.repeat(range(len(SIZES)), SIZES)
    for group in model.embedding.groups:
        table = own.params["tables"][EMBEDDING][group.name]
        mine = selection.values[np.isin(field, group.fields)]
        assert len(table) == 1 + mine.sum()
        # those without share the first, which is nothing
        assert not table[0].any() and own.constants[FACTORS][group.name][0] == 0


def test_values_and_a_mask_do_not_go_together():
    with pytest.raises(ValueError, match="not both"):
        Selection(all_coordinates(FULL.embedding), np.ones(V, bool), np.ones((V, DIM), bool))


def test_a_scale_is_one_for_all_where_no_value_is_removed():
    selection = select_values(np.ones(V, bool), FULL.embedding, scale=1.5)
    (factors,) = selection.constants(FULL.embedding)[FACTORS].values()
    np.testing.assert_array_equal(factors, np.full((V, 1), 1.5))


def test_a_field_without_values_has_no_coordinates():
    values = np.repeat([True, False, True], SIZES)
    assert select_values(values, FULL.embedding).kept == ((0, 1, 2, 3), (), (0, 1, 2, 3))
    selection = select_values(values, FULL.embedding, ((0, 1), (0, 1), ()))
    assert selection.kept == ((0, 1), (), ())
    assert selection.parameters_by_field(FULL.embedding) == [10, 0, 0]
    assert select_values(np.ones(V, bool), FULL.embedding, scale=2.0).values is None


@given(seed=st.integers(0, 10**6), removed=st.sampled_from([None, "values", "mask"]))
def test_sizes_are_counted_alike_for_structure_and_masks(seed, removed):
    rng = np.random.default_rng(seed)
    kept = tuple(tuple(np.flatnonzero(rng.integers(2, size=DIM)).tolist()) for _ in SIZES)
    values = rng.integers(2, size=V).astype(bool) if removed == "values" else None
    single = rng.integers(2, size=(V, DIM)).astype(bool) if removed == "mask" else None
    selection = Selection(kept, values, single)
    spec, mask = FULL.embedding, mask_of(selection)
    by_field = [int(part.sum()) for part in np.split(mask, np.cumsum(SIZES)[:-1])]
    assert selection.parameters_by_field(spec) == by_field
    # a word of 32 bits and its rank for each width, since there are fewer than 32 values
    widths = {len(field) for field in kept} - {0}
    more = {None: 0, "values": 8 * len(widths), "mask": V * DIM // 8}[removed]
    assert selection.bytes(spec) == 4 * mask.sum() + more


def test_all_coordinates_are_the_whole():
    assert all_coordinates(FULL.embedding) == ((0, 1, 2, 3),) * 3
    assert Selection(all_coordinates(FULL.embedding)).parameters(FULL.embedding) == V * DIM


def test_a_mask_takes_a_bit_for_each_number_in_whole_bytes():
    spec = build_model(ModelConfig(dim=3, hidden=(2,)), (2, 1)).embedding
    mask = np.ones((3, 3), bool)
    mask[0, 0] = False
    selection = Selection(all_coordinates(spec), mask=mask)
    assert selection.bytes(spec) == 4 * 8 + 2  # 9 bits


def test_the_largest_are_chosen_and_the_first_of_equal_ones():
    scores = np.array([[0.1, 0.5, -2.0], [0.5, 0.5, 0.2]])
    np.testing.assert_array_equal(mark_largest(scores, 2), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(mark_largest(scores, 5), [[1, 1, 0], [1, 1, 1]])
    assert not mark_largest(scores, 0).any()


def test_the_factors_of_a_mask_are_scaled():
    spec = build_model(ModelConfig(dim=2, hidden=(2,)), (2, 1)).embedding
    mask = np.array([[1, 0], [1, 1], [0, 1]], bool)
    selection = Selection(all_coordinates(spec), mask=mask, scale=0.5)
    (factors,) = selection.constants(spec)[FACTORS].values()
    np.testing.assert_array_equal(factors, 0.5 * mask)
