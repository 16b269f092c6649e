from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.special import expit

from ihas_jax.config import AdamConfig, Config
from ihas_jax.config.methods import PepConfig
from ihas_jax.errors import InputError
from ihas_jax.models.forward import Lookup
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.base import Recipe, Weights
from ihas_jax.selectors.pep import PepThresholds, build_pep, soft_threshold
from ihas_jax.selectors.selection import all_coordinates, mark_largest

SIZES, N, D, V = (4, 2, 3), 3, 2, 9
FIELD = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
TABLE = np.random.default_rng(0).normal(size=(V, D))
PLACES = np.array([[0, 4, 8], [3, 5, 6], [3, 4, 7]])
KEY = jax.random.key(1)
SHAPES = {
    "global": (1,),
    "coordinate": (D,),
    "value": (V, 1),
    "field": (N, 1),
    "value_coordinate": (V, D),
    "field_coordinate": (N, D),
}
pytestmark = pytest.mark.usefixtures("float64")


def make(**options):
    """A selector, and thresholds of its shape around 0, where they prune about half."""
    selector = PepThresholds(PepConfig(**options), EmbeddingSpec(SIZES, D), 0.1)
    shape = jax.eval_shape(selector.init, KEY).gates["thresholds"].shape
    return selector, np.random.default_rng(2).normal(size=shape)


def of_all(thresholds, granularity):
    """The threshold of every number of the table, `[V, D]`."""
    rows = thresholds[FIELD] if granularity.startswith("field") else thresholds
    return np.broadcast_to(rows, (V, D))


def searched(thresholds):
    """Parameters that a search leaves, with these thresholds."""
    tables = {"embedding": {"width_2": TABLE}}
    return {"tables": tables, "network": {}, "selector": {"thresholds": thresholds}}


def test_values_shrink_by_the_sigmoid_of_their_threshold_and_stop_at_zero():
    v = np.array([0.75, -0.75, 0.5, 0.25, -0.25, 0.0, 2.0])
    s = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, np.log(3)])
    expected = [0.25, -0.25, 0, 0, 0, 0, 1.25]
    np.testing.assert_allclose(soft_threshold(v, s), expected, rtol=1e-14)


def test_both_gradients_are_those_of_the_paper_and_zero_where_a_value_is_pruned():
    rng = np.random.default_rng(3)
    v, s, upstream = rng.normal(size=50), rng.normal(size=50), rng.normal(size=50)
    _, pull_back = jax.vjp(soft_threshold, v, s)
    by_v, by_s = pull_back(upstream)
    left = np.abs(v) > expit(s)
    assert 10 < left.sum() < 40
    np.testing.assert_allclose(by_v, upstream * left, rtol=1e-14)
    slope = expit(s) * (1 - expit(s))
    np.testing.assert_allclose(by_s, -upstream * np.sign(v) * left * slope, rtol=1e-12)


@pytest.mark.parametrize("granularity", SHAPES)
def test_each_number_is_pruned_by_the_threshold_it_shares(granularity):
    selector, thresholds = make(thresholds=granularity)
    assert thresholds.shape == SHAPES[granularity]
    s = of_all(thresholds, granularity)
    pruned = np.sign(TABLE) * np.maximum(np.abs(TABLE) - expit(s), 0)
    upstream = np.random.default_rng(4).normal(size=(3, N, D))
    weights, lookup = Weights({"thresholds": thresholds}), Lookup(TABLE[PLACES], PLACES)

    @jax.jit
    def run(gates):
        def loss(gates):
            sampled = selector.sample(weights._replace(gates=gates), lookup, KEY)
            return (upstream * sampled.vectors).sum(), sampled

        selected = selector.select(weights._replace(gates=gates), lookup)
        return jax.grad(loss, has_aux=True)(gates), selected

    (gradient, sampled), selected = run(weights.gates)
    for found in (sampled.vectors, selected.vectors):
        np.testing.assert_allclose(found, pruned[PLACES], rtol=1e-12)
    assert sampled.penalty == 0 and sampled.stats == {}
    masks = np.asarray(selected.masks)
    np.testing.assert_array_equal(masks, (pruned[PLACES] != 0).reshape(3, N * D))
    assert 0 < masks.mean() < 1
    # every number passes its gradient on to the threshold that it shares
    slope = -np.sign(TABLE) * (pruned != 0) * expit(s) * (1 - expit(s))
    of_number = np.zeros((V, D))
    np.add.at(of_number, PLACES, upstream * slope[PLACES])
    expected = np.zeros_like(thresholds)
    for v, d in np.ndindex(V, D):
        row = FIELD[v] if granularity.startswith("field") else v
        place = {(1,): (0,), (D,): (d,), (V, 1): (v, 0), (N, 1): (row, 0)}
        expected[place.get(thresholds.shape, (row, d))] += of_number[v, d]
    np.testing.assert_allclose(gradient["thresholds"], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("granularity", SHAPES)
def test_the_kept_share_counts_the_whole_table(granularity):
    selector, thresholds = make(thresholds=granularity)
    left = np.abs(TABLE) > expit(of_all(thresholds, granularity))
    weights = Weights({"thresholds": thresholds})
    kept = jax.jit(selector.kept_share)(weights, searched(thresholds))
    np.testing.assert_allclose(kept, left.mean(), rtol=1e-14)
    assert 0 < left.mean() < 1


@pytest.mark.parametrize("granularity", SHAPES)
def test_rows_of_padding_are_no_part_of_the_kept_share(granularity):
    selector, thresholds = make(thresholds=granularity)
    kept = selector.kept_share(Weights({"thresholds": thresholds}), searched(thresholds))
    if granularity.startswith("value"):
        thresholds = np.pad(thresholds, ((0, 3), (0, 0)))
    params = searched(thresholds)
    params["tables"] = {"embedding": {"width_2": np.pad(TABLE, ((0, 3), (0, 0)))}}
    assert selector.kept_share(Weights({"thresholds": thresholds}), params) == kept


@pytest.mark.parametrize("granularity", ["value_coordinate", "field"])
@pytest.mark.parametrize("kept", [0.15, 0.8])
def test_exactly_the_wanted_share_is_chosen_by_the_margin(choose, granularity, kept):
    selector, thresholds = make(thresholds=granularity, kept=kept)
    scores = np.abs(TABLE) - expit(of_all(thresholds, granularity))
    count = {0.15: 3, 0.8: 14}[kept]
    assert (scores > 0).sum() not in (3, 14)
    selection = choose(selector, searched(thresholds))
    assert selection.kept == all_coordinates(selector.spec) == ((0, 1),) * N
    assert selection.values is None and selection.scale == 1
    np.testing.assert_array_equal(selection.mask, scores >= np.sort(scores.ravel())[-count])
    assert selection.parameters(selector.spec) == selection.mask.sum() == count


def test_at_least_one_number_is_kept(choose):
    selector, thresholds = make(kept=1e-9)
    mask = choose(selector, searched(thresholds)).mask
    assert mask.sum() == 1
    assert mask.argmax() == (np.abs(TABLE) - expit(thresholds)).argmax()


def test_of_equal_scores_the_first_are_kept():
    scores = np.array([[1.0, 3.0], [2.0, 1.0], [2.0, 2.0]])
    np.testing.assert_array_equal(mark_largest(scores, 3), [[0, 1], [1, 0], [1, 0]])
    tied = np.zeros((300, 2))  # so many that an unstable sort mixes them
    np.testing.assert_array_equal(mark_largest(tied, 7).ravel(), np.arange(600) < 7)


def raised(selector, start, steps):
    """Thresholds at each of so many steps of the gates' optimiser without a loss."""
    # the gates' shared optimiser is another, which must not matter
    optimizer = selector.optimizer(AdamConfig(learning_rate=9.0, l2=9.0))

    def step(carry, _):
        gates, state = carry
        updates, state = optimizer.update(jnp.zeros_like(gates), state, gates)
        gates = gates + updates
        return (gates, state), gates

    gates = jnp.full((1,), start)
    run = jax.jit(lambda carry: lax.scan(step, carry, length=steps)[1])
    return np.asarray(run((gates, optimizer.init(gates))))[:, 0]


def decayed(start, rate, steps):
    """The same in plain Python: Adam of nothing but 1e-5 s."""
    s, mean, square, found = start, 0.0, 0.0, []
    for t in range(1, steps + 1):
        gradient = 1e-5 * s
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        s -= rate * (mean / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        found.append(s)
    return np.array(found)


def built(tiny, epoch_steps, **options):
    config = tiny.config.having(PepConfig(**options))
    return build_pep(config, tiny.model, epoch_steps)


def test_weight_decay_raises_thresholds_as_in_the_published_runs(tiny):
    # 140,000 steps from -150 to -10: steps of 1e-3, of which the published code made 2,400
    selector = built(tiny, 1000, start=-150.0, end=-10.0, epochs=140)
    found = raised(selector, -150.0, 2400)
    np.testing.assert_allclose(found, decayed(-150.0, 1e-3, 2400), rtol=1e-12)
    np.testing.assert_allclose(np.diff(found), 1e-3, rtol=0.02)
    assert abs(found[-1] - -147.62) < 0.02  # where they then were, in float32


@pytest.mark.parametrize(("epoch_steps", "last"), [(50, -3.9), (1000, -1.5)])
def test_near_zero_thresholds_slow_down_and_never_pass_it(tiny, epoch_steps, last):
    planned = 20 * epoch_steps
    selector = built(tiny, epoch_steps)
    assert selector.learning_rate == 15 / planned
    found = raised(selector, -15.0, 3 * planned)
    assert (np.diff(found[:planned]) > 0).all()
    np.testing.assert_allclose(found[:9] + 15, np.arange(1, 10) * 15 / planned, rtol=0.03)
    assert round(found[planned - 1], 1) == last
    assert found.max() < 1e-9


def test_thresholds_start_where_the_config_says_and_the_model_learns_beside_them(tiny):
    selector = built(tiny, 7, start=-8.0, epochs=2, kept=0.3, ticket=True)
    assert selector.spec == tiny.model.embedding
    gates = selector.init(KEY).gates["thresholds"]
    assert gates.shape == (12, 2) and (gates == -8).all()
    assert not gates.weak_type  # or the search would be compiled a second time
    recipe = Recipe(
        gate_batches="training", initial_weights="initial_embeddings", stop_at_share=0.3
    )
    assert selector.recipe == recipe
    assert built(tiny, 7, ticket=False).recipe.initial_weights == "fresh"
    assert built(tiny, 7, stopping="test").recipe.stopping_split == "test"


def test_an_end_that_weight_decay_cannot_reach_is_refused(tiny):
    with pytest.raises(InputError, match=r"--pep\.end 1\.0 .* Choose an end of 0 or below"):
        build_pep(Config(options=(PepConfig(end=1.0),)), tiny.model, 10)
