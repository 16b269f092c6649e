"""The choices of the click models, as a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ihas_jax.config.bounds import NotNegative, Positive, Share, Widths, at_least, check_fields
from ihas_jax.errors import InputError

InitRule = Literal["balanced", "torch"]
LinearInit = Literal["zeros", "normal"]


@dataclass(frozen=True)
class ModelConfig:
    """The click model."""

    name: str = "dnn"
    """The click model (see ihas_jax/models); dnn, an MLP on embeddings, is the paper's."""
    dim: Positive[int] = 16
    """The embedding size D of every field before selection."""
    hidden: Widths[tuple[int, ...]] = (16, 8)
    """The widths of the MLP's hidden layers."""
    batch_norm: bool = False
    """Whether there is a batch norm before each ReLU, as in pytorch-fm but not in the paper."""
    dropout: Share[float] = 0.0
    """The dropout rate after each ReLU (0.2 in pytorch-fm)."""
    init: InitRule = "balanced"
    """The initial weights of the MLP; with those of torch a small MLP sometimes fails to learn."""
    linear_init: LinearInit = "zeros"
    """The initial first-order weights; pytorch-fm draws normal ones, which ruin small logs."""
    hofm_order: Annotated[int, at_least(2)] = 3
    """hofm: the highest order of interactions, at least 2."""
    ncf_pair: tuple[int, int] = (0, 1)
    """ncf: positions of the fields of user and item, counted from 0."""
    cross_layers: Positive[int] = 3
    """dcn, dcnv2, gdcn: number of layers of the cross network."""
    cross_rank: NotNegative[int] = 0
    """dcnv2, gdcn: rank of the matrices of the cross network, 0 for full rank."""
    xdeepfm_cin: Widths[tuple[int, ...]] = (16, 16)
    """xdeepfm: widths of the compressed interaction network."""
    afm_attention: Positive[int] = 16
    """afm: width of the attention's hidden layer."""
    autoint_width: Positive[int] = 64
    """autoint: width of the attention layers."""
    autoint_heads: Positive[int] = 2
    """autoint: number of heads, a divisor of the width."""
    autoint_layers: Positive[int] = 3
    """autoint: number of attention layers."""
    afn_neurons: Positive[int] = 1500
    """afn: number of logarithmic neurons."""
    finalmlp_heads: Positive[int] = 1
    """finalmlp: number of heads of the fusion, a divisor of the last hidden width."""
    finalmlp_gate: Positive[int] = 64
    """finalmlp: width of the feature gates' hidden layer."""
    masknet_blocks: Positive[int] = 3
    """masknet: number of parallel blocks."""
    masknet_width: Positive[int] = 64
    """masknet: width of a block's output."""
    masknet_ratio: Positive[float] = 1.0
    """masknet: width of a mask's hidden layer as a multiple of the width of its input."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        check_fields(self, "--model.")
        if not self.xdeepfm_cin:
            raise InputError("--model.xdeepfm-cin needs at least one width.")
        if self.autoint_width % self.autoint_heads:
            raise InputError(
                f"--model.autoint-heads {self.autoint_heads} must divide --model.autoint-width, "
                f"which is {self.autoint_width}."
            )
        if self.name == "finalmlp" and (not self.hidden or self.hidden[-1] % self.finalmlp_heads):
            raise InputError(
                f"--model.finalmlp-heads {self.finalmlp_heads} must divide the last width of "
                f"--model.hidden, which is {self.hidden}."
            )
        if min(self.ncf_pair) < 0 or self.ncf_pair[0] == self.ncf_pair[1]:
            raise InputError(
                f"--model.ncf-pair must be two positions of fields, not {self.ncf_pair}."
            )
