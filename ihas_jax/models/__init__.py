"""Click models: table shapes and a network over embeddings. `build_model` is the registry."""

from __future__ import annotations

import math
from collections.abc import Callable

from ihas_jax.config import ModelConfig, ModelName
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

_BUILDERS: dict[ModelName, Callable[[Parts], Model]] = {
    "lr": build_lr,
    "fm": build_fm,
    "ffm": build_ffm,
    "hofm": build_hofm,
    "dnn": build_dnn,
    "wide_deep": build_wide_deep,
    "afm": build_afm,
    "nfm": build_nfm,
    "ncf": build_ncf,
    "fnfm": build_fnfm,
    "ipnn": build_ipnn,
    "opnn": build_opnn,
    "dcn": build_dcn,
    "deepfm": build_deepfm,
    "xdeepfm": build_xdeepfm,
    "autoint": build_autoint,
    "afn": build_afn,
    "dcnv2": build_dcnv2,
    "finalmlp": build_finalmlp,
    "masknet": build_masknet,
    "gdcn": build_gdcn,
}
EQUATIONS: dict[ModelName, str] = {
    "lr": "logit = b + sum_n w[x_n]",
    "fm": "logit = b + sum_n w[x_n] + sum_(i<j) <e_i, e_j>",
    "ffm": "logit = b + sum_n w[x_n] + sum_(i<j) <T_j[x_i], T_i[x_j]>",
    "hofm": "logit = b + sum_n w[x_n] + sum_(t=2..order) ANOVA_t of the t-th vectors",
    "dnn": "logit = MLP([e_1, ..., e_N])",
    "wide_deep": "logit = b + sum_n w[x_n] + MLP([e_1, ..., e_N])",
    "afm": "logit = b + sum_n w[x_n] + v sum_(i<j) a_ij e_i * e_j + c",
    "nfm": "logit = b + sum_n w[x_n] + MLP(sum_(i<j) e_i * e_j)",
    "ncf": "logit = w [e_user * e_item, MLP([e_1, ..., e_N])] + b",
    "fnfm": "logit = b + sum_n w[x_n] + MLP([T_j[x_i] * T_i[x_j] for i < j])",
    "ipnn": "logit = MLP([e_1, ..., e_N, <e_i, e_j> for i < j])",
    "opnn": "logit = MLP([e_1, ..., e_N, e_i' K_ij e_j for i < j]), with a matrix K_ij per pair",
    "dcn": "logit = w [x_L, MLP(x_0)] + b, with x <- x_0 (w x) + b + x and x_0 = [e_1, ..., e_N]",
    "deepfm": "logit = b + sum_n w[x_n] + sum_(i<j) <e_i, e_j> + MLP([e_1, ..., e_N])",
    "xdeepfm": "logit = b + sum_n w[x_n] + v CIN(e_1, ..., e_N) + c + MLP([e_1, ..., e_N])",
    "autoint": "logit = b + sum_n w[x_n] + v ReLU(attention^L(W e + s) + U e + t) + c "
    "+ MLP([e_1, ..., e_N])",
    "afn": "logit = b + sum_n w[x_n] + MLP([ReLU(prod_n (1 + |e_n|)^W_hn - 1) for h])",
    "dcnv2": "logit = w [x_L, MLP(x_0)] + b, with x <- x_0 * (W x + b) + x "
    "and x_0 = [e_1, ..., e_N]",
    "finalmlp": "logit = b + w [o_1, o_2] + sum_h o_1h W_h o_2h, "
    "with o_s = MLP_s(gate_s([e_1, ..., e_N]))",
    "masknet": "logit = MLP([block_1, ..., block_L]), all blocks on the layer-normalised "
    "embeddings",
    "gdcn": "logit = w [x_L, MLP(x_0)] + b, with x <- x_0 * (W x + b) * sigmoid(G x) + x",
}
"""The equation of each model, by name; the docstring of its network says more."""
_PAIRS = ("afm", "fnfm", "ipnn", "opnn")


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
      axis_name: mapped axis over which batch-norm statistics are averaged.

    Raises:
      InputError: there is no such model, or its choices don't fit the fields.
    """
    if config.name not in _BUILDERS:
        raise InputError(f"no click model {config.name!r}; there are {', '.join(_BUILDERS)}")
    if config.name in _PAIRS and len(sizes) < 2:
        raise InputError(f"{config.name} needs two fields or more, to have a pair of them")
    prior = math.log(click_rate / (1 - click_rate))
    return _BUILDERS[config.name](Parts(config, sizes, kept, stored_values, prior, axis_name))
