"""Spectral: the principal axes of a trained model's embeddings, and what is worth most on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ihas_jax.config import Config
from ihas_jax.config.methods import SpectralConfig
from ihas_jax.models.base import EMBEDDING, Model
from ihas_jax.nn.axes import Axes, flat_importance, worth_of_numbers
from ihas_jax.progress import say
from ihas_jax.selectors.axes import count_values, find_axes, freedom_of, turn
from ihas_jax.selectors.base import Recipe, Selector
from ihas_jax.selectors.budget import fill, numbers_to_keep, require_room
from ihas_jax.selectors.plan import Expert, Plan, SearchResult
from ihas_jax.selectors.selection import Selection, by_field, mark_largest, select_numbers


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
        model, spec = found.model, found.model.embedding
        freedom = freedom_of(model)
        axes = find_axes(model, found.variables, found.train.ids, by=self.config.by)
        turned = found.variables
        if freedom.any:
            turned = turn(model, turned, axes)
        else:
            say(f"[choose] The embeddings keep their own coordinates, since {freedom.why}.")
        numbers = numbers_to_keep(found, self.config.kept)
        counts = count_values(spec.sizes, found.train.ids)
        worth = worth_of_numbers(spec, turned.params["tables"][EMBEDDING], counts, axes)
        if self.config.cut == "numbers":
            selection = select_numbers(mark_largest(worth, numbers), spec)
        else:
            gains = axis_gains(axes, spec.sizes, numbers)
            selection = Selection(fill(gains, spec.sizes, numbers))
        left = worth if selection.mask is None else worth * selection.mask
        parts = zip(by_field(left, spec), selection.kept, strict=True)
        share = sum(part[:, list(kept)].sum() for part, kept in parts) / (worth.sum() or 1.0)
        say(f"[choose] what is kept has {share:.2%} of what all numbers are worth")
        narrow = Axes(*(part.astype(np.float32) for part in axes)) if freedom.any else None
        return Plan((Expert(selection, axes=narrow),), facts={"worth": float(share)})


def axis_gains(axes: Axes, sizes: tuple[int, ...], numbers: int) -> np.ndarray:
    """Gains `[N, D]` by which axes fill a budget: importance times the root of a field's size.

    The first axis of every field goes first where the budget has room for them all.

    Note: importance alone gives the least loss before retraining, but leaves out large fields whose
    values others predict in part, which retraining then misses.
    """
    rows = np.array(sizes, np.float64)
    gains = flat_importance(axes) * np.sqrt(rows)[:, None]
    if numbers >= rows.sum():
        gains[np.arange(len(rows)), gains.argmax(axis=1)] += gains.sum() + rows
    return gains


def build_spectral(config: Config, model: Model, epoch_steps: int) -> Spectral:
    """Builds the choice among principal axes.

    Raises:
      InputError: `spectral.kept` has no room for a coordinate.
    """
    options = config.of(SpectralConfig)
    if config.budget is None:
        require_room("spectral.kept", options.kept, model.embedding)
    return Spectral(options)
