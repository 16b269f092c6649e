"""Uniform: a smaller embedding size for all fields alike, the baseline of every selection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ihas_jax.config import Config
from ihas_jax.config.shares import UniformConfig
from ihas_jax.errors import InputError
from ihas_jax.models.base import Model
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.base import UNTRAINED, Recipe, Selector
from ihas_jax.selectors.budget import LEAST, fill_in_proportion
from ihas_jax.selectors.plan import Plan, SearchResult, single
from ihas_jax.selectors.selection import Selection


@dataclass(frozen=True)
class Uniform(Selector):
    """Keeps the first coordinates of every field, of each vector of models with several.

    Under a budget no field has more than k + 1 coordinates, where k of every field fit and k + 1
    don't. Where this leaves more than 2 % of the budget, since few fields hold nearly all values,
    some fields have more.

    Attributes:
      size: coordinates to keep of each vector without a budget.
    """

    size: int

    @property
    def recipe(self) -> Recipe:
        """Nothing is learnt before the choice."""
        return UNTRAINED

    def choose(self, found: SearchResult) -> Plan:
        """Keeps equally many coordinates of every field."""
        spec = found.model.embedding
        if found.budget is not None:
            return single(_within(found.budget, spec))
        each = spec.dim // spec.vectors_per_field
        field = tuple(j for j in range(spec.dim) if j % each < self.size)
        return single(Selection((field,) * len(spec.sizes)))


def _within(budget: int, spec: EmbeddingSpec) -> Selection:
    """The most uniform selection that fills a budget."""
    equal = np.ones(len(spec.sizes))
    fewest = budget // sum(spec.sizes)
    even = Selection(fill_in_proportion(equal, spec.sizes, spec, budget, most=fewest + 1))
    if even.parameters(spec) >= LEAST * budget:
        return even
    return Selection(fill_in_proportion(equal, spec.sizes, spec, budget))


def build_uniform(config: Config, model: Model, epoch_steps: int) -> Uniform:
    """Builds the choice of a uniform size.

    Raises:
      InputError: `uniform.dim` is more than the size of the model's vectors.
    """
    spec, wanted = model.embedding, config.of(UniformConfig).dim
    each = spec.dim // spec.vectors_per_field
    if wanted is not None and wanted > each:
        raise InputError(
            f"--uniform.dim {wanted} is more than the size of the embeddings of --model "
            f"{config.model.name}, which is {each}. Choose {each} or less."
        )
    return Uniform(max(1, each // 4) if wanted is None else wanted)
