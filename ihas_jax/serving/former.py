"""Arrays of bundles of formats 3 and 4, which are checkpoints of Orbax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ihas_jax.errors import InputError
from ihas_jax.training.checkpoint import Checkpoints


def read_checkpoint(folder: Path, like: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a bundle; see `ihas_jax.serving.arrays.read_arrays`.

    Raises:
      InputError: there are no undamaged arrays.
    """
    with Checkpoints(folder, read_only=True) as checkpoints:
        found = checkpoints.restore(like)
    if found is None:
        raise InputError(f"{folder} holds no undamaged arrays; take another copy of the bundle.")
    return found[0]
