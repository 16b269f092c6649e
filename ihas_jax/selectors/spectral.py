"""Spectral: the principal axes of a trained model's embeddings, and what is worth most on them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from ihas_jax.config import ClusterConfig, Config
from ihas_jax.config.methods import SpectralConfig
from ihas_jax.errors import InputError
from ihas_jax.models.base import FACTORS, Model, Variables
from ihas_jax.nn.axes import single_precision
from ihas_jax.progress import say
from ihas_jax.selectors.axes import find_axes, freedom_of, has_readings, turn
from ihas_jax.selectors.base import Recipe, Selector
from ihas_jax.selectors.budget import numbers_to_keep, require_room
from ihas_jax.selectors.clusters import check_clusters, fit_clusters
from ihas_jax.selectors.experts import plan_experts
from ihas_jax.selectors.plan import Expert, Plan, SearchResult
from ihas_jax.selectors.selection import by_field
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
      cluster: the choices of clustering.
    """

    config: SpectralConfig
    cluster: ClusterConfig

    @property
    def recipe(self) -> Recipe:
        """Training, perhaps cuts in steps, then retraining from what is kept."""
        return Recipe(gate_batches="never", initial_weights="searched", cuts=self.config.steps)

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the numbers, or the axes of fields, that are worth most."""
        model, freedom = found.model, freedom_of(found.model)
        if not freedom.any:
            say(f"[choose] The embeddings keep their own coordinates, since {freedom.why}.")
        numbers = numbers_to_keep(found, self.config.kept)
        if self.config.clusters > 1:
            clusters, curve = fit_clusters(found, self, self.cluster)
            plan = plan_experts(
                found._replace(budget=numbers), clusters, self.cluster, self.config.by
            )
            facts = {"kmeans": [point._asdict() for point in curve]}
            return dataclasses.replace(plan, facts=facts)
        axes = find_axes(model, found.variables, found.train.ids, by=self.config.by)
        selection, share = select_by_worth(found, axes, numbers, self.config.cut)
        say(f"[choose] what is kept has {share:.2%} of what all numbers are worth")
        narrow = single_precision(axes) if freedom.any else None
        return Plan((Expert(selection, axes=narrow),), facts={"worth": share})

    def narrow(self, found: SearchResult) -> Variables:
        """The model on new principal axes, with the numbers of a step that are worth most."""
        model, spec, numbers = found.model, found.model.embedding, found.budget
        assert numbers is not None
        axes = find_axes(model, found.variables, found.train.ids, by=self.config.by)
        selection, share = select_by_worth(found, axes, numbers, self.config.cut)
        say(f"[search] cut to {numbers / spec.parameters:.1%}, with {share:.2%} of the worth")
        turned = found.variables
        if freedom_of(model).any:
            turned = turn(model, turned, axes)
        mask = np.zeros((spec.parameters // spec.dim, spec.dim), np.float32)
        for part, kept in zip(by_field(mask, spec), selection.kept, strict=True):
            part[:, list(kept)] = 1
        if selection.mask is not None:
            mask *= selection.mask
        return turned._replace(constants={FACTORS: {spec.groups[0].name: jnp.asarray(mask)}})

    def check(self, train_rows: int) -> None:
        """Raises: InputError: K-means needs more rows than there are."""
        if self.config.clusters > 1:
            check_clusters("spectral.clusters", self.cluster, train_rows)


def build_spectral(config: Config, model: Model, epoch_steps: int) -> Spectral:
    """Builds the choice among principal axes.

    Raises:
      InputError: what is kept, or left by a step, has no room for a coordinate; a step is not above
        what is kept at the end; or the model has no linear units to measure by.
    """
    options = config.of(SpectralConfig)
    if config.budget is None:
        require_room("spectral.kept", options.kept, model.embedding, options.clusters)
    else:
        require_room("budget", config.budget, model.embedding, options.clusters)
    if options.by == "weights" and not has_readings(model):
        raise InputError(
            f"--spectral.by weights needs a click model in which linear units alone read the "
            f"embeddings, such as dnn; {config.model.name} is none. Choose --spectral.by loss."
        )
    kept = config.budget or options.kept
    for step in options.steps:
        require_room("spectral.steps", step, model.embedding)
        if step <= kept:
            raise InputError(
                f"--spectral.steps {step} is not above the share of {kept} that is kept at the end."
            )
    cluster = dataclasses.replace(
        config.of(ClusterConfig), clusters=options.clusters, cut=options.cut, axes="own"
    )
    return Spectral(options, cluster)
