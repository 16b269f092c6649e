from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ihas_jax.data.store import save_dataset
from ihas_jax.data.synthetic import SyntheticConfig, synthetic

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
_FLAGS = (
    *("--model.dim", 4, "--model.hidden", 8, 4, "--optimizer.learning-rate", 0.02),
    *("--train.batch-size", 100, "--train.round-batches", 4, "--train.max-epochs", 2),
    *("--train.checkpoint-seconds", 0, "--search.pretrain-epochs", 2, "--search.gate-every", 2),
    *("--cluster.min-rows", 100),
)


@pytest.fixture(scope="module")
def bench():
    """The modules of experiments/bench, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        yield lambda name: importlib.import_module(f"bench.{name}")


def _store(path: Path, seed: int) -> Path:
    config = SyntheticConfig(rows=2000, own=2, noise=2, values=30, seed=seed)
    save_dataset(synthetic(config), path)
    return path


@dataclass(frozen=True)
class Command:
    """A script of experiments/, run.py by default, in a process of its own.

    With an `output` it gets the store and the flags of a tiny run, which `flags` override.
    """

    folder: Path
    script: str = "run.py"

    def arguments(self, *flags: object, output: Path | None = None) -> list[str]:
        given = () if output is None else ("--data", self.folder / "store", "--output", output)
        return [
            str(EXPERIMENTS / self.script),
            *map(str, (*given, *(_FLAGS if given else ()), *flags)),
        ]

    def start(self, *flags: object, output: Path | None = None) -> subprocess.Popen[str]:
        environment = os.environ | {
            "COLUMNS": "100",
            # the second run of a program need not compile it again
            "JAX_COMPILATION_CACHE_DIR": str(self.folder.parent / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            # a tiny run takes longer to compile well than to run
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0",
        }
        return subprocess.Popen(
            [sys.executable, *self.arguments(*flags, output=output)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self.folder,
        )

    def __call__(
        self, *flags: object, output: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*flags, output=output)
        try:
            stdout, stderr = process.communicate(timeout=300)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    _store(folder / "store", seed=0)
    _store(folder / "other", seed=1)
    return Command(folder)


@pytest.fixture(scope="session")
def finished(command):
    """A run in one go, and what its process said."""
    output = command.folder / "finished"
    done = command(output=output)
    assert done.returncode == 0, done.stderr
    return output, done
