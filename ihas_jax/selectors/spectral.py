"""Spectral: the principal axes of a trained model's embeddings, and what is worth most on them."""

from __future__ import annotations

from dataclasses import dataclass

from ihas_jax.config import Config
from ihas_jax.config.methods import SpectralConfig
from ihas_jax.models.base import Model
from ihas_jax.nn.axes import single_precision
from ihas_jax.progress import say
from ihas_jax.selectors.axes import find_axes, freedom_of
from ihas_jax.selectors.base import Recipe, Selector
from ihas_jax.selectors.budget import numbers_to_keep, require_room
from ihas_jax.selectors.plan import Expert, Plan, SearchResult
from ihas_jax.selectors.worth import select_by_worth


@dataclass(frozen=True)
class Spectral(Selector):
    """Trains the click model, turns it to its principal axes, and keeps what is worth most there.

    The turned model computes what it did before. What dropping a number of its table costs is known
    beforehand, so the choice needs no search; see `ihas_jax.selectors.axes`. Retraining starts from
    the cut model, which is a candidate of early stopping itself.

    A click model whose embeddings can't be turned keeps its coordinates, which are ranked alike.

    Attributes:
      config: the method's choices.
    """

    config: SpectralConfig

    @property
    def recipe(self) -> Recipe:
        """Training with early stopping, then retraining from what is kept of it."""
        return Recipe(gate_batches="never", initial_weights="searched")

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the numbers, or the axes of fields, that are worth most."""
        model, freedom = found.model, freedom_of(found.model)
        if not freedom.any:
            say(f"[choose] The embeddings keep their own coordinates, since {freedom.why}.")
        axes = find_axes(model, found.variables, found.train.ids, by=self.config.by)
        numbers = numbers_to_keep(found, self.config.kept)
        selection, share = select_by_worth(found, axes, numbers, self.config.cut)
        say(f"[choose] what is kept has {share:.2%} of what all numbers are worth")
        narrow = single_precision(axes) if freedom.any else None
        return Plan((Expert(selection, axes=narrow),), facts={"worth": share})


def build_spectral(config: Config, model: Model, epoch_steps: int) -> Spectral:
    """Builds the choice among principal axes.

    Raises:
      InputError: `spectral.kept` has no room for a coordinate.
    """
    options = config.of(SpectralConfig)
    if config.budget is None:
        require_room("spectral.kept", options.kept, model.embedding)
    return Spectral(options)
