"""What the folder of a run says of itself: its config, its log, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ihas_jax.config import Config, ModelConfig, differences, from_json, to_json
from ihas_jax.errors import InputError
from ihas_jax.files import read_json, write_json
from ihas_jax.flags import config_from_json, config_to_json
from ihas_jax.processes import by_first
from ihas_jax.serving.record import require_version

ABOUT = "config.json"
"""The name of the file."""
VERSION = 3
"""Format of the folders of runs; it changes with the layout of checkpoints."""
_FREE = tuple(
    f"train.{name}"
    for name in ("checkpoint_seconds", "device_data_gb", "table_sharding", "programs")
)
"""Values that may differ when a run resumes, since its numbers do not depend on them."""

Kind = Literal["run", "compression", "cut"]


@dataclass(frozen=True)
class About:
    """The content of a run's `config.json`.

    Attributes:
      config: every choice of the run.
      data: the fingerprint of the log.
      searched_by: the click model that another run searched, if any.
      kind: what the folder holds: a run, a compression, or a run that is cut.
    """

    config: Config
    data: str
    searched_by: ModelConfig | None = None
    kind: Kind = "run"


@by_first
def read_about(path: Path, remedy: str = "Choose another folder.") -> About:
    """Reads the `config.json` of a run.

    Raises:
      InputError: the folder holds no run, or a run of another version or one that can't be read.
    """
    found = read_json(path / ABOUT, remedy)
    require_version(path, found, (VERSION,))
    try:
        searched = found["searched_by"]
        return About(
            config_from_json(found["config"]),
            found["data"],
            None if searched is None else from_json(ModelConfig, searched),
            found.get("kind", "run"),
        )
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / ABOUT} can't be read ({error}). {remedy}") from None


def write_about(path: Path, about: About) -> None:
    """Writes the `config.json` of a run."""
    content = {
        "version": VERSION,
        "config": config_to_json(about.config),
        "data": about.data,
        "searched_by": None if about.searched_by is None else to_json(about.searched_by),
        "kind": about.kind,
    }
    write_json(path / ABOUT, content)


def differences_that_matter(old: Config, new: Config) -> list[str]:
    """The values in which two configs differ, without those on which no number depends."""
    return [line for line in differences(old, new) if not line.startswith(_FREE)]
