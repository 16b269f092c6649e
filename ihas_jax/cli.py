"""What the command lines of the scripts share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, get_args

import tyro

from ihas_jax.config import Config, ModelName
from ihas_jax.presets import PresetName, preset


def early_preset() -> Config:
    """The preset that the command line names, read ahead since it sets the flags' defaults.

    What is wrong with the flags it reads is left for the whole command line to say.
    """

    @dataclass(frozen=True)
    class Early:
        data: str | None = None
        preset: PresetName | None = None
        model: str = "dnn"

    early, _ = tyro.cli(Early, return_unknown_args=True, add_help=False)
    model = cast(ModelName, early.model) if early.model in get_args(ModelName) else "dnn"
    return preset(early.preset or ("small" if early.data is None else "paper"), model)
