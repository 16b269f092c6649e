from __future__ import annotations

import dataclasses
import importlib
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import (
    Config,
    GateConfig,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
)
from ihas_jax.models import build_model
from ihas_jax.models.base import Variables
from ihas_jax.models.forward import forward, init_model
from ihas_jax.nn.gates import gate_penalty, search_threshold, select_gates
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.selectors.search import init_search, make_gate_step, make_model_step
from ihas_jax.training.steps import Batch, click_loss, init_train, make_step, model_optimizers

try:
    import torch
except ModuleNotFoundError:
    torch = None

# where a whole module is skipped, no test is counted as skipped
pytestmark = pytest.mark.skipif(torch is None, reason="needs PyTorch: pip install -e '.[bench]'")

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
SIZES = (5, 3, 4)
SHAPE = ModelConfig(dim=4, hidden=(6, 3))
KEPT = ((0, 2, 3), (), (1, 2, 3))
ROWS = 64


@pytest.fixture(scope="module")
def baseline():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        yield importlib.import_module("bench.torch_baseline")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(size, size=ROWS) for size in SIZES], axis=1).astype(np.int32)
    return Batch(ids, rng.integers(2, size=ROWS).astype(np.float32))


def tensors(batch):
    return tuple(torch.tensor(np.asarray(part)) for part in batch)


def linears(mlp):
    return [layer for layer in mlp if isinstance(layer, torch.nn.Linear)]


def layer_names(network):
    return [*sorted(name for name in network if name.startswith("hidden")), "output"]


def copy_weights(module, tables, network):
    """Flax weights into the module; `tables` are its embeddings' arrays in order."""
    layers = network["mlp"]
    with torch.no_grad():
        embeddings = [m for m in module.modules() if isinstance(m, torch.nn.Embedding)]
        for embedding, table in zip(embeddings, tables, strict=True):
            embedding.weight.copy_(torch.tensor(np.asarray(table)))
        for linear, name in zip(linears(module.mlp), layer_names(layers), strict=True):
            linear.weight.copy_(torch.tensor(np.asarray(layers[name]["kernel"]).T))
            linear.bias.copy_(torch.tensor(np.asarray(layers[name]["bias"])))


def assert_like(module, table, network, of=lambda parameter: parameter):
    """The module's parameters, or their gradients, are those arrays."""

    def same(parameter, array):
        value = of(parameter).detach()
        value = value.to_dense() if value.is_sparse else value
        np.testing.assert_allclose(value.numpy(), array, rtol=1e-5, atol=1e-5)

    same(module.embedding.weight, table)
    for linear, name in zip(linears(module.mlp), layer_names(network["mlp"]), strict=True):
        same(linear.weight, np.asarray(network["mlp"][name]["kernel"]).T)
        same(linear.bias, network["mlp"][name]["bias"])


def start(optimizer=None):
    model = build_model(SHAPE, SIZES, click_rate=0.3)
    state = init_train(jax.random.key(1), model, optimizer or OptimizerConfig())
    # embeddings of ordinary size, so that no gradient vanishes
    tables = jax.tree.map(lambda t: 3 * t, state.params["tables"])
    return model, dataclasses.replace(state, params=state.params | {"tables": tables})


def table_of(tables):
    (table,) = tables["embedding"].values()
    return table


def test_loss_and_gradients_of_the_click_model(baseline, batch):
    model, state = start()

    def loss_of(params):
        logits = forward(model, Variables(params), batch.ids, key=jax.random.key(0)).logits
        return click_loss(logits, jnp.asarray(batch.labels))

    ours, gradients = jax.jit(jax.value_and_grad(loss_of))(state.params)
    ids, labels = tensors(batch)
    for sparse in (False, True):
        module = baseline.ClickModel(SIZES, SHAPE, sparse=sparse)
        copy_weights(module, [table_of(state.params["tables"])], state.params["network"])
        theirs = torch.nn.functional.binary_cross_entropy_with_logits(module(ids), labels)
        theirs.backward()
        assert theirs.item() == pytest.approx(float(ours), abs=1e-5)
        table = table_of(gradients["tables"])
        assert_like(module, table, gradients["network"], of=lambda weight: weight.grad)


@pytest.mark.parametrize(
    ("kind", "tables"), [("adam", "dense"), ("fused", "dense"), ("sparse", "rowwise")]
)
def test_three_training_steps(baseline, batch, kind, tables):
    # without L2, which SparseAdam lacks, rowwise updates are SparseAdam's
    config = OptimizerConfig(0.05, l2=0.0 if kind == "sparse" else 0.01, tables=tables)
    model, state = start(config)
    module = baseline.ClickModel(SIZES, SHAPE, sparse=kind == "sparse")
    copy_weights(module, [table_of(state.params["tables"])], state.params["network"])
    optimizers = baseline.make_optimizers(module, kind, config.learning_rate, config.l2)
    if kind == "sparse":
        # it adds epsilon to a root whose bias is not corrected, 0.03 to 0.05 in these steps
        optimizers[0].param_groups[0]["eps"] *= 0.04
    step = jax.jit(make_step(model, model_optimizers(config)))
    for _ in range(3):
        state, metrics = step(state, batch)
        loss = baseline.train_step(module, optimizers, *tensors(batch))
        assert float(loss) == pytest.approx(float(metrics["loss"]), abs=1e-5)
    assert_like(module, table_of(state.params["tables"]), state.params["network"])


def test_the_compact_model(baseline, batch):
    for kept in (KEPT, ((0, 2, 3), (1,), (0, 1, 3)), ((), (), (2,))):
        model = build_model(SHAPE, SIZES, kept=kept, click_rate=0.3)

        @jax.jit
        def initial(ids, model=model):
            variables = init_model(jax.random.key(2), model)
            return variables.params, forward(model, variables, ids).logits

        params, ours = initial(batch.ids)
        module = baseline.CompactModel(SIZES, [len(k) for k in kept], SHAPE)
        assert sum(t.weight.numel() for t in module.tables) == model.embedding.parameters
        groups = [group.name for group in model.embedding.groups]
        tables = [params["tables"]["embedding"][name] for name in groups]
        copy_weights(module, tables, params["network"])
        theirs = module(torch.tensor(batch.ids)).detach().numpy()
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


def test_initial_weights_are_balanced_and_as_large_as_ours(baseline):
    sizes = (300, 500)
    module = baseline.ClickModel(sizes, SHAPE, click_rate=0.2)
    compact = baseline.CompactModel(sizes, [2, 3], SHAPE, click_rate=0.2)
    bound = (6 / (sum(sizes) + SHAPE.dim)) ** 0.5
    for table in (module.embedding, *compact.tables):
        assert float(table.weight.detach().abs().max()) == pytest.approx(bound, rel=0.02)
    *hidden, output = linears(module.mlp)
    assert all(not layer.bias.detach().any() for layer in hidden)
    assert output.bias.item() == pytest.approx(math.log(0.2 / 0.8))
    assert torch.sign(output.weight.detach()).tolist() == [[1, -1, 1]]


# gates


def mixed_probabilities():
    """Instances with two modes, one mode, flat, and constant probabilities."""
    rng = np.random.default_rng(4)
    rows = [
        np.where(rng.random(200) < share, rng.beta(2, 12, 200), rng.beta(a, b, 200))
        for share in (0.0, 0.3, 0.6, 0.9)
        for a, b in ((9, 2), (2, 9), (1, 1), (30, 30))
        for _ in range(8)
    ]
    extreme = [np.full(200, value) for value in (0.0, 0.04, 0.5, 0.96, 1.0)]
    return np.array(rows + extreme, np.float32)


@pytest.mark.parametrize("bins", [3, 20])
def test_thresholds(baseline, bins):
    probs = mixed_probabilities()
    ours = np.asarray(jax.jit(partial(search_threshold, bins=bins))(probs))
    theirs = baseline.search_threshold(torch.tensor(probs), bins)
    np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-6)  # XLA divides by 20 inexactly
    assert len(np.unique(ours)) > 1 or bins == 3


@pytest.fixture
def gates(baseline):
    """The same gates over wide embeddings twice: ours with parameters, and theirs."""
    config = GateConfig(weight=0.1)
    selector = BernoulliGates(config, len(SIZES) * SHAPE.dim)
    params = selector.init(jax.random.key(5)).gates
    module = baseline.Gates(len(SIZES) * SHAPE.dim, config)
    with torch.no_grad():
        module.linear.weight.copy_(torch.tensor(np.asarray(params["linear"]["kernel"]).T))
        module.linear.bias.copy_(torch.tensor(np.asarray(params["linear"]["bias"])))
    embeddings = 5 * np.random.default_rng(6).normal(size=(ROWS, len(SIZES), SHAPE.dim))
    return selector, params, module, embeddings.astype(np.float32)


def test_selection(gates):
    selector, params, module, embeddings = gates
    masks, thresholds = jax.jit(
        lambda params, rows: select_gates(jax.nn.sigmoid(selector.logits(params, rows)))
    )(params, embeddings)
    theirs, their_thresholds = module.select(torch.tensor(embeddings))
    np.testing.assert_array_equal(theirs.detach().numpy(), masks)
    np.testing.assert_allclose(their_thresholds.detach().numpy(), thresholds, rtol=1e-6)
    assert 0 < np.asarray(masks).mean() < 1


def test_penalty(gates):
    selector, params, module, embeddings = gates
    config = selector.config
    probs = jax.nn.sigmoid(selector.logits(params, embeddings))
    ours = config.weight * gate_penalty(probs, l0_weight=config.l0_weight)
    theirs = module.penalty(module(torch.tensor(embeddings)))
    assert theirs.item() == pytest.approx(float(ours), abs=1e-5)


def test_sampled_gates_are_bernoulli_with_a_straight_through_gradient(gates):
    *_, module, _ = gates
    torch.manual_seed(0)
    row = torch.linspace(-2, 2, len(SIZES) * SHAPE.dim)
    embeddings = row.view(1, len(SIZES), SHAPE.dim).expand(20_000, -1, -1).clone()
    masked, logits = module.sample(embeddings.requires_grad_())
    masks = (masked / embeddings).detach().flatten(1).numpy()
    np.testing.assert_allclose(masks, masks.round(), atol=1e-6)
    probs = torch.sigmoid(logits[0]).detach().numpy()
    assert np.abs(masks.mean(axis=0) - probs).max() < 4 * 0.5 / 20_000**0.5
    masked.sum().backward()
    assert module.linear.weight.grad.isfinite().all()
    assert module.linear.weight.grad.any()


def test_search_step_with_certain_gates(baseline, batch, gates):
    """Gates far from 0 make the noise irrelevant, so that both sides compute the same."""
    selector, params, module, _ = gates
    bias = np.where(np.arange(len(SIZES) * SHAPE.dim) % 3 == 0, -40.0, 40.0).astype(np.float32)
    params = {"linear": params["linear"] | {"bias": jnp.asarray(bias)}}
    with torch.no_grad():
        module.linear.bias.copy_(torch.tensor(bias))
    optimizer = OptimizerConfig(0.05, l2=0.01)
    config = Config(
        model=SHAPE,
        optimizer=optimizer,
        search=SearchConfig(gate_every=1, gate_optimizer=OptimizerConfig(0.02, l2=0.1)),
        options=(selector.config,),
    )
    model, state = start(optimizer)
    state = init_search(jax.random.key(7), config, model, selector, state)
    state = dataclasses.replace(state, params=state.params | {"selector": params})
    click = baseline.ClickModel(SIZES, SHAPE)
    copy_weights(click, [table_of(state.params["tables"])], state.params["network"])
    optimizers = baseline.make_optimizers(click, "fused", optimizer.learning_rate, optimizer.l2)
    (gate_optimizer,) = baseline.make_optimizers(module, "fused", 0.02, 0.1)
    model_step = jax.jit(make_model_step(config, model, selector))
    gate_step = jax.jit(make_gate_step(config, model, selector))
    for number in range(3):
        state, metrics = model_step(state, batch)
        gate_batch = None
        if number != 1:
            state, _ = gate_step(state, batch)
            gate_batch = tensors(batch)
        loss = baseline.search_step(
            click, module, optimizers, gate_optimizer, tensors(batch), gate_batch
        )
        assert float(loss) == pytest.approx(float(metrics["loss"]), abs=1e-5)
    assert_like(click, table_of(state.params["tables"]), state.params["network"])
    ours = state.params["selector"]["linear"]
    for theirs, array in (
        (module.linear.weight, ours["kernel"].T),
        (module.linear.bias, ours["bias"]),
    ):
        np.testing.assert_allclose(theirs.detach().numpy(), array, rtol=1e-5, atol=1e-5)


def test_each_half_of_a_search_step_computes_no_gradient_of_the_other(baseline, batch, gates):
    *_, module, _ = gates
    click = baseline.ClickModel(SIZES, SHAPE)
    optimizers = baseline.make_optimizers(click, "fused", 0.01, 0.0)
    (gate_optimizer,) = baseline.make_optimizers(module, "fused", 0.01, 0.0)
    before = [p.detach().clone() for p in module.parameters()]
    baseline.search_step(click, module, optimizers, gate_optimizer, tensors(batch))
    assert all(p.grad is None for p in module.parameters())
    assert all(map(torch.equal, before, module.parameters()))
    gradients = [p.grad.clone() for p in click.parameters()]
    assert all(gradient.any() for gradient in gradients)
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = 0.0
    click_before = [p.detach().clone() for p in click.parameters()]
    baseline.search_step(click, module, optimizers, gate_optimizer, *[tensors(batch)] * 2)
    assert all(map(torch.equal, click_before, click.parameters()))
    assert not any(map(torch.equal, before, module.parameters()))
