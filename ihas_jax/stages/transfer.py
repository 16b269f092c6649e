"""Transfer: compact models of one kind by the gates and clusters of another (paper Table 3)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ihas_jax.config import Config
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.nn.compact import carry_kept
from ihas_jax.stages.run import Run, read_seconds
from ihas_jax.stages.workdir import differences_that_matter, read_config


def searched_config(config: Config, workdir: str | Path) -> Config:
    """The config of the run in a folder, if it searched another click model than `config` names.

    Otherwise, and where anything but the model differs, it is `config` itself.
    """
    try:
        old = read_config(Path(workdir))
    except InputError:
        return config  # no folder of a run; whoever opens it says so
    if old.model.name == config.model.name:
        return config
    if all(line.startswith("model.") for line in differences_that_matter(old, config)):
        return dataclasses.replace(config, model=old.model)
    return config


def require_clusters(source: Run, config: Config) -> None:
    """Raises: InputError: the run has no clusters yet, or they don't fit the model."""
    ours, theirs = source.config.model, config.model
    if "cluster" not in read_seconds(source):
        raise InputError(
            f"{source.workdir} holds a run of the model {ours.name} that has not come to its "
            f"clusters yet, so they can't serve {theirs.name}. Finish it first (--model "
            f"{ours.name}), or choose another --output."
        )
    if ours.dim != theirs.dim:
        raise InputError(
            f"{ours.name} was searched with --model.dim {ours.dim}, and {theirs.name} with "
            f"--model.dim {theirs.dim} can't keep the same coordinates. Choose {ours.dim}."
        )
    sizes = source.data.schema.sizes
    try:
        carry_kept((), *(build_model(model, sizes).embedding for model in (ours, theirs)))
    except ValueError as error:
        raise InputError(
            f"The coordinates that {ours.name} keeps can't serve {theirs.name}: {error}. Search "
            f"a model with one vector for each field, such as dnn, or choose another --output for "
            f"a run of {theirs.name} by its own gates."
        ) from None
