"""Eight click models beside what the reference library computes with the same weights.

`reference.npz` holds, for each model NAME of pytorch-fm (run with torch 2.13 on a CPU, float32,
without dropout): NAME/field_dims, NAME/ids without offsets, NAME/labels, NAME/w/... its state dict,
NAME/prob_eval and NAME/prob_train the probabilities with running and with batch statistics,
NAME/loss_train the mean binary cross-entropy in training and NAME/g/... its gradient. Its running
statistics are those before the call in training.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from ihas_jax.config import ModelConfig
from ihas_jax.models import build_model
from ihas_jax.models.base import Variables
from ihas_jax.models.forward import forward, init_model
from ihas_jax.training.steps import Batch, click_loss

EMBEDDING = {"tables/embedding/width_16": "embedding.embedding.weight"}
FIRST_ORDER = {"tables/linear/width_1": "linear.fc.weight", "network/wide/bias": "linear.bias"}


def dense(ours, theirs):
    return {f"network/{ours}/{k}": f"{theirs}.{v}" for k, v in DENSE.items()}


def norm(ours, theirs):
    return {f"network/{ours}/{k}": f"{theirs}.{v}" for k, v in NORM.items()} | {
        f"stats/{ours}/{k}": f"{theirs}.{v}" for k, v in STATISTICS.items()
    }


DENSE = {"kernel": "weight", "bias": "bias"}
NORM = {"scale": "weight", "bias": "bias"}
STATISTICS = {"mean": "running_mean", "var": "running_var"}


def mlp(layers, output=True):
    """Each layer of the reference's MLP is four modules: linear, norm, ReLU and dropout."""
    names = {}
    for i in range(layers):
        names |= dense(f"mlp/hidden_{i}", f"mlp.mlp.{4 * i}")
        names |= norm(f"mlp/norm_{i}", f"mlp.mlp.{4 * i + 1}")
    return names | (dense("mlp/output", f"mlp.mlp.{4 * layers}") if output else {})


CROSS = {
    f"network/crosses/{ours}_{i}": theirs
    for i in range(3)
    for ours, theirs in {"weight": f"cn.w.{i}.weight", "bias": f"cn.b.{i}"}.items()
}
CIN = {
    f"network/cin/{ours}_{i}": f"cin.conv_layers.{i}.{theirs}"
    for i in range(2)
    for ours, theirs in DENSE.items()
}
# the reference's name -> our model, and for each of our parameters its name there
MODELS = {
    "fm": ("fm", EMBEDDING | FIRST_ORDER),
    "fnn": ("dnn", EMBEDDING | mlp(2)),
    "wd": ("wide_deep", EMBEDDING | FIRST_ORDER | mlp(2)),
    "dfm": ("deepfm", EMBEDDING | FIRST_ORDER | mlp(2)),
    "dcn": ("dcn", EMBEDDING | CROSS | mlp(2, output=False) | dense("output", "linear")),
    "nfm": ("nfm", EMBEDDING | FIRST_ORDER | norm("pooled_norm", "fm.1") | mlp(1)),
    "xdfm": ("xdeepfm", EMBEDDING | FIRST_ORDER | CIN | dense("output", "cin.fc") | mlp(2)),
    "afm": (
        "afm",
        EMBEDDING | FIRST_ORDER | dense("attention", "afm.attention")
        | dense("projection", "afm.projection") | dense("output", "afm.fc"),
    ),
}  # fmt: skip


def as_ours(ours, array):
    """An array of the reference in the shape of our parameter of that name."""
    if ours == "network/wide/bias":
        return array.reshape(())
    if "crosses/weight" in ours:
        return array[0]
    if "cin/kernel" in ours:
        # the channels of a convolution are the pairs of a field and a vector of the layer before
        return array[:, :, 0].T.reshape(5, -1, len(array))
    return array.T if ours.endswith("/kernel") else array


def tree_of(names, arrays, prefix):
    found = {k: as_ours(k, arrays[f"{prefix}/{theirs}"]) for k, theirs in names.items()}
    return jax.tree.map(jnp.asarray, unflatten_dict(found, sep="/"))


@pytest.fixture(scope="module")
def reference():
    """The arrays of `reference.npz`."""
    with np.load(Path(__file__).with_name("reference.npz")) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module", params=MODELS)
def model(request, reference):
    """The reference's weights in our model, and what ours computes."""
    own = f"{request.param}/"
    arrays = {k.removeprefix(own): v for k, v in reference.items() if k.startswith(own)}
    name, names = MODELS[request.param]
    hidden = (16, 8) if name == "dnn" else (16,) if name == "nfm" else (16, 16)
    config = ModelConfig(name=name, hidden=hidden, batch_norm=True)
    ours = build_model(config, tuple(int(size) for size in arrays["field_dims"]))
    params = tree_of(names, arrays, "w")
    stats = {"network": params.pop("stats")} if "stats" in params else {}
    batch = Batch(arrays["ids"].astype(np.int32), arrays["labels"])
    key = jax.random.key(0)

    @jax.jit
    def compute(params):
        def loss_of(params):
            trained = forward(ours, Variables(params, stats), batch.ids, key=key).logits
            return click_loss(trained, batch.labels), trained

        evaluated = forward(ours, Variables(params, stats), batch.ids).logits
        (loss, trained), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        return jax.nn.sigmoid(evaluated), jax.nn.sigmoid(trained), loss, gradients

    evaluated, trained, loss, gradients = compute(params)
    return SimpleNamespace(
        arrays=arrays, names=names, params=params, stats=stats, evaluated=evaluated,
        trained=trained, loss=loss, gradients=gradients,
        fresh=jax.eval_shape(lambda key: init_model(key, ours), key),
    )  # fmt: skip


def test_it_has_the_parameters_of_the_reference_and_no_others(model):
    expected = jax.tree.map(jnp.shape, model.fresh)
    assert jax.tree.map(jnp.shape, Variables(model.params, model.stats)) == expected
    theirs = {name.removeprefix("w/") for name in model.arrays if name.startswith("w/")}
    assert set(model.names.values()) == {n for n in theirs if "num_batches" not in n}


def test_probabilities_in_evaluation_are_those_of_the_reference(model):
    np.testing.assert_allclose(model.evaluated, model.arrays["prob_eval"], rtol=0, atol=2e-6)


def test_probabilities_and_loss_in_training_are_those_of_the_reference(model):
    np.testing.assert_allclose(model.trained, model.arrays["prob_train"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(model.loss, model.arrays["loss_train"], rtol=0, atol=2e-6)


def test_the_gradient_of_every_parameter_is_that_of_the_reference(model):
    names = {k: v for k, v in model.names.items() if not k.startswith("stats/")}
    expected = flatten_dict(tree_of(names, model.arrays, "g"), sep="/")
    found = flatten_dict(model.gradients, sep="/")
    assert found.keys() == expected.keys()
    for name, want in expected.items():
        np.testing.assert_allclose(found[name], want, rtol=1e-5, atol=2e-6, err_msg=name)
    assert np.abs(expected["tables/embedding/width_16"]).max() > 1e-4
