"""How results were made: hardware, versions, command, config."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import jax

from ihas_jax.config import Config, differences
from ihas_jax.names import code

_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def provenance(config: Config) -> list[str]:
    """Lines of Markdown: hardware, versions, command, values that differ from the paper's."""
    device = jax.devices()[0]
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    hardware = cores if device.platform == "cpu" else f"{device.device_kind}, {cores}"
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    found = differences(Config(), config)  # of which a local path is no choice
    changed = [line for line in found if not line.startswith("train.programs:")] or ["none"]
    return [
        f"- hardware: {jax.device_count()} device(s), {hardware}",
        f"- versions: Python {platform.python_version()}, {versions}",
        f"- command: {code(shlex.join(_command()))}",
        f"- config values that differ from the paper's: {'; '.join(changed)}",
    ]


def _command() -> list[str]:
    script = Path(sys.argv[0])
    name = script.name if script.is_absolute() else str(script)
    flags, words = [], iter(sys.argv[1:])
    for word in words:
        if word in ("--coordinator", "--process-id", "--process-count"):
            next(words)  # those of a job hold for this time alone
        else:
            flags.append(word)
    return ["python", name, *flags]
