"""Parts of the command lines that several scripts share."""

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
    """The preset that the command line names; it is read first, since it sets the defaults.

    Wrong flags are no error here; the full command line reports them.
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
      InputError: two folders have the same name.
    """
    names = [printable(path.resolve().name) for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"--data names two folders of the same name: {', '.join(names)}.")
    return {name: open_store(path) for name, path in zip(names, paths, strict=True)}


def earlier_logs(
    results: Path, config: Config, seeds: int, besides: dict[str, Any]
) -> dict[str, Any]:
    """The `logs` in the earlier results of a script, from which it resumes.

    They are empty if there are no results yet, or if those have another config, another number of
    seeds, or other values under the names in `besides`.

    Args:
      results: path of the results without .json.
      config: the config of the script.
      seeds: the number of seeds of the script.
      besides: other values that the results must have, by name.
    """
    path = Path(f"{results}.json")
    found = read_json(path) if path.exists() else {}
    wanted = {"seeds": seeds, **besides}
    if any(found.get(name) != value for name, value in wanted.items()):
        return {}
    logs: dict[str, Any] = null_to_nan(found["logs"])
    return logs if from_json(Config, found["config"]) == config else {}
