"""ONNX by onnxruntime answers as the bundle does, for every click model, method and router."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax import linen as nn

from ihas_jax.config import ModelConfig
from ihas_jax.errors import InputError
from ihas_jax.flags import replaced
from ihas_jax.models import MODELS, build_model
from ihas_jax.models.base import EMBEDDING, FACTORS, GROUPS, VALUES, Model, Variables
from ihas_jax.models.forward import init_model
from ihas_jax.models.grouped import grouped_model, stack_networks
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.nn.subset import make_subset
from ihas_jax.presets import preset
from ihas_jax.selectors.base import Selecting
from ihas_jax.selectors.registry import METHODS, build_selector
from ihas_jax.selectors.routing import make_router
from ihas_jax.selectors.search import init_search
from ihas_jax.serving.bundle import Served
from ihas_jax.serving.export.onnx_model import onnx_model

from .drawn import (
    KEPT,
    SIZES,
    assert_answers_as,
    bundle_of,
    drawn,
    every_row,
    run_onnx,
    served,
)  # fmt: skip

STORED = (2, 1, 2, 3, 0)


def config_of(name):
    return ModelConfig(
        name=name, dim=4, hidden=(8, 4), batch_norm=True, cross_layers=2, xdeepfm_cin=(3, 2),
        autoint_width=4, autoint_layers=2, afn_neurons=3, finalmlp_heads=2, masknet_width=8,
    )  # fmt: skip


def kept_of(name):
    return tuple(field and (0,) for field in KEPT) if name == "lr" else KEPT


@pytest.mark.parametrize("name", MODELS)
def test_every_click_model(name):
    assert_answers_as(bundle_of(served(config_of(name))))


@pytest.mark.parametrize("name", MODELS)
def test_every_compact_model_with_removed_values(name):
    one = served(config_of(name), kept=kept_of(name), stored_values=STORED)
    rng, subsets = np.random.default_rng(1), {}
    for group in one.model.embedding.groups:
        # which values of the group's fields have a row
        chosen = [rng.permutation(SIZES[n]) < STORED[n] for n in group.fields]
        subsets[group.name] = make_subset(np.concatenate(chosen))
    variables = one.variables._replace(constants={VALUES: subsets})
    assert_answers_as(bundle_of(dataclasses.replace(one, variables=variables)))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_with_a_network_for_each_group(name):
    one = served(config_of(name))
    stacked = stack_networks(one.variables, 3, 0.5, jax.random.key(1))
    of_value = jnp.array([2, 0, 1, 1], jnp.int32)
    groups = {GROUPS: {"field": jnp.int32(1), "of_value": of_value}}
    variables = stacked._replace(constants=groups)
    assert_answers_as(bundle_of(Served(grouped_model(one.model, 3), variables, 1, 1)))


def test_factors():
    one = served(config_of("dnn"), kept=KEPT)
    factors = drawn(one.variables.params["tables"][EMBEDDING], seed=5)
    variables = one.variables._replace(constants={FACTORS: factors})
    assert_answers_as(bundle_of(dataclasses.replace(one, variables=variables)))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_whose_searched_model_serves(method):
    config = dataclasses.replace(preset("small", method=method), model=config_of("dnn"))
    if method == "autodim":
        config = replaced(config, "autodim.dims", (2, 4))
    model = build_model(config.model, SIZES)
    selector = build_selector(config, model, 1)
    variables = init_search(jax.random.key(0), config, model, selector).variables
    variables = variables._replace(params=drawn(variables.params))
    assert_answers_as(bundle_of(Served(model, variables, 1, 1, Selecting(selector)), config=config))


def test_every_router(routed):
    assert_answers_as(routed)


def test_a_router_over_one_model_says_the_cluster(routed):
    assert_answers_as(dataclasses.replace(routed, models=routed.models[:1], routes=(0, 0, 0)))


def test_a_router_to_one_cluster_is_left_out(routed):
    one = dataclasses.replace(routed, models=routed.models[:1], routes=(0,))
    assert_answers_as(one)
    alone = dataclasses.replace(one, router=None)
    assert onnx_model(one).ByteSize() == onnx_model(alone).ByteSize()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("gates.threshold", "literal"),
        ("gates.inputs", "unit"),
        ("gates.matmul", "bfloat16"),
        ("gates.rank", 3),
        ("gates.instance_wise", False),
    ],
)
def test_every_kind_of_gates(gates, flag, value):
    config = replaced(gates.config, flag, value)
    selector = build_selector(config, gates.model, 1)
    variables = init_search(jax.random.key(0), config, gates.model, selector).variables
    variables = variables._replace(params=drawn(variables.params))
    centroids = np.random.default_rng(3).normal(size=(3, 20)).astype(np.float32)
    router = make_router(gates.model, selector, variables, centroids)
    assert_answers_as(bundle_of(served(config.model), router=router, routes=(0, 0, 0)))


def test_a_row_passes_the_model_of_its_cluster_alone(routed):
    nodes = onnx_model(routed).graph.node
    choices = [node for node in nodes if node.op_type == "If"]
    assert len(choices) == len(routed.models)
    inside = {n.op_type for node in choices for a in node.attribute for n in a.g.node}
    assert "MatMul" in inside and "Sigmoid" in inside
    outside = [node.op_type for node in nodes]
    assert outside.count("Sigmoid") <= 1  # that of the gates


def test_what_depends_on_weights_alone_is_no_node():
    config = ModelConfig(dim=4, hidden=(8,), batch_norm=True)
    found = {node.op_type for node in onnx_model(bundle_of(served(config))).graph.node}
    assert {"MatMul", "Gather", "Sigmoid"} <= found
    assert not {"Sqrt", "Reciprocal"} & found  # of the variances of batch norm


def test_equal_tables_are_stored_once(gates):
    one = served(gates.config.model)
    bundle = bundle_of(one, one, routes=(0, 1))
    names = [tensor.name for tensor in onnx_model(bundle).graph.initializer
             if tensor.dims == [sum(SIZES), 4]]  # fmt: skip
    assert len(names) == 1


class Own(nn.Module):
    """A network of a user: `calculate(vectors [B, N, D]) -> logits [B]`."""

    calculate: object

    def __call__(self, vectors, *, train):
        (part,) = vectors[EMBEDDING].values()
        return self.calculate(part)


def bundle_of_network(calculate):
    model = Model({EMBEDDING: EmbeddingSpec(SIZES, 4)}, Own(calculate))
    variables = init_model(jax.random.key(0), model)
    return bundle_of(Served(model, Variables(drawn(variables.params)), 1, 1))


MATRIX = np.arange(8, dtype=np.float32).reshape(4, 2) / 9
NETWORKS = {
    "gelu": lambda e: nn.gelu(e).sum((1, 2)),
    "softmax, reversed, sliced": lambda e: nn.softmax(e)[:, ::-1][:, :, 1:3].max((1, 2)),
    "layer norm": lambda e: (e - e.mean(1, keepdims=True) / e.std(1, keepdims=True)).prod(2)[:, 1],
    "choice": lambda e: jnp.where(e > 0, jnp.sin(e), jnp.expm1(e)).mean((1, 2)),
    "logarithm and root": lambda e: jnp.log1p(abs(e[:, 0])).sum(1) - jnp.sqrt(abs(e[:, 1, 0])),
    "rest": lambda e: jnp.clip(e, -1, 1).sum((1, 2)) % 2.5 + jnp.floor(e[:, 0, 0]),
    "rows in another shape": lambda e: (
        e.reshape(-1, 4)[:, :2].sum(1).reshape(e.shape[0], -1).min(1)
    ),
    "place along an axis": lambda e: jnp.take_along_axis(
        e[..., 0], jnp.argmax(e[..., 1], axis=1)[:, None], axis=1
    )[:, 0],
    "pairs": lambda e: jnp.einsum("bnd,bmd->bnm", e, e)[:, [0, 1], [2, 3]].sum(1) ** 3,
    "parts": lambda e: jnp.concatenate(jnp.split(e, 2, axis=2), axis=1).cumsum(1)[:, -1, 0],
    "truth": lambda e: (e > 0).any(1).sum(1) - (e > -1).all((1, 2)) * 0.5,
    "padding": lambda e: jnp.pad(e, ((0, 0), (1, 0), (0, 2)), constant_values=2).sum((1, 2)) / 9,
    "largest so far": lambda e: jax.lax.cummax(e, axis=1)[:, 3].sum(1),
    "smallest from here": lambda e: jax.lax.cummin(e, axis=1, reverse=True)[:, 1, 2],
    "a weight that is known": lambda e: jnp.tanh(e @ jnp.square(MATRIX)).sum((1, 2)),
    "sign": lambda e: jnp.sign(e[:, 0, 0]) * e[:, 1, 1],
    "a product with rows on the right": lambda e: jnp.einsum("da,bnd->abn", MATRIX, e).sum((0, 2)),
    "whole numbers": lambda e: ((e * 8).astype(jnp.int8) // 3 % 2).sum((1, 2)) / 4,
    "bits": lambda e: (
        jax.lax.population_count((e[:, 0, 0] * 99).astype(jnp.int32).astype(jnp.uint32)) / 9
    ),
    "the number of rows": lambda e: e[:, 0, 0] + 0.0 * e.mean(0)[0, 0],
}
"""Calculations of embeddings `[B, N, D]` that users may write in a network of their own."""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_ones_own(name):
    if name == "the number of rows":  # a mean over no rows is not a number
        bundle = bundle_of_network(NETWORKS[name])
        probs, _ = run_onnx(onnx_model(bundle), every_row())
        np.testing.assert_allclose(probs, bundle.predict_ids(every_row()), atol=1e-6)
        return
    assert_answers_as(bundle_of_network(NETWORKS[name]))


def test_numbers_near_zero_keep_their_digits():
    def calculate(e):
        tiny = 1e-6 * e[:, :, 0]
        return 1e6 * (jnp.log1p(tiny) + 2 * jnp.expm1(tiny)).sum(1)

    assert_answers_as(bundle_of_network(calculate))


def test_a_primitive_without_a_rule_is_named():
    with pytest.raises(InputError, match=r"the primitive sort, which .* --to stablehlo"):
        onnx_model(bundle_of_network(lambda e: jnp.sort(e, axis=1)[:, 0, 0]))


def test_a_model_that_asks_for_the_number_of_rows_is_told_how():
    with pytest.raises(InputError, match=r"Ask for x\.shape\[0\] in its place"):
        onnx_model(bundle_of_network(lambda e: e.reshape(len(e), -1).sum(1)))


def test_a_model_says_what_it_takes_and_gives(routed):
    model = onnx_model(routed)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 23)]

    def shape(value):
        kind = value.type.tensor_type
        return kind.elem_type, [d.dim_param or d.dim_value for d in kind.shape.dim]

    found = {value.name: shape(value) for value in (*model.graph.input, *model.graph.output)}
    assert found == {
        "ids": (onnx.TensorProto.INT32, ["rows", 5]),
        "probability": (onnx.TensorProto.FLOAT, ["rows"]),
        "cluster": (onnx.TensorProto.INT32, ["rows"]),
    }


def test_an_answer_of_another_model_is_noticed(routed):
    """The comparison of this file can fail."""
    other = dataclasses.replace(routed, routes=(0, 1, 0))
    probs, _ = run_onnx(onnx_model(other), every_row())
    assert np.abs(probs - routed.predict_ids(every_row())).max() > 1e-3
