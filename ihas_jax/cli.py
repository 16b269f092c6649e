"""What the command lines of the scripts share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import tyro

from ihas_jax.config import Config, ModelName, from_json
from ihas_jax.data.dataset import Dataset
from ihas_jax.data.open import open_store
from ihas_jax.errors import InputError
from ihas_jax.files import null_to_nan, read_json
from ihas_jax.method_config import MethodName
from ihas_jax.names import printable
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
        method: str = "ihas"

    early, _ = tyro.cli(Early, return_unknown_args=True, add_help=False)
    model = cast(ModelName, early.model) if early.model in get_args(ModelName) else "dnn"
    method = cast(MethodName, early.method) if early.method in get_args(MethodName) else "ihas"
    return preset(early.preset or ("small" if early.data is None else "paper"), model, method)


def open_logs(paths: Sequence[Path]) -> dict[str, Dataset]:
    """The stores of --data by the names of their folders, in characters that can be printed.

    Raises:
      InputError: two of them have the same name.
    """
    names = [printable(path.resolve().name) for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"--data names two folders of the same name: {', '.join(names)}.")
    return {name: open_store(path) for name, path in zip(names, paths, strict=True)}


def earlier_logs(
    results: Path, config: Config, seeds: int, besides: dict[str, Any]
) -> dict[str, Any]:
    """The `logs` of a script's results (`results` with .json at its end), to go on from.

    Empty where there are none yet, or those there are of another config or number of seeds, or
    have other values under the names in `besides`.
    """
    path = Path(f"{results}.json")
    found = read_json(path) if path.exists() else {}
    wanted = {"seeds": seeds, **besides}
    if any(found.get(name) != value for name, value in wanted.items()):
        return {}
    logs: dict[str, Any] = null_to_nan(found["logs"])
    return logs if from_json(Config, found["config"]) == config else {}
