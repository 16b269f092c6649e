from __future__ import annotations

import contextlib
import importlib
import io
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ihas_jax.data.store import save_dataset
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.progress import console

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
_FLAGS = (
    *("--model.dim", 4, "--model.hidden", 8, 4, "--optimizer.learning-rate", 0.02),
    *("--train.batch-size", 100, "--train.round-batches", 4, "--train.max-epochs", 2),
    *("--train.checkpoint-seconds", 0, "--search.pretrain-epochs", 2, "--search.gate-every", 2),
    *("--cluster.min-rows", 100),
)


@pytest.fixture(scope="module")
def script():
    """Imports a module of experiments/ or of experiments/paper/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS / "paper")
        patch.syspath_prepend(EXPERIMENTS)
        yield importlib.import_module


@pytest.fixture(scope="module")
def bench(script):
    """Imports a module of experiments/bench."""
    return lambda name: script(f"bench.{name}")


def _store(path: Path, seed: int) -> Path:
    config = SyntheticConfig(rows=2000, own=2, noise=2, values=30, seed=seed)
    save_dataset(synthetic(config), path)
    return path


@dataclass(frozen=True)
class Command:
    """A script of experiments/, run.py by default: in a process by a call, or `inside` this one.

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

    def inside(
        self, *flags: object, output: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        arguments, code = self.arguments(*flags, output=output), 0
        stdout, stderr = io.StringIO(), io.StringIO()
        handler = signal.getsignal(signal.SIGINT)
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            patch.chdir(self.folder)
            patch.setenv("COLUMNS", "100")
            patch.setattr(console, "width", 100)
            patch.setattr(sys, "argv", arguments)
            patch.setattr(sys, "path", [str(Path(arguments[0]).parent), *sys.path])
            try:
                runpy.run_path(arguments[0], run_name="__main__")
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
        signal.signal(signal.SIGINT, handler)
        said, complained = stdout.getvalue(), stderr.getvalue()
        return subprocess.CompletedProcess(arguments, code, said, complained)


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    _store(folder / "store", seed=0)
    _store(folder / "other", seed=1)
    return Command(folder)


@pytest.fixture(scope="session")
def finished(command):
    """A run in one go, in a process, and what that said."""
    output = command.folder / "finished"
    done = command(output=output)
    assert done.returncode == 0, done.stderr
    return output, done
