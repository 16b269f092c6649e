"""What a selector is: a transform of looked-up embeddings, and the recipe of its stages.

Users choose a *method*, such as `--method pep`; the code of a method is a *selector*.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import jax.numpy as jnp
from jax import Array

from ihas_jax.config import AdamConfig, Config
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models.base import SELECTOR, Params, Stats, Variables
from ihas_jax.models.forward import Lookup, Transformed
from ihas_jax.selectors.plan import Expert, Plan, SearchResult

if TYPE_CHECKING:
    import optax

LAYERS = "layers"
"""Name of a selector's layers among the parameters of a search."""
SelectorParams = dict[str, Any]
_NONE: dict[str, Any] = {}


class Weights(NamedTuple):
    """What a selector computes with.

    Attributes:
      gates: weights that the selector's optimiser learns; `params["selector"]` of a search.
      layers: weights that are learnt with the network; `params["layers"]`.
      stats: arrays that no gradient moves, such as running statistics or a count of steps;
        `stats["selector"]`.
    """

    gates: SelectorParams
    layers: SelectorParams = _NONE
    stats: Stats = _NONE


@dataclass(frozen=True)
class Recipe:
    """How a method searches and retrains.

    Attributes:
      gate_batches: the batches whose loss moves the gates: validation batches between training
        steps (bi-level), the training batches, or none.
      epochs: length of the search; None stops early and keeps the best epoch.
      cuts: shares of the table to which the searched model is narrowed, one after the other; after
        each it is trained again.
      rewind_epochs: epochs of the search after which its weights are stored as the 'rewound' ones.
      initial_weights: what retraining starts from: fresh weights, the searched model, the initial
        embeddings of the search, all initial weights of the search, or its rewound weights.
      stop_at_share: share of kept coordinates at which the search ends.
      stopping_split: split that decides when retraining stops.
    """

    gate_batches: Literal["validation", "training", "never"]
    epochs: int | None = None
    cuts: tuple[float, ...] = ()
    rewind_epochs: int = 0
    initial_weights: Literal["fresh", "searched", "initial_embeddings", "initial", "rewound"] = (
        "fresh"
    )
    stop_at_share: float | None = None
    stopping_split: Literal["valid", "test"] = "valid"

    def __post_init__(self) -> None:
        """Raises: InputError: a value is none of those that the field may have."""
        falling = sorted({*self.cuts}, reverse=True)
        if list(self.cuts) != falling or not all(0 < share <= 1 for share in self.cuts):
            raise InputError(
                f"Recipe.cuts must be falling shares above 0 and at most 1, not {self.cuts}."
            )
        for name, hint in get_type_hints(Recipe).items():
            value, known = getattr(self, name), get_args(hint)
            if get_origin(hint) is Literal and value not in known:
                raise InputError(f"Recipe.{name} must be one of {known}, not {value!r}.")


UNTRAINED = Recipe(gate_batches="never", epochs=0)
"""The recipe of methods that choose without any training before."""


def idle_untrained(config: Config) -> dict[str, str]:
    """The flags without effect where such a method pretrains nothing; see `Method.idle`."""
    if config.search.pretrain_epochs:
        return {}
    return {
        "retrain.start": (
            f"--method {config.method} has no searched model. Choose --search.pretrain-epochs 1 or "
            "more"
        )
    }


class Selector(ABC):
    """A transform of embeddings `[B, N, D]` that has learnt weights.

    Its methods are pure; subclasses are frozen dataclasses of static choices. A subclass without
    weights needs a recipe and a choice alone: by default nothing is selected in the search.
    """

    @property
    @abstractmethod
    def recipe(self) -> Recipe:
        """The stages that the method needs."""

    def init(self, key: Array) -> Weights:
        """Fresh weights."""
        return Weights({})

    def observe(self, weights: Weights, train: Split) -> Weights:
        """Fresh weights with what the method has to know of the training rows.

        Only a selector with layers is asked, before pretraining.
        """
        return weights

    @property
    def clusters(self) -> int:
        """How many clusters of rows get a model each; 1 where one model serves all rows."""
        return 1

    def sample(self, weights: Weights, lookup: Lookup, key: Array) -> Transformed:
        """The selection in the search, with its penalty and the new `Weights.stats`."""
        return Transformed(lookup.vectors, stats=weights.stats)

    def select(self, weights: Weights, lookup: Lookup) -> Transformed:
        """The deterministic selection of evaluation, with its masks.

        Masks mark the kept coordinates; where the selection is soft, those that retraining would
        keep.
        """
        vectors = lookup.vectors
        return Transformed(
            vectors, masks=jnp.ones((vectors.shape[0], math.prod(vectors.shape[1:])))
        )

    @abstractmethod
    def choose(self, found: SearchResult) -> Plan:
        """The models to retrain after the search; none where the searched model is the outcome."""

    def narrow(self, found: SearchResult) -> Expert:
        """What a step of `recipe.cuts` leaves: a choice for all rows, within `found.budget`.

        By default it is the choice of `choose`, where that is one for all rows.

        Raises:
          InputError: it is not.
        """
        experts = self.choose(found).experts
        if len(experts) != 1:
            raise InputError(
                f"The choice of {type(self).__name__} has {len(experts)} models, and a step of "
                "Recipe.cuts needs one for all rows: give the selector a method narrow(found)."
            )
        return experts[0]

    def pretrain(self, weights: Weights, lookup: Lookup, key: Array | None) -> Transformed:
        """The embeddings before the search, with nothing selected; without a key, for evaluation.

        Only a selector with layers is called in pretraining, since layers are learnt from the
        start.
        """
        return Transformed(lookup.vectors, stats=weights.stats)

    def with_axis(self, axis_name: str | None) -> Selector:
        """The selector for batches that the devices of a mapped axis share."""
        return self

    def optimizer(self, config: AdamConfig) -> optax.GradientTransformation:
        """The optimiser of the gates."""
        from ihas_jax.training.optimizers import l2_adam  # a process that predicts needs no optax

        return l2_adam(config)

    def kept_share(self, weights: Weights, params: Params) -> Array:
        """Share `[]` of the embedding table's coordinates that are kept.

        Only methods whose search ends at a share override this; others keep all coordinates.

        Args:
          weights: the selector's weights.
          params: the parameters of the search, with the table.
        """
        return jnp.ones(())

    def check(self, train_rows: int) -> None:
        """Raises: InputError: the method needs more than `train_rows` training rows."""
        return


def weights_of(variables: Variables) -> Weights:
    """The weights of the selector among the variables of a search."""
    params, stats = variables.params, variables.stats
    return Weights(params.get(SELECTOR, {}), params.get(LAYERS, {}), stats.get(SELECTOR, {}))


def with_weights(variables: Variables, weights: Weights) -> Variables:
    """The variables of a search: those of the click model and the weights of the selector."""
    params = variables.params | {SELECTOR: weights.gates}
    params |= {LAYERS: weights.layers} if weights.layers else {}
    stats = variables.stats | ({SELECTOR: weights.stats} if weights.stats else {})
    return Variables(params, stats, variables.constants)


@dataclass(frozen=True)
class Sampling:
    """The transform of a search: `Selector.sample`."""

    selector: Selector

    def __call__(self, variables: Variables, lookup: Lookup, key: Array | None) -> Transformed:
        """Samples a selection; a search always has a key."""
        assert key is not None
        return _named(self.selector.sample(weights_of(variables), lookup, key))


@dataclass(frozen=True)
class Selecting:
    """The transform of evaluation: `Selector.select`."""

    selector: Selector

    def __call__(self, variables: Variables, lookup: Lookup, key: Array | None) -> Transformed:
        """Selects without noise, whatever the key."""
        return self.selector.select(weights_of(variables), lookup)


@dataclass(frozen=True)
class Pretraining:
    """The transform of pretraining: `Selector.pretrain`."""

    selector: Selector

    def __call__(self, variables: Variables, lookup: Lookup, key: Array | None) -> Transformed:
        """Passes embeddings through the selector's layers."""
        return _named(self.selector.pretrain(weights_of(variables), lookup, key))


def _named(made: Transformed) -> Transformed:
    """A result whose statistics have the name that the state of a search gives them."""
    return made._replace(stats={SELECTOR: made.stats} if made.stats else {})
