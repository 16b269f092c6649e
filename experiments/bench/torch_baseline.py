"""iHAS in plain eager PyTorch: what the benchmark compares `ihas_jax` with.

The same computation as the library's default choices, written as a PyTorch user would: dense or
sparse `nn.Embedding`, Adam of `torch.optim`, batches by indexing tensors in memory.

Shape letters: B batch, N fields, D embedding size, K = N * D, V table rows, C clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ihas_jax.config import GateConfig, ModelConfig

OptimizerKind = Literal["adam", "fused", "sparse"]
Batch = tuple[Tensor, Tensor]
"""`ids [B, N]` int32, local to each field, and `labels [B]` float32."""


class ClickModel(nn.Module):
    """Embeddings of equal size, flattened, into an MLP."""

    offsets: Tensor

    def __init__(
        self,
        sizes: Sequence[int],
        config: ModelConfig,
        *,
        click_rate: float = 0.5,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("offsets", _offsets(sizes))
        self.embedding = nn.Embedding(sum(sizes), config.dim, sparse=sparse)
        nn.init.xavier_uniform_(self.embedding.weight)
        self.mlp = make_mlp(len(sizes) * config.dim, config.hidden, click_rate)

    def embed(self, ids: Tensor) -> Tensor:
        """Looked-up rows, `[B, N]` -> `[B, N, D]`."""
        return self.embedding(ids + self.offsets)

    def head(self, embeddings: Tensor) -> Tensor:
        """The network over embeddings, `[B, N, D]` -> logits `[B]`."""
        return self.mlp(embeddings.flatten(1)).squeeze(1)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `[B]` of ids `[B, N]`."""
        return self.head(self.embed(ids))


class CompactModel(nn.Module):
    """A click model whose fields have widths of their own; fields of equal width share a table.

    Tables stand in the order of descending width; a field of width 0 is in none.
    """

    columns: Tensor
    offsets: Tensor

    def __init__(
        self,
        sizes: Sequence[int],
        widths: Sequence[int],
        config: ModelConfig,
        *,
        click_rate: float = 0.5,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        distinct = sorted(set(widths) - {0}, reverse=True)
        groups = [[n for n, w in enumerate(widths) if w == width] for width in distinct]
        self.group_sizes = [len(group) for group in groups]
        self.register_buffer("columns", torch.tensor([n for group in groups for n in group]))
        offsets = [_offsets([sizes[n] for n in group]) for group in groups]
        self.register_buffer("offsets", torch.cat(offsets))
        self.tables = nn.ModuleList(
            nn.Embedding(sum(sizes[n] for n in group), width, sparse=sparse)
            for group, width in zip(groups, distinct, strict=True)
        )
        bound = (
            6.0 / (sum(sizes) + config.dim)
        ) ** 0.5  # a field's scale does not depend on its width
        for parameter in self.tables.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        self.mlp = make_mlp(sum(widths), config.hidden, click_rate)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `[B]` of ids `[B, N]`."""
        rows = (ids[:, self.columns] + self.offsets).split(self.group_sizes, dim=1)
        parts = [table(part).flatten(1) for table, part in zip(self.tables, rows, strict=True)]
        return self.mlp(torch.cat(parts, dim=1)).squeeze(1)


def _offsets(sizes: Sequence[int]) -> Tensor:
    # int32 like the ids: `nn.Embedding` reads it as it is
    return torch.tensor([0, *accumulate(sizes[:-1])], dtype=torch.int32)


def make_mlp(inputs: int, hidden: Sequence[int], click_rate: float) -> nn.Sequential:
    """ReLU layers and one logit, `[B, inputs]` -> `[B, 1]`, initialised as 'balanced' says.

    Torch's weights, but zero biases, the output bias at the log-odds of a click, and output
    weights of alternating sign.
    """
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for fan_in, width in pairwise(widths):
        linear = nn.Linear(fan_in, width)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    output = nn.Linear(widths[-1], 1)
    with torch.no_grad():
        output.weight.abs_()
        output.weight[:, 1::2].neg_()
        output.bias.fill_(float(np.log(click_rate / (1 - click_rate))))
    return nn.Sequential(*layers, output)


class Gates(nn.Module):
    """Bernoulli gates, one per embedding coordinate, opened with probability sigmoid(w E + b)."""

    def __init__(self, coordinates: int, config: GateConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(coordinates, coordinates)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Log-odds of open gates, `[B, N, D]` -> `[B, K]`."""
        return self.linear(embeddings.flatten(1))

    def sample(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings `[B, N, D]` under binary gates with a straight-through gradient.

        Returns:
          Masked embeddings `[B, N, D]` and the logits `[B, K]` that `penalty` needs.
        """
        logits = self(embeddings)
        perturbed = logits + torch.rand_like(logits).logit_()  # logistic noise
        soft = torch.sigmoid(perturbed / self.config.temperature)
        masks = (perturbed > 0).to(soft.dtype) - soft.detach() + soft
        return embeddings * masks.view_as(embeddings), logits

    def penalty(self, logits: Tensor) -> Tensor:
        """Weighted equation 5, the mean over instances, `[B, K]` -> `[]`."""
        probs = torch.sigmoid(logits)
        distances = (probs - probs.mean(dim=1, keepdim=True)).abs()
        terms = self.config.l0_weight * probs - distances
        return self.config.weight * terms.sum(dim=1).mean()

    def select(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Deterministic masks `[B, K]` of 0 and 1, and thresholds `[B]`, of `[B, N, D]`."""
        probs = torch.sigmoid(self(embeddings))
        thresholds = search_threshold(probs, self.config.bins or 20)
        return (probs > thresholds[:, None]).to(probs.dtype), thresholds


def search_threshold(probs: Tensor, bins: int) -> Tensor:
    """Threshold of each instance by the 'guarded' rule, `[B, K]` -> `[B]`.

    The lower edge of the first local minimum of the histogram after its first peak that has a
    higher bin to its right; 0.5 without one, and where no probability lies below 0.5.
    """
    index = (probs * bins).long().clamp_(max=bins - 1)
    ones = torch.ones((), dtype=torch.int32, device=probs.device).expand_as(index)
    counts = ones.new_zeros(len(probs), bins).scatter_add_(1, index, ones)
    deltas = counts.diff(dim=1)
    edges = torch.arange(bins, device=probs.device)
    low = (counts > 0).byte().argmax(dim=1)
    falls = (deltas < 0) & (edges[:-1] >= low[:, None])
    peak = torch.where(falls.any(dim=1), falls.byte().argmax(dim=1), bins)
    beyond = counts.flip(1).cummax(dim=1).values.flip(1)[:, 2:]
    minimum = (deltas[:, :-1] <= 0) & (deltas[:, 1:] >= 0) & (beyond > counts[:, 1:-1])
    minimum &= (edges[:-2] >= peak[:, None]) & (low < bins / 2)[:, None]
    found = (minimum.byte().argmax(dim=1) + 1) / bins
    return torch.where(minimum.any(dim=1), found, 0.5)


def make_optimizers(
    model: nn.Module, kind: OptimizerKind, learning_rate: float, l2: float
) -> list[torch.optim.Optimizer]:
    """Adam on all parameters, or SparseAdam on the tables and Adam on the rest.

    Args:
      model: a click model, with sparse tables for 'sparse'.
      kind: 'adam' is `torch.optim.Adam` as it comes, 'fused' its fused implementation.
      learning_rate: step size.
      l2: weight decay; SparseAdam has none.
    """
    if kind != "sparse":
        fused = True if kind == "fused" else None
        return [torch.optim.Adam(model.parameters(), learning_rate, weight_decay=l2, fused=fused)]
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    known = set(map(id, tables))
    others = [p for p in model.parameters() if id(p) not in known]
    return [
        torch.optim.SparseAdam(tables, learning_rate),
        torch.optim.Adam(others, learning_rate, weight_decay=l2, fused=True),
    ]


def train_step(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], ids: Tensor, labels: Tensor
) -> Tensor:
    """One update on ids `[B, N]` and labels `[B]`; returns the loss `[]`."""
    loss = functional.binary_cross_entropy_with_logits(model(ids), labels)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return loss.detach()


def search_step(
    model: ClickModel,
    gates: Gates,
    optimizers: Sequence[torch.optim.Optimizer],
    gate_optimizer: torch.optim.Optimizer,
    batch: Batch,
    gate_batch: Batch | None = None,
) -> Tensor:
    """One update of the model under sampled gates, then of the gates if they have a batch.

    Returns:
      The model's loss `[]`.
    """
    ids, labels = batch
    masked, _ = gates.sample(model.embed(ids))
    loss = functional.binary_cross_entropy_with_logits(model.head(masked), labels)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward(inputs=list(model.parameters()))  # no gradient of the gates' weights
    for optimizer in optimizers:
        optimizer.step()
    if gate_batch is not None:
        ids, labels = gate_batch
        with torch.no_grad():
            embeddings = model.embed(ids)
        masked, logits = gates.sample(embeddings)
        gate_loss = functional.binary_cross_entropy_with_logits(model.head(masked), labels)
        gate_optimizer.zero_grad(set_to_none=True)
        (gate_loss + gates.penalty(logits)).backward(inputs=list(gates.parameters()))
        gate_optimizer.step()
    return loss.detach()
