"""The base stage, and what the trainings of all stages share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

import jax
import numpy as np
from jax import Array

from ihas_jax.config import OptimizerConfig
from ihas_jax.data.dataset import Split
from ihas_jax.models.base import Model, Variables
from ihas_jax.models.forward import Transform
from ihas_jax.models.placing import make
from ihas_jax.models.predict import predictor
from ihas_jax.models.prior import split_prior, with_prior
from ihas_jax.selectors.base import Selector
from ihas_jax.stages.run import Run
from ihas_jax.training.finish import train_to_finish
from ihas_jax.training.layout import splits, training_mesh
from ihas_jax.training.metrics import Scores, score
from ihas_jax.training.rounds import Round, make_round
from ihas_jax.training.steps import TrainState, init_train, make_step, model_optimizers
from ihas_jax.training.task import Task, Trained


# one program compiles faster than its operations one by one, which would take longer than training
@partial(jax.jit, static_argnums=(2, 3))
def _init(key: Array, prior: float | None, shared: Model, config: OptimizerConfig) -> TrainState:
    """The state of `init_train`, by one program for all models that differ in their prior."""
    return init_train(key, with_prior(shared, prior), config)


def train_base(runs: Sequence[Run]) -> list[Trained]:
    """Trains the click model with every coordinate of every field, with early stopping."""
    tasks = [model_task(run, "base", run.model) for run in runs]
    return train_runs(runs, tasks, [fresh_state(run, "base", run.model) for run in runs])


def train_runs(
    runs: Sequence[Run], tasks: Sequence[Task], states: Sequence[TrainState]
) -> list[Trained]:
    """Trains one task per run, side by side if there are several runs that learn the same labels.

    The runs differ in their seed alone. What teachers say differs between seeds, and rows that are
    shared on the device have one label each, so runs with teachers train one after the other.
    """
    if len(runs) > 1 and any(run.taught is not None for run in runs):
        parts = zip(runs, tasks, states, strict=True)
        return [train_runs([run], [task], [state])[0] for run, task, state in parts]
    if len(runs) > 1:
        labels = [f"seed {run.config.seed}" for run in runs]
        tasks = [replace(task, label=label) for task, label in zip(tasks, labels, strict=True)]
    return train_to_finish(tasks, states, [run.event for run in runs])


def fresh_state(run: Run, name: str, model: Model) -> TrainState:
    """The state from which the training of a model called `name` starts."""
    key, optimizer = run.key(name), run.config.optimizer
    shared, prior = split_prior(model)
    shapes = _init.eval_shape(key, prior, shared, optimizer)
    if not splits(run.config.train, shapes):
        return _init(key, prior, shared, optimizer)
    mesh = training_mesh(run.config.train, shapes)
    return make(partial(init_train, model=model, config=optimizer), mesh, key)


def require_selector(run: Run) -> Selector:
    """The selector of a run that searches."""
    assert run.selector is not None
    return run.selector


def model_task(
    run: Run,
    name: str,
    model: Model,
    *,
    rows: np.ndarray | None = None,
    valid: Split | None = None,
    epochs: int | None = None,
    round_: Round | None = None,
    transform: Transform | None = None,
    start_counts: bool = False,
) -> Task:
    """The training of a click model on (some of) the training rows.

    Args:
      run: the run.
      name: folder of the training within the run's folder, and the name of its seeds.
      model: the click model.
      rows: training rows to use; all by default.
      valid: rows that decide when to stop; the validation split by default.
      epochs: train exactly these epochs and keep the last one, instead of stopping early.
      round_: a round of updates; by default that of the model alone.
      transform: the transform of the embeddings in validation.
      start_counts: whether the state that the training starts from is a candidate of stopping.
    """
    predict = predictor(model, transform)
    ids, labels = valid or run.data.valid

    def evaluate(variables: Variables) -> tuple[Scores, dict[str, float]]:
        probs = predict(variables, ids, title=f"[{name}] validation").probs
        return score(labels, probs), {}

    return Task(
        name=name,
        directory=run.workdir / name,
        rounds=run.rounds(name, rows=rows, epochs=epochs),
        round_=round_ or plain_round(run.config.optimizer, model),
        evaluate=evaluate,
        config=run.config.train,
        early_stopping=epochs is None,
        start_counts=start_counts,
        finish=run.config.train.finish if epochs is None and round_ is None else (),
    )


def plain_round(config: OptimizerConfig, model: Model) -> Round:
    """A round of training steps of a click model.

    Equal configs and models give one function, whatever the prior, so that pretraining reuses the
    compiled program of the base model, and clusters of equal widths have one.
    """
    return _plain_round(config, split_prior(model)[0])


@lru_cache(maxsize=16)
def _plain_round(config: OptimizerConfig, model: Model) -> Round:
    return make_round(make_step(model, model_optimizers(config)))
