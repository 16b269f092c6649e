"""What memory and arithmetic allow a step, and where its time goes."""

from __future__ import annotations

import re
import tempfile
import time
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import ihas_jax as ihas
from bench.common import Row, Settings, Side
from bench.steps import our_round, our_training
from bench.workload import Shape, configure, draw_split, sizes_of
from ihas_jax.config import Config
from ihas_jax.data.dataset import Split
from ihas_jax.stages.speed import take_turns


def measure_limit(settings: Settings, shape: Shape = "criteo") -> Row:
    """The row-wise training step against the limits of memory and arithmetic.

    Bytes: ids and labels once, and for each distinct row of a batch table and moments read and
    written. Flops: three products for each layer. Bandwidth is that of adding one to a large
    array in place, the flop rate that of a large square product in the default precision; both
    are repeated inside one dispatch. They take turns with the step, and so leave it none of its
    data in the caches.
    """
    sizes = sizes_of(shape, settings.shrink)
    config = Config()
    data = draw_split(sizes, settings.batch_size * settings.steps)
    seconds = take_turns(
        {
            "rowwise": our_training(sizes, data, "rowwise", settings),
            "add": _bandwidth(),
            "product": _flop_rate(),
        },
        settings.turns,
    )
    distinct = _distinct(sizes, data, settings)
    width = config.model.dim * 4
    moved = distinct * 3 * 2 * width + settings.batch_size * (len(sizes) * 4 + 1)
    layers = (len(sizes) * config.model.dim, *config.model.hidden, 1)
    flops = 3 * 2 * settings.batch_size * sum(a * b for a, b in pairwise(layers))
    bandwidth, rate = 1 / seconds["add"], 1 / seconds["product"]
    values = {
        "rowwise": 1e3 * seconds["rowwise"],
        "memory floor": 1e3 * moved / bandwidth,
        "arithmetic floor": 1e3 * flops / rate,
    }
    facts = {
        "distinct rows in a batch": distinct,
        "bytes": moved,
        "flops": flops,
        "bandwidth GB/s": bandwidth / 1e9,
        "GFLOP/s": rate / 1e9,
        "step over the memory floor": values["rowwise"] / values["memory floor"],
        "step over the arithmetic floor": values["rowwise"] / values["arithmetic floor"],
    }
    return Row(f"training step and its limits, {shape} shape", "ms", values, facts=facts)


def _distinct(sizes: tuple[int, ...], data: Split, settings: Settings) -> int:
    offsets = np.cumsum((0, *sizes[:-1]))
    batches = (data.ids + offsets).reshape(settings.steps, -1)
    return int(np.mean([len(np.unique(batch)) for batch in batches]))


def _bandwidth() -> Side:
    """Seconds per byte moved."""
    array, repeats = jnp.ones(1 << 26), 4
    # in place: fresh memory would cost more than moving the bytes
    add = jax.jit(lambda a: lax.fori_loop(0, repeats, lambda _, x: x + 1.0, a), donate_argnums=0)

    def turn() -> float:
        nonlocal array
        start = time.perf_counter()
        array = jax.block_until_ready(add(array))
        return (time.perf_counter() - start) / (2 * array.nbytes * repeats)

    return turn


def _flop_rate() -> Side:
    """Seconds per flop of a large square product."""
    size, repeats = (1024, 5) if jax.default_backend() == "cpu" else (8192, 20)
    matrix = jax.random.normal(jax.random.key(0), (size, size)) / size**0.5
    products = jax.jit(lambda a: lax.fori_loop(0, repeats, lambda _, x: x @ a, a))

    def turn() -> float:
        start = time.perf_counter()
        jax.block_until_ready(products(matrix))
        return (time.perf_counter() - start) / (repeats * 2 * size**3)

    return turn


def measure_breakdown(settings: Settings, shape: Shape = "criteo") -> Row:
    """Where the time of a row-wise step goes, from a profiler trace of one round."""
    from jax.profiler import ProfileData

    sizes = sizes_of(shape, settings.shrink)
    data = draw_split(sizes, settings.batch_size * settings.steps)
    config = configure("rowwise")
    model = ihas.build_model(config.model, sizes)
    round_, state, arguments = our_round(model, config.optimizer, data, settings)
    compiled = round_.lower(state, *arguments).compile()
    state, _ = jax.block_until_ready(compiled(state, *arguments))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(compiled(state, *arguments))
        (file,) = Path(folder).rglob("*.xplane.pb")
        trace = ProfileData.from_file(str(file))
    parts = _parts_of(compiled.as_text())
    spent: Counter[str] = Counter()
    with warnings.catch_warnings():
        # JAX's profiler makes a type without __module__: Python 3.12 aborts if warnings are errors
        warnings.simplefilter("ignore", DeprecationWarning)
        for event in (e for plane in trace.planes for line in plane.lines for e in line.events):
            name = dict(event.stats).get("hlo_op", "")
            if name in parts:
                spent[parts[name]] += event.duration_ns / 1e6 / settings.steps
    values = {name: float(value) for name, value in spent.most_common()}
    return Row(f"parts of the training step, {shape} shape", "ms of one core", values, ours="")


def _parts_of(text: str) -> dict[str, str]:
    """Part of the step of each instruction in a compiled program's text, but for loops."""
    parts = {}
    for line in text.splitlines():
        found = re.match(r"\s*(?:ROOT )?%([\w.-]+) = .*?\b(\w[\w-]*)\(", line)
        if not found or found[2] in ("while", "call", "conditional"):
            continue
        scope = re.search(r'op_name="([^"]*)"', line)
        parts[found[1]] = _part(scope[1] if scope else "")
    return parts


def _part(scope: str) -> str:
    if "transpose(jvp" in scope:
        return "backward"
    if "jvp(" in scope:
        return "forward"
    for name in ("update", "gather"):
        if name in scope.split("/"):
            return name
    return "other"
