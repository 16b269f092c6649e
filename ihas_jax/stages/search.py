"""The searching stage: pretraining, then the search that the method's recipe describes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ihas_jax.config import Config
from ihas_jax.data.dataset import Split
from ihas_jax.models.base import TABLES, Model, Variables
from ihas_jax.models.predict import predictor
from ihas_jax.progress import warn
from ihas_jax.selectors.base import Pretraining, Selecting, Selector, weights_of
from ihas_jax.selectors.search import (
    add_layers,
    has_layers,
    init_search,
    init_weights,
    make_pretraining_step,
    make_search_round,
)
from ihas_jax.stages.advice import more_updates
from ihas_jax.stages.base import (
    fresh_state,
    model_task,
    require_selector,
    train_runs,
)
from ihas_jax.stages.narrow import Step, cut_in_steps
from ihas_jax.stages.rotate import turned_state
from ihas_jax.stages.run import Run
from ihas_jax.training.metrics import Scores, score
from ihas_jax.training.rounds import Round, make_round
from ihas_jax.training.steps import TrainState
from ihas_jax.training.task import Task, Trained

_FEW_UPDATES = 20
_LARGE_GATES = 1e9
_PRETRAIN = "search/pretrain"


@dataclass(frozen=True)
class SearchRuns:
    """The trainings of a searching stage.

    Attributes:
      pretrained: pretraining, with nothing selected.
      rewound: the first `recipe.rewind_epochs` epochs of the search, whose weights retraining
        starts from; None without such epochs.
      searched: the search, or the rest of it.
      steps: the models that a recipe with `cuts` narrows the searched one to.
    """

    pretrained: Trained
    rewound: Trained | None
    searched: Trained
    steps: tuple[Step, ...] = ()

    @property
    def variables(self) -> Variables:
        """The searched model, after the last cut."""
        return (self.steps[-1].trained if self.steps else self.searched).variables

    @property
    def seconds(self) -> float:
        """Time of all trainings."""
        trainings = [self.pretrained, self.rewound, self.searched]
        trainings += [step.trained for step in self.steps]
        return sum(trained.seconds for trained in trainings if trained is not None)


def search(runs: Sequence[Run]) -> list[SearchRuns]:
    """Pretrains, turns the model if it is to be rotated, and searches as the recipe says.

    If the recipe has no length, the search ends when the validation score, with deterministic
    selection, no longer improves.
    """
    first, selector = runs[0], require_selector(runs[0])
    model, recipe = first.searched_model, selector.recipe
    _warn(first, model, selector)
    pretrained = train_runs(
        runs,
        [pretrain_task(run) for run in runs],
        [pretrain_state(run) for run in runs],
    )
    starts = [start.state for start in pretrained]
    if first.config.search.rotate:
        pairs = zip(runs, starts, strict=True)
        starts = [turned_state(run, start) for run, start in pairs]
    states = [
        init_search(run.key("search"), run.config, model, selector, start)
        for run, start in zip(runs, starts, strict=True)
    ]
    rewound: list[Trained | None] = [None] * len(runs)
    if recipe.rewind_epochs:
        tasks = [search_task(run, "search/rewind", recipe.rewind_epochs) for run in runs]
        begun = train_runs(runs, tasks, states)
        states, rewound = [trained.state for trained in begun], list(begun)
    epochs = None if recipe.epochs is None else recipe.epochs - recipe.rewind_epochs
    searched = train_runs(runs, [search_task(run, epochs=epochs) for run in runs], states)
    steps = cut_in_steps(runs, searched)
    return [SearchRuns(*parts) for parts in zip(pretrained, rewound, searched, steps, strict=True)]


def searched_transform(run: Run) -> Selecting:
    """The deterministic selection of the searched model."""
    return Selecting(require_selector(run))


def pretrain_task(run: Run) -> Task:
    """Trains `search.pretrain_epochs` epochs with nothing selected (Algorithm 1, line 2)."""
    selector, model = require_selector(run), run.searched_model
    config, layers = run.config, has_layers(selector)
    return model_task(
        run,
        _PRETRAIN,
        model,
        epochs=config.search.pretrain_epochs,
        round_=_pretraining_round(replace(config, seed=0), model, selector) if layers else None,
        transform=Pretraining(selector) if layers else None,
    )


def pretrain_state(run: Run) -> TrainState:
    """The state that pretraining starts from, with the layers of the selector if it has any."""
    state = fresh_state(run, _PRETRAIN, run.searched_model)
    selector = require_selector(run)
    if not has_layers(selector):
        return state
    fresh = init_weights(selector, run.key("layers"), state.params[TABLES])
    known = jax.tree.map(_beside, selector.observe(fresh, run.data.train), fresh)
    return add_layers(state, known, run.config.optimizer)


def _beside(array: Any, fresh: Any) -> Any:
    """An array on the host or on the device, as the fresh one."""
    return array if isinstance(fresh, np.ndarray) else jnp.asarray(array)


def search_task(run: Run, name: str = "search", epochs: int | None = None) -> Task:
    """The training of a search, without its pretraining.

    Args:
      run: the run.
      name: folder of the training within the run's folder, and the name of its seeds.
      epochs: train exactly these epochs and keep the last one, instead of stopping early.
    """
    config, selector, model = run.config, require_selector(run), run.searched_model
    recipe = selector.recipe
    bilevel = recipe.gate_batches == "validation"
    gate_rows, stopping = split_validation(run) if bilevel else (None, run.data.valid)
    predict = predictor(model, Selecting(selector))
    share_of = jax.jit(lambda v: selector.kept_share(weights_of(v), v.params))

    def evaluate(variables: Variables) -> tuple[Scores, dict[str, float]]:
        probs, kept = predict(variables, stopping.ids, title=f"[{name}] validation")
        facts = {"kept": float(kept.mean()), "kept_deviation": float(kept.std())}
        if recipe.stop_at_share is not None:
            facts["kept_of_table"] = float(share_of(variables))
        return score(stopping.labels, probs), facts

    def is_last(facts: dict[str, float]) -> bool:
        share = recipe.stop_at_share
        return share is not None and facts["kept_of_table"] <= share

    gate_every = config.search.gate_every if bilevel else 0
    stops = epochs is None and recipe.stop_at_share is None
    # without gates and layers the search trains the click model alone
    alone = recipe.gate_batches == "never" and not has_layers(selector)
    return Task(
        name=name,
        directory=run.workdir / name,
        rounds=run.rounds(name, epochs=epochs, gate_every=gate_every, gate_rows=gate_rows),
        round_=_search_round(replace(config, seed=0), model, selector),
        evaluate=evaluate,
        config=config.train,
        early_stopping=stops,
        is_last=is_last,
        finish=config.train.finish if stops and alone else (),
    )


@lru_cache(maxsize=8)
def _pretraining_round(config: Config, model: Model, selector: Selector) -> Round:
    """The round that the pretraining of all seeds shares, for a selector with layers."""
    return make_round(make_pretraining_step(config, model, selector))


@lru_cache(maxsize=8)
def _search_round(config: Config, model: Model, selector: Selector) -> Round:
    """The round that the searches of all seeds share, before and after the rewound epochs."""
    return make_search_round(config, model, selector)


def split_validation(run: Run) -> tuple[np.ndarray | None, Split]:
    """Validation rows that move the gates (None for all), and those that decide when to stop."""
    valid, share = run.data.valid, run.config.search.stopping_share
    if not share:
        return None, valid
    rng = np.random.Generator(np.random.Philox(run.seed("search/stopping")))
    order = rng.permutation(len(valid.labels)).astype(np.int32)
    number = min(max(1, round(share * len(order))), len(order) - 1)
    stopping = np.sort(order[:number])
    return np.sort(order[number:]), Split(valid.ids[stopping], valid.labels[stopping])


def _warn(run: Run, model: Model, selector: Selector) -> None:
    """Warns if the gates can hardly move, or take much memory."""
    updates = run.epoch_steps // run.config.search.gate_every
    if selector.recipe.gate_batches == "validation" and updates < _FEW_UPDATES:
        warn(
            f"[search] only {updates} gate updates per epoch: the gates will hardly move. For a "
            f"log of this size {more_updates(run.config)}."
        )
    gates = jax.eval_shape(selector.init, run.key("search")).gates
    gate_bytes = sum(4 * leaf.size for leaf in jax.tree.leaves(gates))
    if gate_bytes > _LARGE_GATES:
        warn(
            f"[search] the gates take {gate_bytes / 1e9:.1f} GB, and with their optimiser "
            f"three times as much, for {model.embedding.coordinates:,} coordinates. A model with "
            "one vector for each field, or a smaller --model.dim, takes far less."
        )
