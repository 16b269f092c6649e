from __future__ import annotations

# ruff: noqa: E402
import os
from importlib.metadata import version

# workers share the cores already: threads of K-means that wait for each other take them all
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
# and so do XLA's: each worker, and the processes that it starts, has a core to itself
ALL_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
if WORKER and hasattr(os, "sched_setaffinity"):
    CORES = sorted(ALL_CORES)
    os.sched_setaffinity(0, {CORES[int(WORKER) % len(CORES)]})
# a tiny program takes longer to compile well than to run, here and in the processes of tests
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}
USERS = {"xla_backend_optimization_level": 3}
if version("jaxlib") < "0.11":  # later versions have no choice of emitters
    QUICK |= {"xla_cpu_use_fusion_emitters": False}
    USERS |= {"xla_cpu_use_fusion_emitters": True}
FLAGS = [f"--{name}={str(value).lower()}" for name, value in QUICK.items()]
if not set(FLAGS) <= set(os.environ.get("XLA_FLAGS", "").split()):
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *FLAGS))

import contextlib
import gc
import io
import json
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

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
from ihas_jax.data.synthetic import synthetic
from ihas_jax.models import MODELS, build_model
from ihas_jax.models.forward import init_model
from ihas_jax.pipeline.fit import fit
from ihas_jax.programs import FOLDER, kept_programs
from ihas_jax.progress import console
from ihas_jax.selectors import METHODS
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.selectors.by_value import ValueRouter
from ihas_jax.serving.bundle import Bundle, Served
from ihas_jax.training.steps import Batch

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
# in the background of a shell commands ignore Ctrl-C, which tests send to what they start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# the files that take longest, which workers get first so that none ends with one of them alone
LONGEST = (
    "tests/test_processes.py",
    "tests/experiments/test_kill.py",
    "tests/experiments/test_kill_teachers.py",
    "tests/experiments/test_kill_spectral.py",
    "tests/pipeline/test_fit.py",
    "tests/test_planted_truth.py",
    "tests/experiments/test_benchmark.py",
    "tests/models/test_training.py",
    "tests/experiments/test_models.py",
    "tests/experiments/test_selection.py",
    "tests/experiments/test_pareto.py",
    "tests/pipeline/test_methods.py",
    "tests/test_planted_methods.py",
    "tests/experiments/test_tables.py",
    "tests/pipeline/test_fit_seeds.py",
    "tests/pipeline/test_publish.py",
    "tests/models/test_compact.py",
    "tests/experiments/test_run.py",
    "tests/training/test_parallel.py",
    "tests/experiments/test_logs.py",
    "tests/experiments/test_launch.py",  # jobs of both files would share the cores
)
# files whose runs are those of another file, whose worker gets them
TOGETHER = {
    "tests/pipeline/test_reuse.py": "tests/pipeline/test_fit.py",
    "tests/serving/test_bundle.py": "tests/pipeline/test_fit.py",
    "tests/experiments/test_robustness.py": "tests/experiments/test_kill.py",
}


PROGRAMS = pytest.StashKey[str]()


class FilesTogether(LoadFileScheduling):
    """Gives a worker whole files, and with each those that share its runs."""

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        return TOGETHER.get(file, file)


def pytest_xdist_make_scheduler(config, log):
    return FilesTogether(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(config, items):
    for needed in ("browser", "spark"):  # which most machines lack
        if not config.getoption(needed):
            items[:] = [item for item in items if not item.get_closest_marker(needed)]
    places = {file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.split("::")[0], len(LONGEST)))


def pytest_configure(config):
    """Compiles each program once: workers and what they start keep them in a fresh folder."""
    if hasattr(config, "workerinput"):
        folder = config.workerinput["programs"]
    else:
        folder = config.stash[PROGRAMS] = tempfile.mkdtemp(prefix="programs-")
        config.add_cleanup(lambda: shutil.rmtree(folder))
    os.environ[FOLDER] = folder
    kept = contextlib.ExitStack()
    kept.enter_context(kept_programs())
    config.add_cleanup(kept.close)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["programs"] = node.config.stash[PROGRAMS]


def pytest_collection_finish(session):
    """What is imported by now stays: the collector of garbage need not look at it each time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown(item, nextitem):
    """The programs of a finished file take memory, and time of the collector of garbage."""
    if nextitem is None or nextitem.path != item.path:
        jax.clear_caches()


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped is a failure")
    parser.addoption("--browser", action="store_true", help="test the page of serve.py in chromium")
    parser.addoption("--spark", action="store_true", help="test prepare_spark.py in PySpark")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("no_skips") and reporter and reporter.stats.get("skipped"):
        reporter.write_line("failed: tests were skipped, which --no-skips does not allow", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True, scope="session")
def no_fsync():
    """Files of tests need not outlive a power cut, and a busy disk takes seconds for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """A method or click model that a test registers is not known after it."""
    for registry in (METHODS, MODELS):
        monkeypatch.setattr(registry, "_entries", dict(registry))


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
        search=SearchConfig(gate_every=2, gate_optimizer=AdamConfig(learning_rate=0.02, l2=0.1)),
        options=(GateConfig(weight=0.1),),
    )
    sizes = (5, 3, 4)
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(size, size=40) for size in sizes], axis=1).astype(np.int32)
    labels = rng.integers(2, size=40).astype(np.uint8)
    return SimpleNamespace(
        config=config,
        sizes=sizes,
        model=build_model(config.model, sizes, click_rate=0.3),
        selector=BernoulliGates(config.of(GateConfig), len(sizes) * config.model.dim),
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


@pytest.fixture(scope="session")
def bundle_of(tiny):
    """`bundle_of(schema, models)`: a bundle with random weights; more models are routed to."""

    def make(schema, models=1):
        model = build_model(tiny.config.model, schema.sizes)
        # as many values of the first field for each model
        router = ValueRouter(0, np.arange(schema.sizes[0], dtype=np.uint8) % models)
        init = jax.jit(lambda key: jax.tree.map(lambda leaf: 4 * leaf, init_model(key, model)))
        served = tuple(
            Served(model, init(jax.random.key(seed)), parameters=1, bytes=4)
            for seed in range(models)
        )
        routes, routed = tuple(range(models)), router if models > 1 else None
        return Bundle(tiny.config, tiny.config.model, schema, served, routes, routed)

    return make


@pytest.fixture(scope="module")
def optimised():
    """Programs that a module makes are compiled as users' are: its runs take longer than that."""
    original = jax.jit

    def jit(*arguments, **options):
        traced = isinstance(jnp.zeros(()), jax.core.Tracer)
        if not traced:  # a program inside another one takes no options
            options["compiler_options"] = USERS
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", jit)
        yield


@pytest.fixture(scope="session")
def fit_once(tmp_path_factory):
    """`fit_once(config, shape)`: a finished run on a synthetic log, which tests leave as it is.

    Modules that ask for the same one share it, and it is trained once.
    """
    done = {}

    def run(config, shape):
        if (config, shape) not in done:
            log = synthetic(shape)
            folder = tmp_path_factory.mktemp("once") / "run"
            done[config, shape] = SimpleNamespace(log=log, result=fit(config, log, folder))
        return done[config, shape]

    return run


@pytest.fixture(scope="session")
def unbound():
    """Lets a process that has just begun, and those that it starts, use all cores."""
    return lambda process: ALL_CORES and os.sched_setaffinity(process.pid, ALL_CORES)


@dataclass(frozen=True)
class Job:
    """Processes that run a part of processes_check.py together, or one of them.

    Attributes:
      folder: where they work.
      part: what they do.
      processes: the processes, in their order.
    """

    folder: Path
    part: str
    processes: list[subprocess.Popen[str]]

    def end(self) -> tuple[list[int], list[str]]:
        """The exit codes, and what each process said, once all have ended."""
        said = [process.communicate(timeout=600)[0] for process in self.processes]
        return [process.returncode for process in self.processes], said

    def found_and_said(self) -> tuple[list[dict[str, Any]], list[str]]:
        """What each process found, and what it said."""
        codes, said = self.end()
        assert codes == [0] * len(codes), "\n".join(said)
        paths = [self.folder / f"{self.part}_{i}.json" for i in range(len(codes))]
        return [json.loads(path.read_text()) for path in paths], said


@pytest.fixture(scope="session")
def job(unbound):
    """`job(folder, part)`: two processes at work, each with a CPU device.

    With `variables(number)`, of the environment of a process, they find each other by themselves.
    """
    begun = []

    def start(folder, part, count=2, devices=1, variables=None):
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
        script = Path(__file__).with_name("processes_check.py")
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{found.getsockname()[1]}" if variables is None else "auto"
        made = [
            subprocess.Popen(
                [sys.executable, "-W", "error", script, folder, part, address, str(i), str(count)],
                env=environment | (variables(i) if variables else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for i in range(count)
        ]
        for process in made:
            unbound(process)
        begun.extend(made)
        return Job(folder, part, made)

    yield start
    for process in begun:
        with process:  # closes its output, which a test may have left unread
            process.kill()


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
