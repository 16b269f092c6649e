"""Trials of a compression's pool: which click models are trained on clicks, and how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import jax

from ihas_jax.config import Config, ModelConfig, OptimizerConfig
from ihas_jax.models.forward import init_model
from ihas_jax.stages.run import Run
from ihas_jax.stages.teachers import teacher_model

_SLOWER, _DROPOUT = 0.3, 0.2
"""The learning rate as a multiple of the usual one, and the dropout, that the base model tries."""


@dataclass(frozen=True)
class Trial:
    """What a click model of a pool is trained with.

    Attributes:
      model: the click model.
      optimizer: the choices of its optimiser.
      number: tells trials from each other that differ in their seed alone.
    """

    model: ModelConfig
    optimizer: OptimizerConfig
    number: int = 0

    def name(self, usual: Config) -> str:
        """A name from click model and L2 term, batch norm, dropout, other steps and its number."""
        model, rate = self.model, self.optimizer.learning_rate
        parts = [f"{model.name}_{_short(self.optimizer.l2)}"]
        parts += ["norm"] if model.batch_norm else []
        parts += [f"dropout_{_short(model.dropout)}"] if model.dropout else []
        parts += [f"rate_{_short(rate)}"] if rate != usual.optimizer.learning_rate else []
        parts += [f"{self.number}"] if self.number else []
        return "_".join(parts)


def l2_trials(config: Config, model: ModelConfig, l2s: Iterable[float]) -> list[Trial]:
    """A click model with each L2 term."""
    return [Trial(model, replace(config.optimizer, l2=l2)) for l2 in l2s]


def teacher_trials(config: Config, names: Sequence[str], l2s: Sequence[float]) -> list[Trial]:
    """The click models of these names, but for the base model, with each L2 term."""
    models = [teacher_model(config, name) for name in names if name != config.model.name]
    return [trial for model in models for trial in l2_trials(config, model, l2s)]


def other_trials(run: Run, l2: float) -> list[Trial]:
    """Trials of the base model with other steps, other batch norm and other dropout."""
    model, usual = run.config.model, replace(run.config.optimizer, l2=l2)
    trials = [Trial(model, replace(usual, learning_rate=_SLOWER * usual.learning_rate))]
    if len(norms := norm_trials(run, model)) > 1:
        dropout = replace(model, dropout=0.0 if model.dropout else _DROPOUT)
        trials += [Trial(norms[1], usual), Trial(dropout, usual)]
    return trials


def norm_trials(run: Run, model: ModelConfig) -> tuple[ModelConfig, ...]:
    """A click model as it is, and with the other batch norm if it has an MLP."""
    built = run.build(replace(model, batch_norm=True))
    stats = jax.eval_shape(lambda: init_model(jax.random.key(0), built)).stats
    return (model, replace(model, batch_norm=not model.batch_norm)) if stats else (model,)


def _short(value: float) -> str:
    """A number in few digits that tell it from every other one."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)
