"""Tiny runs that robustness.py kills, starves and damages, and their required outcomes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from command_line import parse_config

from ihas_jax.config import Config
from ihas_jax.data.dataset import Dataset
from ihas_jax.data.open import open_store
from ihas_jax.data.store_writer import save_dataset
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.presets import preset
from ihas_jax.selectors.routing import Router
from ihas_jax.serving.storage import load_bundle

_FLAGS = (
    *("--model.dim", "4", "--model.hidden", "8", "4", "--optimizer.learning-rate", "0.02"),
    *("--train.batch-size", "100", "--train.round-batches", "4", "--train.max-epochs", "2"),
    *("--train.checkpoint-seconds", "0", "--search.pretrain-epochs", "2"),
    *("--search.gate-every", "2", "--cluster.min-rows", "100", "--autodim.dims", "2", "4"),
)
_RUN = Path(__file__).resolve().parents[1] / "run.py"
_KILL_IN_RENAME = """
import os, runpy, signal, sys
left, after, script = int(sys.argv[1]), sys.argv[2] == "after", sys.argv[3]
def renaming(rename):
    def call(source, target, **places):
        global left
        ours = "orbax-checkpoint-tmp" in str(source) and "orbax-checkpoint-tmp" not in str(target)
        left -= ours
        if ours and left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target, **places)
        if ours and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return call
os.rename, os.replace = renaming(os.rename), renaming(os.replace)
sys.argv = sys.argv[3:]
sys.path.insert(0, os.path.dirname(script))
runpy.run_path(script, run_name="__main__")
"""


@dataclass
class Tally:
    """Trials of one class.

    Attributes:
      name: the class.
      wanted: the required outcome.
      outcomes: number of trials by outcome.
      faults: what came of those that went wrong.
      not_done: why there are none, where there are none.
    """

    name: str
    wanted: str
    outcomes: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    not_done: str = ""

    def count(self, outcome: str, fault: str = "") -> None:
        """Adds a trial; with a `fault` it is one that went wrong."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if fault:
            self.faults.append(f"{outcome}: {fault}")


@dataclass(frozen=True)
class Lab:
    """A folder with a tiny log, and undisturbed runs on it."""

    folder: Path

    @cached_property
    def data(self) -> Dataset:
        """The log, which is made when it is first needed."""
        store = self.folder / "store"
        if not store.exists():
            save_dataset(synthetic(SyntheticConfig(rows=2000, own=2, noise=2, values=30)), store)
        return open_store(store)

    def config(self, method: str) -> Config:
        """The config that `start` runs."""
        return parse_config(_FLAGS, preset("paper", "dnn", method))

    def start(
        self, method: str, output: Path, *flags: str, rename: tuple[int, str] | None = None
    ) -> subprocess.Popen[str]:
        """A process of run.py; with `rename` it is killed at the N-th of a checkpoint's renames."""
        _ = self.data
        wrapper = () if rename is None else ("-c", _KILL_IN_RENAME, str(rename[0]), rename[1])
        place = ("--data", str(self.folder / "store"), "--output", str(output))
        return subprocess.Popen(
            [sys.executable, *wrapper, str(_RUN), *place, "--method", method, *_FLAGS, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, method: str, output: Path, *flags: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a process of run.py."""
        process = self.start(method, output, *flags)
        stdout, stderr = process.communicate()
        return process.returncode, stdout, stderr

    def reference(self, method: str) -> tuple[Path, float]:
        """The folder of an undisturbed run, and the seconds that it took with warm caches."""
        folder = self.folder / "reference" / method
        seconds = folder / "seconds"
        if not seconds.exists():
            for _ in range(1 if (folder / "run").exists() else 2):  # the first one compiles
                subprocess.run(["rm", "-rf", str(folder / "run")], check=True)
                started = time.monotonic()
                code, _, stderr = self.run(method, folder / "run")
                if code:
                    raise RuntimeError(f"the undisturbed run of {method} failed: {stderr}")
            seconds.write_text(str(time.monotonic() - started), encoding="utf-8")
        return folder / "run", float(seconds.read_text(encoding="utf-8"))


def outcome(run: Path) -> dict[str, Any]:
    """All numbers of a finished run but times: its metrics and the bits of its bundle."""
    metrics = json.loads((run / "metrics.json").read_bytes())
    for times in ("seconds", "microseconds"):
        metrics.pop(times, None)
    return {"metrics": metrics, "bundle": bundle_digest(run)}


def bundle_digest(run: Path) -> str:
    """SHA-256 of everything in the bundle of a run that prediction uses."""
    bundle = load_bundle(run)
    shapes = [served.model.embedding for served in bundle.models]
    digest = hashlib.sha256(repr((shapes, bundle.routes, bundle.schema.names)).encode())
    digest.update(repr([tuple(field.values) for field in bundle.schema.fields]).encode())
    router: Any = bundle.router
    if isinstance(router, Router):
        router = router.variables, router.centroids
    elif router is not None:
        router = router.field, router.of_value
    arrays = (router, [served.variables for served in bundle.models])
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def stage_of(stdout: str) -> str:
    """The stage that a process reached."""
    started = [line for line in stdout.splitlines() if line.endswith("] starts")]
    return started[-1].partition("]")[0].strip("[") if started else "start"


def one_paragraph(code: int, stderr: str) -> bool:
    """Whether a process ended with one message: of an error, or of figures that are missing."""
    said = {2: "error: ", 1: "incomplete: "}
    return code in said and stderr.startswith(said[code]) and stderr.count("\n") == 1


def finish(lab: Lab, method: str, output: Path) -> str:
    """Runs to the end; returns what is wrong, or nothing."""
    code, _, stderr = lab.run(method, output)
    if code or stderr:
        return f"exit code {code}: {stderr[-500:]}"
    same = outcome(output) == outcome(lab.reference(method)[0])
    return "" if same else "other numbers than the uninterrupted run"
