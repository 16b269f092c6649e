"""What the command lines of the scripts share."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from ihas_jax.config import Config, PresetName, preset


def early_preset() -> Config:
    """The preset that the command line names, read ahead since it sets the flags' defaults."""

    @dataclass(frozen=True)
    class Early:
        data: str | None = None
        preset: PresetName | None = None

    early, _ = tyro.cli(Early, return_unknown_args=True, add_help=False)
    return preset(early.preset or ("small" if early.data is None else "paper"))
