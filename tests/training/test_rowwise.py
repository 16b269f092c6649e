from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.config import OptimizerConfig
from ihas_jax.nn.embedding import EmbeddingSpec, init_table, value_index
from ihas_jax.training import rowwise
from ihas_jax.training.missed import after_missed
from ihas_jax.training.optimizers import dense_tables, l2_adam, make_table_optimizer
from ihas_jax.training.rowwise import init_row_adam, read_batch, update_rows, write_batch

CONFIG = OptimizerConfig(learning_rate=0.1, l2=0.3, tables="rowwise")
SPEC = EmbeddingSpec((4, 3, 2), 2, ((0, 1), (1,), (0, 1)))
V, WIDTH = 11, 3

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(params=[4096, 4], ids=["one chunk", "many chunks"])
def chunk(request, monkeypatch):
    """With chunks of 4 rows a batch of a dozen positions goes through the loop."""
    monkeypatch.setattr(rowwise, "_CHUNK_ROWS", request.param)


def by_hand(table, batches, learning_rate, l2):
    """Adam in NumPy, one row at a time: table and moments after all batches."""
    table = np.array(table, np.float64)
    mean, square = np.zeros_like(table), np.zeros_like(table)
    for t, (rows, gradients) in enumerate(batches, start=1):
        for row in set(rows.tolist()):
            g = gradients[rows == row].sum(axis=0) + l2 * table[row]
            mean[row] = 0.9 * mean[row] + 0.1 * g
            square[row] = 0.999 * square[row] + 0.001 * g**2
            scaled = np.sqrt(square[row] / (1 - 0.999**t)) + 1e-8
            table[row] -= learning_rate * mean[row] / (1 - 0.9**t) / scaled
    return table, mean, square


def draw(seed, steps=4, size=13):
    """Batches whose rows repeat; sometimes one row fills a whole batch."""
    rng = np.random.default_rng(seed)
    high = rng.integers(1, V + 1, size=steps)
    return rng.normal(size=(V, WIDTH)), [
        (rng.integers(h, size=size).astype(np.int32), rng.normal(size=(size, WIDTH))) for h in high
    ]


def run(table, batches, scratch=None):
    state = init_row_adam(jnp.asarray(table))
    if scratch is not None:
        state = state._replace(scratch=jnp.asarray(scratch, jnp.int32))
    update = jax.jit(lambda *of: update_rows(*of, CONFIG.learning_rate, CONFIG.l2))
    for t, (rows, gradients) in enumerate(batches, start=1):
        state = update(state, jnp.asarray(rows), jnp.asarray(gradients), jnp.int32(t))
    return state


def step_of(optimizer, tables, state, index, gradients, pace, axis_name=None):
    _, reading = optimizer.read(tables, state, index, pace, axis_name)
    return optimizer.update(tables, state, reading, gradients, pace, axis_name)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_adam_on_each_row_of_the_batch(chunk, seed):
    table, batches = draw(seed)
    expected = by_hand(table, batches, CONFIG.learning_rate, CONFIG.l2)
    for found, want in zip(run(table, batches)[:3], expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-11, atol=1e-13)


def test_the_first_step_is_what_one_computes_by_hand():
    # two equal gradients count as their sum; the step is lr * sign, but for epsilon
    state = init_row_adam(jnp.ones((3, 1)))
    gradients = jnp.array([[0.5], [0.5], [-1e-8]])
    moved = update_rows(state, jnp.array([2, 2, 0], jnp.int32), gradients, jnp.int32(1), 0.1, 0.0)
    np.testing.assert_allclose(moved.table, [[1.05], [1.0], [0.9]], rtol=2e-8)
    np.testing.assert_allclose(moved.mean, [[-1e-9], [0.0], [0.1]], rtol=1e-12)
    np.testing.assert_allclose(moved.square, [[1e-19], [0.0], [0.001]], rtol=1e-12)


def test_other_rows_stay_as_they_are_to_the_last_bit(chunk):
    table, batches = draw(1)
    touched = np.zeros(V, bool)
    for rows, _ in batches:
        touched[rows] = True
    batches = [(np.where(rows == V - 1, 0, rows).astype(np.int32), g) for rows, g in batches]
    touched[V - 1] = False
    state = run(table, batches)
    assert not touched.all()
    np.testing.assert_array_equal(np.asarray(state.table)[~touched], table[~touched])
    np.testing.assert_array_equal(np.asarray(state.mean)[~touched], 0)
    np.testing.assert_array_equal(np.asarray(state.square)[~touched], 0)


def test_what_lies_in_the_scratch_vector_does_not_matter(chunk):
    table, batches = draw(2)
    expected = run(table, batches)
    found = run(table, batches, scratch=np.random.default_rng(0).integers(13, size=V))
    for a, b in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def sums():
    """Sum of 1, 2, ..., 13 over the positions of each row, compiled once with chunks of 4."""
    gradients = np.arange(1.0, 14)[:, None]

    @jax.jit
    def step(rows):
        state = init_row_adam(jnp.zeros((V, 1)))
        arguments = rows, jnp.asarray(gradients), jnp.int32(1)
        return update_rows(state, *arguments, learning_rate=0.1, l2=0.0).mean[:, 0]

    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowwise, "_CHUNK_ROWS", 4)
        step(np.zeros(13, np.int32))
    return step


@given(rows=st.lists(st.integers(0, V - 1), min_size=13, max_size=13))
def test_any_pattern_of_repeated_rows_adds_up(sums, rows):
    # the mean after one step holds a tenth of the sum of gradients
    expected = np.bincount(rows, weights=np.arange(1.0, 14), minlength=V)
    with jax.enable_x64(True):
        found = sums(np.array(rows, np.int32))
    np.testing.assert_allclose(found, 0.1 * expected, rtol=1e-12)


def test_where_every_row_is_in_every_batch_it_is_the_dense_update():
    rng = np.random.default_rng(3)
    tables = {"embedding": init_table(jax.random.key(0), SPEC)}
    tables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tables)
    ids = np.array([[0, 0, 0], [1, 1, 1], [2, 2, 0], [3, 0, 1], [3, 1, 1]], np.int32)
    places = {"embedding": value_index(SPEC, ids)}
    ours, dense = make_table_optimizer(CONFIG), dense_tables(l2_adam(CONFIG))
    found, expected = (tables, ours.init(tables)), (tables, dense.init(tables))
    for _ in range(3):
        gradients = jax.tree.map(
            lambda rows, table: jnp.asarray(rng.normal(size=(*rows.shape, table.shape[1]))),
            places,
            tables,
        )
        found = jax.jit(partial(step_of, ours))(*found, places, gradients, 0.7)
        expected = jax.jit(partial(step_of, dense))(*expected, places, gradients, 0.7)
    assert int(found[1].steps) == 3
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(expected[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11)


def test_parts_of_a_batch_on_a_mapped_axis_are_the_mean_over_the_whole(chunk):
    rng = np.random.default_rng(4)
    tables = {"width_1": jnp.asarray(rng.normal(size=(V, 1)))}
    rows = {"width_1": jnp.asarray(rng.integers(V, size=(2, 4, 3)), jnp.int32)}
    gradients = {"width_1": jnp.asarray(rng.normal(size=(2, 4, 3, 1)))}
    ours = make_table_optimizer(CONFIG)
    merged = jax.tree.map(lambda leaf: leaf.reshape(8, *leaf.shape[2:]), (rows, gradients))
    halved = jax.tree.map(lambda leaf: leaf / 2, merged[1])
    expected = jax.jit(partial(step_of, ours))(tables, ours.init(tables), merged[0], halved, 1.0)
    axes = (None, None, 0, 0, None)
    update = partial(step_of, ours, axis_name="data")
    mapped = jax.jit(jax.vmap(update, in_axes=axes, axis_name="data"))
    found = mapped(tables, ours.init(tables), rows, gradients, 1.0)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if not jnp.issubdtype(b.dtype, jnp.integer):
            for device in range(2):
                np.testing.assert_allclose(a[device], b, rtol=1e-12)


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("shared_rows", [False, True])
def test_several_tables_under_vmap_are_updated_as_one_by_one(chunk, shared_rows, deferred):
    rng = np.random.default_rng(5)
    tables = jnp.asarray(rng.normal(size=(3, V, WIDTH)))
    rows = jnp.asarray(rng.integers(V, size=(2, 3, 13)), jnp.int32)
    gradients = jnp.asarray(rng.normal(size=(2, 3, 13, WIDTH)))
    counts = jnp.array([1, 2, 7], jnp.int32)  # each table has its own bias correction
    if shared_rows:
        rows = jnp.broadcast_to(rows[:, :1], rows.shape)
    states = jax.vmap(partial(init_row_adam, deferred=deferred))(tables)

    def update(state, rows, gradients, count):
        rate, l2 = CONFIG.learning_rate, CONFIG.l2
        for batch, g in zip(rows, gradients, strict=True):  # the second has rows of the first
            state = update_rows(state, batch, g, count, rate, l2)
            count = count + 5
        return state

    found = jax.jit(jax.vmap(update, in_axes=(0, None if shared_rows else 1, 1, 0)))(
        states, rows[:, 0] if shared_rows else rows, gradients, counts
    )
    for i in range(3):
        state = jax.tree.map(lambda leaf, i=i: leaf[i], states)
        expected = jax.jit(update)(state, rows[:, i], gradients[:, i], counts[i])
        for a, b in zip(found.rows, expected.rows, strict=True):
            if b is not None:
                np.testing.assert_allclose(a[i], b, rtol=1e-12)


@pytest.mark.parametrize("deferred", [False, True])
def test_gradients_under_vmap_update_a_batch_that_was_read_for_all(chunk, deferred):
    rng = np.random.default_rng(7)
    state = init_row_adam(jnp.asarray(rng.normal(size=(V, WIDTH))), deferred=deferred)
    rows, gradients = jnp.array([4, 0, 4]), jnp.asarray(rng.normal(size=(2, 3, WIDTH)))

    def update(g):
        return update_rows(state, rows, g, jnp.int32(1), 0.1, 0.3)

    found = jax.jit(jax.vmap(update))(gradients)
    for i in range(2):
        for a, b in zip(found.rows, update(gradients[i]).rows, strict=True):
            if b is not None:
                np.testing.assert_allclose(a[i], b, rtol=1e-12)


def test_rows_are_made_up_once_for_all_positions_that_have_them(chunk):
    rng = np.random.default_rng(6)
    state = init_row_adam(jnp.asarray(rng.normal(size=(V, WIDTH))), deferred=True)
    first, rows = jnp.array([3, 7, 3]), jnp.array([9, 3, 0, 3, 7, 3, 9, 7, 3, V])
    state = jax.jit(lambda s: update_rows(s, first, jnp.ones((3, WIDTH)), jnp.int32(1), 0.1, 0.3))(
        state
    )
    made_up, mean, square = after_missed(*state.rows, jnp.int32(40), 0.1, 0.3)
    vectors, batch = jax.jit(lambda s: read_batch(s, rows, jnp.int32(40), 0.1, 0.3))(state)
    np.testing.assert_allclose(vectors[:-1], made_up[rows[:-1]], rtol=1e-12)
    np.testing.assert_array_equal(vectors[-1], np.zeros(WIDTH))  # it is left out
    gradients = rng.normal(size=(len(rows), WIDTH))
    found = jax.jit(lambda *of: write_batch(*of, jnp.int32(41), 0.1, 0.3))(
        state, batch, jnp.asarray(gradients)
    )
    for row in (0, 3, 7, 9):
        g = gradients[np.asarray(rows) == row].sum(axis=0) + 0.3 * made_up[row]
        m, v = 0.9 * mean[row] + 0.1 * g, 0.999 * square[row] + 0.001 * g**2
        w = made_up[row] - 0.1 * m / (1 - 0.9**41) / (np.sqrt(v / (1 - 0.999**41)) + 1e-8)
        for a, b in zip(found.rows, (w, m, v, 41), strict=True):
            np.testing.assert_allclose(a[row], b, rtol=1e-7)
    others = np.setdiff1d(np.arange(V), rows)
    for a, b in zip(found.rows, state.rows, strict=True):
        np.testing.assert_array_equal(a[others], b[others])


@pytest.mark.parametrize("deferred", [False, True])
def test_only_the_rows_of_the_batch_are_computed(chunk, deferred):
    """The compiled step holds no arithmetic on `[V, d]`, and no copy of it or of `[V]`."""
    init = partial(init_row_adam, deferred=deferred)

    def compiled(size):
        state = jax.eval_shape(init, jax.ShapeDtypeStruct((size, 8), jnp.float32))
        rows = jax.ShapeDtypeStruct((64,), jnp.int32)
        gradients = jax.ShapeDtypeStruct((64, 8), jnp.float32)
        count = jax.ShapeDtypeStruct((), jnp.int32)
        step = jax.jit(lambda *of: update_rows(*of, CONFIG.learning_rate, 0.3), donate_argnums=0)
        return step.lower(state, rows, gradients, count).compile()

    large = compiled(100_000)
    small = compiled(1_000).cost_analysis()
    assert large.cost_analysis()["flops"] < 1.1 * small["flops"]
    copies = [line for line in large.as_text().splitlines() if " copy(" in line]
    assert not [line for line in copies if "[100000" in line]
