"""Transfer: compact models of one kind by the gates and clusters of another (paper Table 3)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from ihas_jax.config import Config, from_json
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.nn.embedding import carry_kept
from ihas_jax.stages.run import Run, read_json
from ihas_jax.stages.workdir import differences_that_matter


def searched_config(config: Config, workdir: str | Path) -> Config:
    """The config whose search serves `config` in a folder: mostly `config` itself.

    If the folder holds a run of a click model of another name, it is that run's, and all that
    differs must be the model.
    """
    about = Path(workdir) / "config.json"
    try:
        old = from_json(Config, json.loads(about.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return config  # no folder of a run; whoever opens it says so
    if old.model.name == config.model.name:
        return config
    if all(line.startswith("model.") for line in differences_that_matter(old, config)):
        return dataclasses.replace(config, model=old.model)
    return config


def require_clusters(source: Run, config: Config) -> None:
    """Raises: InputError: the run has no clusters yet, or they don't fit the model."""
    if "cluster" not in read_seconds(source):
        raise InputError(
            f"{source.workdir} holds a run of the model {source.config.model.name} that has not "
            f"come to its clusters yet, so they can't serve {config.model.name}. Finish it first "
            f"(--model {source.config.model.name}), or choose another --output."
        )
    sizes = source.data.schema.sizes
    ours, target = (
        build_model(model, sizes).embedding for model in (source.config.model, config.model)
    )
    try:
        carry_kept((), ours, target)
    except ValueError as error:
        raise InputError(
            f"The coordinates that {source.config.model.name} keeps can't serve "
            f"{config.model.name}: {error}. Choose another --model.dim."
        ) from None


def read_seconds(run: Run) -> dict[str, float]:
    """Seconds of each finished stage of a run."""
    path = run.workdir / "stages.json"
    return read_json(path) if path.exists() else {}
