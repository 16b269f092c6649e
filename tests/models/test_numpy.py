"""Every click model beside a second one in NumPy and float64, written from its definition.

The second models know pairs, fields and instances one at a time; all they share with ours is
where the parameters lie.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.models import MODELS, build_model
from ihas_jax.models.base import NETWORK
from ihas_jax.models.forward import forward, init_model

NAMES = tuple(MODELS)
# no two sizes alike that could be taken for one another
SIZES = (3, 4, 2, 5)
FIELDS, DIM = 4, 3
PAIRS = list(combinations(range(FIELDS), 2))
CONFIG = ModelConfig(
    dim=DIM, hidden=(5, 4), batch_norm=True, hofm_order=4, ncf_pair=(1, 3), cross_layers=2,
    xdeepfm_cin=(6, 2), afm_attention=7, autoint_width=6, autoint_heads=2, autoint_layers=2,
    afn_neurons=7, finalmlp_heads=2, finalmlp_gate=6, masknet_blocks=2, masknet_width=7,
    masknet_ratio=0.75,
)  # fmt: skip
HEADS = 2


@dataclass(frozen=True)
class Second:
    """What a second model computes from: our parameters, and a batch."""

    tables: Any
    network: Any
    stats: Any
    ids: np.ndarray
    train: bool

    def rows(self, name: str) -> np.ndarray:
        """Rows of a table of all fields, one below the other, `[B, N, width]`."""
        (table,) = self.tables[name].values()
        return np.array([
            [table[sum(SIZES[:n]) + value] for n, value in enumerate(instance)]
            for instance in self.ids
        ])  # fmt: skip

    @property
    def e(self) -> np.ndarray:
        return self.rows("embedding")

    @property
    def flat(self) -> np.ndarray:
        return np.array([np.concatenate(list(vectors)) for vectors in self.e])

    @property
    def first_order(self) -> np.ndarray:
        bias = self.network["wide"]["bias"]
        return np.array([bias + sum(w[0] for w in weights) for weights in self.rows("linear")])

    def normalize(self, x: np.ndarray, norm: Any, stats: Any) -> np.ndarray:
        mean, var = stats["mean"], stats["var"]
        if self.train:
            mean = sum(x) / len(x)
            var = sum((x - mean) ** 2) / len(x)
        return (x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]

    def mlp(self, x: np.ndarray, name: str = "mlp", output: bool = True) -> np.ndarray:
        layers, stats = self.network[name], self.stats[name]
        for i in range(2):
            x = linear(layers[f"hidden_{i}"], x)
            x = relu(self.normalize(x, layers[f"norm_{i}"], stats[f"norm_{i}"]))
        return linear(layers["output"], x)[:, 0] if output else x


def relu(x):
    return np.where(x > 0, x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / sum(np.exp(x))


def linear(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def layer_norm(x, scale, shift):
    deviations = x - sum(x) / len(x)
    return deviations / np.sqrt(sum(deviations**2) / len(x) + 1e-5) * scale + shift


def beside(*columns):
    return np.concatenate(columns, axis=1)


def lr(m):
    return np.array([m.network["bias"] + sum(w[0] for w in weights) for weights in m.e])


def second_order(m):
    return np.array([sum(e[i] @ e[j] for i, j in PAIRS) for e in m.e])


def fm(m):
    return m.first_order + second_order(m)


def field_aware(m):
    """For each pair, i's vector of the table for j times j's of the table for i, `[B, P, D]`."""

    def vector(e, field, other):
        return e[field][other * DIM : (other + 1) * DIM]

    return np.array([[vector(e, i, j) * vector(e, j, i) for i, j in PAIRS] for e in m.e])


def ffm(m):
    return m.first_order + [sum(sum(product) for product in pairs) for pairs in field_aware(m)]


def hofm(m):
    def term(e, order):
        vectors = [v[(order - 2) * DIM : (order - 1) * DIM] for v in e]
        sets = combinations(vectors, order)
        return sum(sum(np.prod(chosen, axis=0)) for chosen in sets)

    return m.first_order + [sum(term(e, order) for order in (2, 3, 4)) for e in m.e]


def dnn(m):
    return m.mlp(m.flat)


def wide_deep(m):
    return m.first_order + m.mlp(m.flat)


def afm(m):
    def pooled(e):
        products = [e[i] * e[j] for i, j in PAIRS]
        hidden = [relu(linear(m.network["attention"], product)) for product in products]
        weights = softmax(np.array([linear(m.network["projection"], h)[0] for h in hidden]))
        return sum(weight * product for weight, product in zip(weights, products, strict=True))

    return m.first_order + [linear(m.network["output"], pooled(e))[0] for e in m.e]


def nfm(m):
    pooled = np.array([sum(e[i] * e[j] for i, j in PAIRS) for e in m.e])
    normed = m.normalize(pooled, m.network["pooled_norm"], m.stats["pooled_norm"])
    return m.first_order + m.mlp(normed)


def ncf(m):
    products = np.array([e[1] * e[3] for e in m.e])
    return linear(m.network["output"], beside(products, m.mlp(m.flat, output=False)))[:, 0]


def fnfm(m):
    flat = np.array([np.concatenate(list(products)) for products in field_aware(m)])
    normed = m.normalize(flat, m.network["pairs_norm"], m.stats["pairs_norm"])
    return m.first_order + m.mlp(normed)


def ipnn(m):
    products = np.array([[e[i] @ e[j] for i, j in PAIRS] for e in m.e])
    return m.mlp(beside(m.flat, products))


def opnn(m):
    # the kernel's axes: coordinate of e_j, pair, coordinate of e_i
    matrices = [m.network["kernel"][:, p, :].T for p in range(len(PAIRS))]
    products = np.array([
        [e[i] @ matrix @ e[j] for (i, j), matrix in zip(PAIRS, matrices, strict=True)] for e in m.e
    ])  # fmt: skip
    return m.mlp(beside(m.flat, products))


def crossed(m, layer):
    """Cross network and MLP, side by side, to a logit."""

    def cross(x0):
        x = x0
        for i in range(2):
            weights = {name: m.network["crosses"].get(f"{name}_{i}") for name in CROSS_WEIGHTS}
            x = layer(x0, x, SimpleNamespace(**weights)) + x
        return x

    ours = np.array([cross(x0) for x0 in m.flat])
    return linear(m.network["output"], beside(ours, m.mlp(m.flat, output=False)))[:, 0]


CROSS_WEIGHTS = ("weight", "gate", "bias")


def dcn(m):
    return crossed(m, lambda x0, x, w: np.outer(x0, x) @ w.weight + w.bias)


def dcnv2(m):
    return crossed(m, lambda x0, x, w: x0 * (w.weight.T @ x + w.bias))


def gdcn(m):
    return crossed(m, lambda x0, x, w: x0 * (w.weight.T @ x + w.bias) * sigmoid(w.gate.T @ x))


def deepfm(m):
    return fm(m) + m.mlp(m.flat)


def xdeepfm(m):
    cin = m.network["cin"]

    def sums(e):
        h, found = list(e), []
        for i, width in enumerate((6, 2)):
            kernel, bias = cin[f"kernel_{i}"], cin[f"bias_{i}"]
            h = [
                relu(
                    bias[f]
                    + sum(
                        kernel[n, k, f] * e[n] * h[k] for n in range(FIELDS) for k in range(len(h))
                    )
                )
                for f in range(width)
            ]
            found += [sum(vector) for vector in h]
        return np.array(found)

    return wide_deep(m) + [linear(m.network["output"], sums(e))[0] for e in m.e]


def autoint(m):
    def attention(layer, x):
        def of_heads(part, v):
            return [v @ part["kernel"][:, h] + part["bias"][h] for h in range(HEADS)]

        query, key, value = (
            [of_heads(layer[name], v) for v in x] for name in ("query", "key", "value")
        )
        found = []
        for n in range(FIELDS):
            heads = []
            for h in range(HEADS):
                scores = [query[n][h] @ key[k][h] / np.sqrt(3) for k in range(FIELDS)]
                weights = softmax(np.array(scores))
                heads.append(sum(weights[k] * value[k][h] for k in range(FIELDS)))
            mixed = sum(heads[h] @ layer["out"]["kernel"][h] for h in range(HEADS))
            found.append(mixed + layer["out"]["bias"])
        return found

    def interactions(e):
        x = [linear(m.network["projection"], vector) for vector in e]
        for i in range(2):
            x = attention(m.network[f"attention_{i}"], x)
        residual = [linear(m.network["residual"], vector) for vector in e]
        return np.concatenate([relu(v + r) for v, r in zip(x, residual, strict=True)])

    return wide_deep(m) + [linear(m.network["output"], interactions(e))[0] for e in m.e]


def afn(m):
    def neurons(e):
        grown = 1 + np.abs(e) + 1e-7
        by_neuron = [
            relu(np.prod([grown[n] ** powers[n] for n in range(FIELDS)], axis=0) - 1)
            for powers in m.network["powers"]
        ]
        return np.array(by_neuron).T.ravel()

    return m.first_order + m.mlp(np.array([neurons(e) for e in m.e]))


def finalmlp(m):
    def stream(name):
        gate = m.network[f"{name}_gate"]
        weights = 2 * sigmoid(linear(gate["output"], relu(linear(gate["hidden"], gate["context"]))))
        return m.mlp(np.array([x * weights for x in m.flat]), name, output=False)

    first, second = stream("first"), stream("second")
    fusion = m.network["fusion"]

    def bilinear(x, y):
        parts = zip(np.split(x, HEADS), fusion, np.split(y, HEADS), strict=True)
        return sum(left @ matrix @ right for left, matrix, right in parts)

    fused = [bilinear(x, y) for x, y in zip(first, second, strict=True)]
    return linear(m.network["output"], beside(first, second))[:, 0] + fused


def masknet(m):
    scale, shift = m.network["norm"]["scale"], m.network["norm"]["bias"]

    def blocks(e):
        flat = np.concatenate(list(e))
        normed = np.concatenate([layer_norm(e[n], scale[n], shift[n]) for n in range(FIELDS)])
        found = []
        for i in range(2):
            block = m.network[f"block_{i}"]
            mask = linear(block["projection"], relu(linear(block["aggregation"], flat)))
            hidden = (normed * mask) @ block["hidden"]["kernel"]
            norm = block["norm"]
            found.append(relu(layer_norm(hidden, norm["scale"], norm["bias"])))
        return np.concatenate(found)

    return m.mlp(np.array([blocks(e) for e in m.e]))


SECOND_MODELS = {
    function.__name__: function
    for function in (
        lr, fm, ffm, hofm, dnn, wide_deep, afm, nfm, ncf, fnfm, ipnn, opnn, dcn, deepfm, xdeepfm,
        autoint, afn, dcnv2, finalmlp, masknet, gdcn,
    )
}  # fmt: skip
# a softmax does not see what is added to all of its inputs
WITHOUT_EFFECT = {
    "afm": {"network/projection/bias"},
    "autoint": {"network/attention_0/key/bias", "network/attention_1/key/bias"},
}


def draw(rng, path, leaf):
    """Random numbers away from zero; variances and scales positive."""
    values = rng.uniform(0.1, 0.8, leaf.shape)
    if path[-1].key in ("var", "scale"):
        return np.float32(values + 0.5)
    return np.float32(values * rng.choice([-1, 1], leaf.shape))


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    """A model with random parameters, what ours computes and what the second one does."""
    name = request.param
    config = replace(CONFIG, name=name)
    # in evaluation dropout must not matter
    ours, dropping = (build_model(replace(config, dropout=rate), SIZES) for rate in (0.0, 0.5))
    rng = np.random.default_rng([2, NAMES.index(name)])
    shapes = jax.eval_shape(lambda key: init_model(key, ours), jax.random.key(0))
    variables = jax.tree.map_with_path(lambda path, leaf: draw(rng, path, leaf), shapes)
    ids = np.stack([rng.integers(size, size=24) for size in SIZES], axis=1).astype(np.int32)

    @jax.jit
    def compute(variables, key):
        evaluated = forward(dropping, variables, ids).logits
        return evaluated, forward(ours, variables, ids, key=key).logits

    evaluated, trained = compute(variables, jax.random.key(1))
    params, stats, _ = jax.tree.map(np.float64, variables)

    def second(params, train):
        found = Second(params["tables"], params[NETWORK], stats.get(NETWORK), ids, train)
        return SECOND_MODELS[name](found)

    return SimpleNamespace(
        name=name, params=params, evaluated=evaluated, trained=trained, second=second
    )


def test_in_evaluation_it_is_what_numpy_computes(model):
    expected = model.second(model.params, train=False)
    assert expected.shape == (24,) and expected.std() > 0.1
    np.testing.assert_allclose(model.evaluated, expected, rtol=1e-5, atol=1e-5)


def test_in_training_it_is_what_numpy_computes_with_the_statistics_of_the_batch(model):
    expected = model.second(model.params, train=True)
    assert expected.shape == (24,) and expected.std() > 0.1
    np.testing.assert_allclose(model.trained, expected, rtol=1e-5, atol=1e-5)


def test_every_parameter_moves_the_logits(model):
    """So that the two tests above would see any of them used wrongly."""
    before = model.second(model.params, train=False)
    leaves, tree = jax.tree.flatten(model.params)
    still = set()
    for i, (path, leaf) in enumerate(jax.tree.leaves_with_path(model.params)):
        moved = model.second(
            jax.tree.unflatten(tree, [*leaves[:i], -2 * leaf, *leaves[i + 1 :]]), train=False
        )
        if np.abs(moved - before).max() < 1e-3:
            still.add(jax.tree_util.keystr(path, simple=True, separator="/"))
    assert still == WITHOUT_EFFECT.get(model.name, set())
