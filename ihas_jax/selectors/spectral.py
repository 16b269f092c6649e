"""Spectral: the principal axes of a trained model's embeddings, and what is worth most on them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ihas_jax.config import ClusterConfig, Config
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.errors import InputError
from ihas_jax.models.base import Model
from ihas_jax.progress import say
from ihas_jax.selectors.base import Recipe, Selector
from ihas_jax.selectors.budget import numbers_to_keep, require_room
from ihas_jax.selectors.clusters import check_clusters, fit_clusters, idle_in_router
from ihas_jax.selectors.experts import plan_experts
from ihas_jax.selectors.plan import Expert, Plan, SearchResult
from ihas_jax.selectors.turning import freedom_of, has_readings
from ihas_jax.selectors.worth import Best, best_expert


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
    def clusters(self) -> int:
        """How many clusters of rows get a model each."""
        return self.config.clusters

    @property
    def recipe(self) -> Recipe:
        """Training, perhaps cuts in steps, then retraining from what is kept."""
        return Recipe(gate_batches="never", initial_weights="searched", cuts=self.config.steps)

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the numbers, or the axes of fields, that are worth most."""
        freedom = freedom_of(found.model)
        if not freedom.any:
            say(f"[choose] The embeddings keep their own coordinates, since {freedom.why}.")
        found = found._replace(budget=numbers_to_keep(found, self.config.kept))
        if self.config.clusters > 1:
            clusters, facts = fit_clusters(found, self, self.cluster)
            plan = plan_experts(found, clusters, self.cluster, self.config.by)
            return dataclasses.replace(plan, facts=facts)
        best = self._best(found)
        say(f"[choose] what is kept has {best.share:.2%} of what all numbers are worth")
        return Plan((best.expert,), facts={"worth": best.share})

    def narrow(self, found: SearchResult) -> Expert:
        """What is worth most within the budget of a step, for all rows."""
        best = self._best(found)
        say(f"[search] what is kept has {best.share:.2%} of what all numbers are worth")
        return best.expert

    def _best(self, found: SearchResult) -> Best:
        """What is worth most for all rows."""
        return best_expert(found, self.config.cut, own=True, by=self.config.by)

    def check(self, train_rows: int) -> None:
        """Raises: InputError: K-means needs more rows than there are."""
        if self.config.clusters > 1:
            check_clusters("spectral.clusters", self.cluster, train_rows)


def idle_in_spectral(config: Config) -> dict[str, str]:
    """The options of clustering that those of the method take the place of, or that need clusters.

    See `Method.idle`.
    """
    clusters = config.of(SpectralConfig).clusters
    found = idle_in_router(config.of(ClusterConfig), clusters)
    if clusters == 1:
        why = "there is one model for all rows. Choose --spectral.clusters 2 or more"
        found = {f"cluster.{f.name}": why for f in dataclasses.fields(ClusterConfig)}
    return found | {
        "cluster.clusters": "--spectral.clusters is the number of clusters. Choose that",
        "cluster.cut": "--spectral.cut says what is kept. Choose that",
        "cluster.axes": "each cluster has its own axes with --spectral.clusters. Choose that",
        "cluster.majority": "--spectral.kept says how much is kept. Choose that",
    }


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
