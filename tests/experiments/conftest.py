from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ihas_jax.config import Config
from ihas_jax.data.store_writer import save_dataset
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.progress import console
from ihas_jax.serving.storage import load_bundle

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
DEADLINE = 240.0
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
class Written:
    """What a run has written to its folder so far."""

    path: Path

    def newest(self, stage: str) -> Path:
        """The newest checkpoint of a training."""
        numbers = [int(p.name) for p in (self.path / stage).glob("*") if p.name.isdigit()]
        return self.path / stage / str(max(numbers, default=0))

    def facts(self, stage: str) -> dict[str, Any] | None:
        """Facts of the newest complete checkpoint."""
        try:
            return json.loads((self.newest(stage) / "facts" / "metadata").read_text())
        except (OSError, ValueError):
            return None

    def item(self, stage: str, name: str) -> Any:
        """A tree of arrays of the newest checkpoint."""
        with ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.restore(self.newest(stage) / name)

    def in_epoch(self, stage: str, epoch: int) -> bool:
        """Whether the newest checkpoint lies within that epoch or a later one, not at its end."""
        facts = self.facts(stage)
        return facts is not None and facts["epoch"] >= epoch and facts["round"] > 0

    def begins(self, stage: str) -> bool:
        """Whether the last event is the start of a stage."""
        log = self.path / "log.jsonl"
        events = log.read_text().splitlines() if log.exists() else []
        return bool(events) and f'"stage": "{stage}", "state": "starts"' in events[-1]

    def metrics(self) -> dict[str, Any]:
        """The metrics apart from times, of which the names are left."""
        metrics = json.loads((self.path / "metrics.json").read_text())
        times = ("seconds", "microseconds")
        return metrics | {name: list(metrics[name]) for name in times if name in metrics}

    def served(self) -> Any:
        """All that the bundle predicts by, as one tree of arrays."""
        bundle = load_bundle(self.path)
        router = bundle.router and (bundle.router.variables, bundle.router.centroids)
        kept = (bundle.kept, bundle.routes)
        return jax.tree.map(np.asarray, ([m.variables for m in bundle.models], router, kept))


@dataclass(frozen=True)
class Command:
    """A script of experiments/, run.py by default: in a process by a call, or `inside` this one.

    With an `output` it gets the store and the flags of a tiny run, which `flags` override.
    """

    folder: Path
    script: str = "run.py"
    tiny: tuple[object, ...] = _FLAGS

    def arguments(self, *flags: object, output: Path | None = None) -> list[str]:
        given = () if output is None else ("--data", self.folder / "store", "--output", output)
        return [
            str(EXPERIMENTS / self.script),
            *map(str, (*given, *(self.tiny if given else ()), *flags)),
        ]

    def start(self, *flags: object, output: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *self.arguments(*flags, output=output)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "100"},
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

    def ended(
        self,
        there: Callable[[Written], bool],
        *flags: object,
        output: Path,
        by: signal.Signals = signal.SIGKILL,
    ) -> subprocess.CompletedProcess[str]:
        """Starts a run, or resumes it, and ends its process where it is `there`."""
        before = output.with_name(f"{output.name} before")
        for _ in range(5):  # a stalled poll may miss a short stage
            shutil.rmtree(before, ignore_errors=True)
            if output.exists():
                shutil.copytree(output, before)
            process = self.start(*flags, output=output)
            try:
                inside = _end_inside(process, lambda: there(Written(output)), by)
                said = process.communicate(timeout=DEADLINE)
            finally:
                process.kill()
                process.wait()
            if inside:
                return subprocess.CompletedProcess(process.args, process.returncode, *said)
            assert process.returncode == 0, said[1]
            shutil.rmtree(output)
            if before.exists():
                before.rename(output)
        raise AssertionError("the process always ended before the signal")

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


def _end_inside(
    process: subprocess.Popen[str], inside: Callable[[], bool], by: signal.Signals
) -> bool:
    """Ends a process while it is `inside`: stops it, looks again, and only then ends it.

    Returns False where it finished before.
    """
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None:
        assert time.monotonic() < deadline, "never got there"
        if not inside():
            time.sleep(0.001)
            continue
        process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            break
        there = inside()
        if there:
            process.send_signal(by)
        process.send_signal(signal.SIGCONT)
        if there:
            return True
    return False


@pytest.fixture(scope="session")
def written():
    """What a run has written: `written(folder)`."""
    return Written


@pytest.fixture(scope="session")
def assert_equal_trees():
    """Compares trees of arrays, and of keys, bit for bit."""

    def compare(a, b):
        def bits(leaf):
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            return np.asarray(leaf)

        assert jax.tree.structure(a) == jax.tree.structure(b)
        assert jax.tree.leaves(a)
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(bits(x), bits(y)), a, b)

    return compare


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


@pytest.fixture
def record(script, tmp_path):
    """Makes the record of a comparison that writes to table.json, .md and .png."""

    def make(identity=(), grows=False, **changed):
        comparison = script("comparison")
        places = {"output": tmp_path / "runs", "results": tmp_path / "table"}
        flags = {"config": Config(), "seeds": 2, **places, **changed}
        return comparison.Record(comparison.LogComparison(**flags), dict(identity), grows)

    return make
