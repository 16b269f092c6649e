"""The choices of the click models, as a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from ihas_jax.errors import InputError

InitRule = Literal["balanced", "torch"]
LinearInit = Literal["zeros", "normal"]
ModelName = Literal[
    "lr",
    "fm",
    "ffm",
    "hofm",
    "dnn",
    "wide_deep",
    "afm",
    "nfm",
    "ncf",
    "fnfm",
    "ipnn",
    "opnn",
    "dcn",
    "deepfm",
    "xdeepfm",
    "autoint",
    "afn",
    "dcnv2",
    "finalmlp",
    "masknet",
    "gdcn",
]


@dataclass(frozen=True)
class ModelConfig:
    """The click model."""

    name: Annotated[ModelName, tyro.conf.arg(name="model", prefix_name=False)] = "dnn"
    """The click model (see ihas_jax/models); dnn, an MLP on embeddings, is the paper's."""
    dim: int = 16
    """The embedding size D of every field before selection."""
    hidden: tuple[int, ...] = (16, 8)
    """The widths of the MLP's hidden layers."""
    batch_norm: bool = False
    """Whether there is a batch norm before each ReLU, as in pytorch-fm but not in the paper."""
    dropout: float = 0.0
    """The dropout rate after each ReLU (0.2 in pytorch-fm)."""
    init: InitRule = "balanced"
    """The initial weights of the MLP; with those of torch a small MLP sometimes fails to learn."""
    linear_init: LinearInit = "zeros"
    """The initial first-order weights; pytorch-fm draws normal ones, which ruin small logs."""
    hofm_order: int = 3
    """hofm: the highest order of interactions, at least 2."""
    ncf_pair: tuple[int, int] = (0, 1)
    """ncf: positions of the fields of user and item, counted from 0."""
    cross_layers: int = 3
    """dcn, dcnv2, gdcn: number of layers of the cross network."""
    xdeepfm_cin: tuple[int, ...] = (16, 16)
    """xdeepfm: widths of the compressed interaction network."""
    afm_attention: int = 16
    """afm: width of the attention's hidden layer."""
    autoint_width: int = 64
    """autoint: width of the attention layers."""
    autoint_heads: int = 2
    """autoint: number of heads, a divisor of the width."""
    autoint_layers: int = 3
    """autoint: number of attention layers."""
    afn_neurons: int = 1500
    """afn: number of logarithmic neurons."""
    finalmlp_heads: int = 1
    """finalmlp: number of heads of the fusion, a divisor of the last hidden width."""
    finalmlp_gate: int = 64
    """finalmlp: width of the feature gates' hidden layer."""
    masknet_blocks: int = 3
    """masknet: number of parallel blocks."""
    masknet_width: int = 64
    """masknet: width of a block's output."""
    masknet_ratio: float = 1.0
    """masknet: width of a mask's hidden layer as a multiple of the width of its input."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _check(self)


_POSITIVE = (
    *("dim", "cross_layers", "afm_attention", "autoint_width", "autoint_heads", "autoint_layers"),
    *("afn_neurons", "finalmlp_heads", "finalmlp_gate", "masknet_blocks", "masknet_width"),
    "masknet_ratio",
)


def _check(model: ModelConfig) -> None:
    for name in _POSITIVE:
        if not getattr(model, name) > 0:
            flag = f"--model.{name.replace('_', '-')}"
            raise InputError(f"{flag} must be positive, not {getattr(model, name)}.")
    for flag, widths in {"hidden": model.hidden, "xdeepfm-cin": model.xdeepfm_cin}.items():
        if any(width <= 0 for width in widths):
            raise InputError(f"--model.{flag} must be positive widths, not {widths}.")
    if not 0 <= model.dropout <= 1:
        raise InputError(f"--model.dropout must lie between 0 and 1, not {model.dropout}.")
    if not model.xdeepfm_cin:
        raise InputError("--model.xdeepfm-cin needs at least one width.")
    if model.hofm_order < 2:
        raise InputError(f"--model.hofm-order must be at least 2, not {model.hofm_order}.")
    if model.autoint_width % model.autoint_heads:
        raise InputError(
            f"--model.autoint-heads {model.autoint_heads} must divide --model.autoint-width, "
            f"which is {model.autoint_width}."
        )
    if model.name == "finalmlp" and (not model.hidden or model.hidden[-1] % model.finalmlp_heads):
        raise InputError(
            f"--model.finalmlp-heads {model.finalmlp_heads} must divide the last width of "
            f"--model.hidden, which is {model.hidden}."
        )
    if min(model.ncf_pair) < 0 or model.ncf_pair[0] == model.ncf_pair[1]:
        raise InputError(f"--model.ncf-pair must be two positions of fields, not {model.ncf_pair}.")
