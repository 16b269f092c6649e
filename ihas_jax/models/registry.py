"""The click models by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from ihas_jax.config import ModelConfig
from ihas_jax.errors import InputError
from ihas_jax.models.afm import build_afm
from ihas_jax.models.afn import build_afn
from ihas_jax.models.autoint import build_autoint
from ihas_jax.models.base import Model
from ihas_jax.models.crosses import build_dcn, build_dcnv2, build_gdcn
from ihas_jax.models.deepfm import build_deepfm
from ihas_jax.models.dnn import build_dnn
from ihas_jax.models.ffm import build_ffm
from ihas_jax.models.finalmlp import build_finalmlp
from ihas_jax.models.fm import build_fm
from ihas_jax.models.fnfm import build_fnfm
from ihas_jax.models.hofm import build_hofm
from ihas_jax.models.lr import build_lr
from ihas_jax.models.masknet import build_masknet
from ihas_jax.models.ncf import build_ncf
from ihas_jax.models.nfm import build_nfm
from ihas_jax.models.parts import Parts
from ihas_jax.models.pnn import build_ipnn, build_opnn
from ihas_jax.models.wide_deep import build_wide_deep
from ihas_jax.models.xdeepfm import build_xdeepfm
from ihas_jax.nn.embedding import Kept
from ihas_jax.registry import Registry


@dataclass(frozen=True)
class ClickModel:
    """A click model as runs and reports know it.

    Attributes:
      build: makes the model of its parts; see `parts.Parts`.
      equation: the equation of the logit.
      least_fields: number of fields that the model needs.
    """

    build: Callable[[Parts], Model]
    equation: str
    least_fields: int = 1


MODELS: Registry[ClickModel] = Registry(
    "click model",
    "model",
    {
        "lr": ClickModel(build_lr, "logit = b + sum_n w[x_n]"),
        "fm": ClickModel(build_fm, "logit = b + sum_n w[x_n] + sum_(i<j) <e_i, e_j>"),
        "ffm": ClickModel(build_ffm, "logit = b + sum_n w[x_n] + sum_(i<j) <T_j[x_i], T_i[x_j]>"),
        "hofm": ClickModel(
            build_hofm,
            "logit = b + sum_n w[x_n] + sum_(t=2..order) ANOVA_t of the t-th vectors",
        ),
        "dnn": ClickModel(build_dnn, "logit = MLP([e_1, ..., e_N])"),
        "wide_deep": ClickModel(build_wide_deep, "logit = b + sum_n w[x_n] + MLP([e_1, ..., e_N])"),
        "afm": ClickModel(
            build_afm,
            "logit = b + sum_n w[x_n] + v sum_(i<j) a_ij e_i * e_j + c",
            least_fields=2,
        ),
        "nfm": ClickModel(build_nfm, "logit = b + sum_n w[x_n] + MLP(sum_(i<j) e_i * e_j)"),
        "ncf": ClickModel(build_ncf, "logit = w [e_user * e_item, MLP([e_1, ..., e_N])] + b"),
        "fnfm": ClickModel(
            build_fnfm,
            "logit = b + sum_n w[x_n] + MLP([T_j[x_i] * T_i[x_j] for i < j])",
            least_fields=2,
        ),
        "ipnn": ClickModel(
            build_ipnn,
            "logit = MLP([e_1, ..., e_N, <e_i, e_j> for i < j])",
            least_fields=2,
        ),
        "opnn": ClickModel(
            build_opnn,
            "logit = MLP([e_1, ..., e_N, e_i' K_ij e_j for i < j]), with a matrix K_ij per pair",
            least_fields=2,
        ),
        "dcn": ClickModel(
            build_dcn,
            "logit = w [x_L, MLP(x_0)] + b, with x <- x_0 (w x) + b + x and x_0 = [e_1, ..., e_N]",
        ),
        "deepfm": ClickModel(
            build_deepfm,
            "logit = b + sum_n w[x_n] + sum_(i<j) <e_i, e_j> + MLP([e_1, ..., e_N])",
        ),
        "xdeepfm": ClickModel(
            build_xdeepfm,
            "logit = b + sum_n w[x_n] + v CIN(e_1, ..., e_N) + c + MLP([e_1, ..., e_N])",
        ),
        "autoint": ClickModel(
            build_autoint,
            "logit = b + sum_n w[x_n] + v ReLU(attention^L(W e + s) + U e + t) + c + "
            "MLP([e_1, ..., e_N])",
        ),
        "afn": ClickModel(
            build_afn,
            "logit = b + sum_n w[x_n] + MLP([ReLU(prod_n (1 + |e_n|)^W_hn - 1) for h])",
        ),
        "dcnv2": ClickModel(
            build_dcnv2,
            "logit = w [x_L, MLP(x_0)] + b, with x <- x_0 * (W x + b) + x and x_0 = "
            "[e_1, ..., e_N]",
        ),
        "finalmlp": ClickModel(
            build_finalmlp,
            "logit = b + w [o_1, o_2] + sum_h o_1h W_h o_2h, with o_s = "
            "MLP_s(gate_s([e_1, ..., e_N]))",
        ),
        "masknet": ClickModel(
            build_masknet,
            "logit = MLP([block_1, ..., block_L]), all blocks on the layer-normalised embeddings",
        ),
        "gdcn": ClickModel(
            build_gdcn,
            "logit = w [x_L, MLP(x_0)] + b, with x <- x_0 * (W x + b) * sigmoid(G x) + x",
        ),
    },
    reserved=dict.fromkeys(("base", "search"), "it names a teacher that a run trains anyway"),
)
"""The click models by name; the docstring of a network says more than the equation."""


def register_model(name: str, model: ClickModel) -> None:
    """Makes a click model known by a name to `fit`, presets, tables and command lines.

    A process that loads a run or a bundle of the model registers it first, too.

    Args:
      name: small letters, digits and _; a name that was registered before gets the new model.
      model: the click model.

    Raises:
      InputError: the name is not a name, is taken, or is that of a teacher (base, search).
    """
    MODELS.register(name, model)


def build_model(
    config: ModelConfig,
    sizes: tuple[int, ...],
    *,
    kept: Kept | None = None,
    stored_values: tuple[int, ...] | None = None,
    click_rate: float = 0.5,
    axis_name: str | None = None,
) -> Model:
    """Builds the click model that `config.name` names.

    Note: the output starts at the log-odds of `click_rate`; the reference library's starts
    near zero, as it does here with `config.init` 'torch'.

    Args:
      config: the model's choices.
      sizes: values of each field, N entries (`schema.sizes`).
      kept: kept coordinates of each field in the embedding table; None keeps all. A field may have
        more than `config.dim` coordinates, see `Model.embedding`.
      stored_values: number of values per field that have their own row in the embedding table;
        None for all. The model's constants say which values these are, see `VALUES`.
      click_rate: share of clicks among the rows to train on, strictly between 0 and 1.
      axis_name: mapped axis (pmap, vmap, shard_map) whose devices share each batch in training:
        batch norm averages statistics over it, and steps of the model average gradients.

    Raises:
      InputError: there is no such model, or its choices don't fit the fields.
    """
    known = MODELS.find(config.name)
    if len(sizes) < known.least_fields:
        raise InputError(
            f"{config.name} needs {known.least_fields} fields or more; the log has {len(sizes)}."
        )
    prior = math.log(click_rate / (1 - click_rate))
    model = known.build(Parts(config, sizes, kept, stored_values, prior, axis_name))
    return dataclasses.replace(model, axis_name=axis_name)
