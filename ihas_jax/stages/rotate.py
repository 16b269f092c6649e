"""The pretrained model on its principal axes, from which any search may begin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ihas_jax import checksums
from ihas_jax.errors import InputError
from ihas_jax.files import read_json, write_json
from ihas_jax.models.base import Variables
from ihas_jax.nn.axes import Axes
from ihas_jax.processes import agreed, by_first
from ihas_jax.progress import say
from ihas_jax.selectors.axes import find_axes
from ihas_jax.selectors.search import has_layers
from ihas_jax.selectors.turning import check_free, turn
from ihas_jax.stages.run import Run
from ihas_jax.training.steps import TrainState, model_optimizers

_FILE = "axes.json"


def check_rotation(run: Run) -> None:
    """Checks that the search of a run can begin, or its clusters can choose, on principal axes.

    Raises:
      InputError: either is wanted and the model's embeddings can't be turned; or the search is to
        begin there, and nothing is pretrained, the method has layers that read raw coordinates, or
        it retrains from weights that were made before the rotation.
    """
    config, selector = run.config, run.selector
    if run.own_axes:
        check_free(run.searched_model)
    if not config.search.rotate or selector is None:
        return
    if not config.search.pretrain_epochs:
        raise InputError(
            "--search.rotate turns a pretrained model, and --search.pretrain-epochs is 0. Choose 1 "
            "or more epochs, or leave --search.rotate out."
        )
    if has_layers(selector):
        raise InputError(
            f"--method {config.method} has layers between tables and network, which read the "
            "coordinates as they are. Leave --search.rotate out."
        )
    if run.start.startswith("initial"):
        raise InputError(
            f"--method {config.method} retrains from {run.start.replace('_', ' ')} that were made "
            "before the rotation, whose coordinates are others. Choose --retrain.start searched or "
            "fresh, or leave --search.rotate out."
        )
    check_free(run.searched_model)


def turned_state(run: Run, state: TrainState) -> TrainState:
    """A pretrained state on its principal axes, which are found once and kept in a file.

    Its optimisers are fresh, since squared gradients do not turn.
    """
    variables = turn(run.searched_model, state.variables, _axes(run, state.variables))
    optimizers = {
        name: optimizer.init(variables.params[name])
        for name, optimizer in model_optimizers(run.config.optimizer).items()
    }
    return replace(state, params=variables.params, stats=variables.stats, optimizers=optimizers)


def _axes(run: Run, variables: Variables) -> Axes:
    """The principal axes of a pretrained model."""
    path = run.workdir / "search" / _FILE
    if (found := _read_axes(path)) is not None:
        return found
    axes = find_axes(run.searched_model, variables, run.data.train.ids)
    axes = agreed(lambda: axes)  # machines may differ in their last bits
    share = axes.importance.cumsum(axis=-1).sum((0, 1)) / (axes.importance.sum() or 1.0)
    first = -(-len(share) // 4)
    say(
        f"[search] starts on principal axes; the first {first} of {len(share)} have "
        f"{share[first - 1]:.1%} of what all are worth"
    )
    run.event("axes", {"share": share.tolist()})
    _write_axes(path, axes)
    return axes


@by_first
def _read_axes(path: Path) -> Axes | None:
    if not path.exists():
        return None
    return Axes(**{name: np.array(part) for name, part in read_json(path).items()})


@by_first
def _write_axes(path: Path, axes: Axes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    checksums.start(path.parent)
    write_json(path, {name: part.tolist() for name, part in axes._asdict().items()})
