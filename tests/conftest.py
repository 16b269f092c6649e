from __future__ import annotations

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import settings
from jax.experimental.compilation_cache import compilation_cache

from ihas_jax.config import (
    AdamConfig,
    Config,
    GateConfig,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
)
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.schema import Field, Schema
from ihas_jax.models import build_model
from ihas_jax.progress import console
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.training.steps import Batch

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker ends with one of them alone."""
    longest = ("test_planted_truth.py", "test_planted_methods.py", "test_methods.py")
    items.sort(
        key=lambda item: (item.path.name not in longest, item.path.parent.name != "experiments")
    )


@pytest.fixture(autouse=True, scope="session")
def no_fsync():
    """Files of tests need not outlive a power cut, and a busy disk takes seconds for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def golden():
    """Numbers of the reference library, which lie beside the repository, not in it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "golden" / "torchfm"
    if not folder.is_dir():
        pytest.skip(f"no reference numbers: {folder} is not there")
    return lambda name: dict(np.load(folder / f"{name}.npz"))


@pytest.fixture
def float64():
    """JAX computes in float64, so that formulas are compared to the last digits."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def tiny():
    """A click model of three fields with gates, and 40 rows of a log: compiles in no time."""
    config = Config(
        model=ModelConfig(dim=2, hidden=(4,)),
        optimizer=OptimizerConfig(learning_rate=0.05, l2=0.01),
        gates=GateConfig(weight=0.1),
        search=SearchConfig(gate_every=2, gate_optimizer=AdamConfig(learning_rate=0.02, l2=0.1)),
    )
    sizes = (5, 3, 4)
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(size, size=40) for size in sizes], axis=1).astype(np.int32)
    labels = rng.integers(2, size=40).astype(np.uint8)
    return SimpleNamespace(
        config=config,
        sizes=sizes,
        model=build_model(config.model, sizes, click_rate=0.3),
        selector=BernoulliGates(config.gates, len(sizes) * config.model.dim),
        key=jax.random.key(3),
        data=Batch(ids, labels),
    )


@pytest.fixture(scope="session")
def small(tiny):
    """The rows of `tiny` as data: 24 for training, 10 and 6; of the last two classes see below.

    Validation rows are 6 without a click, then 4 with one; all test rows have one.
    """
    fields = tuple(Field(f"f{n}", tuple("abcd"[: size - 1])) for n, size in enumerate(tiny.sizes))
    ids, labels = (np.array(part) for part in tiny.data)
    labels[24:] = [0] * 6 + [1] * 10
    parts = [Split(ids[a:b], labels[a:b]) for a, b in ((0, 24), (24, 34), (34, 40))]
    return Dataset(Schema("label", fields), *parts)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Runs with the same programs, also in other modules, compile them once."""
    names = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in names}
    for values in (names, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is names:
            yield


@pytest.fixture(scope="module")
def quick():
    """Programs of tiny runs are not optimised: that takes longer than the runs."""
    with pytest.MonkeyPatch.context() as patch:
        options = {"xla_backend_optimization_level": 0}
        patch.setattr(jax, "jit", partial(jax.jit, compiler_options=options))
        yield


@pytest.fixture
def run_script(monkeypatch):
    """Runs a script of experiments/ in this process, in a folder: its exit code and its output."""
    experiments = Path(__file__).resolve().parents[1] / "experiments"

    def run(folder, name, *flags):
        command, code = [str(experiments / name), *map(str, flags)], 0
        stdout, stderr = io.StringIO(), io.StringIO()
        handler = signal.getsignal(signal.SIGINT)
        with (
            monkeypatch.context() as patch,
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            patch.chdir(folder)
            patch.setattr(sys, "argv", command)
            patch.syspath_prepend(experiments)
            patch.setenv("COLUMNS", "160")
            patch.setattr(console, "width", 160)
            try:
                runpy.run_path(command[0], run_name="__main__")
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            finally:
                signal.signal(signal.SIGINT, handler)
        return subprocess.CompletedProcess(command, code, stdout.getvalue(), stderr.getvalue())

    return run
