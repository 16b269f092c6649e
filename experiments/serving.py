"""Rows per second of a model in production: onnxruntime, the bundle and PyTorch on equal weights.

The models are a DNN, and two DNNs of half the coordinates behind a compiled router. Their weights
are drawn, since time does not depend on them. Measures of speed start from the beginning.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import common
import jax
import numpy as np
import tyro
from bench.common import HAS_TORCH, Side
from bench.workload import Shape, sizes_of

from ihas_jax.config import Config, ModelConfig
from ihas_jax.data.schema import Field, Schema
from ihas_jax.errors import InputError, run_cli
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, NETWORK
from ihas_jax.models.forward import init_model
from ihas_jax.progress import say
from ihas_jax.selectors.by_value import ScoreRouter
from ihas_jax.serving.bundle import Bundle, Served
from ihas_jax.serving.export.check import TOLERANCE
from ihas_jax.serving.export.folder import export
from ihas_jax.stages.speed import take_turns

_TURN_ROWS, _MOST_CALLS = 1 << 17, 300
Predict = Callable[[np.ndarray], np.ndarray]
"""Click probabilities `[n]` of ids `[n, N]` int32."""
_ABOUT = (
    "Thousands of rows per second, by batch: medians over turns that all sides took in one process "
    "with as many threads as each takes by itself. The models have vectors of 16 numbers and "
    "layers of 16 and 8; 'routed' are two models of half the coordinates behind a compiled router. "
    "Ids, drawn evenly, go in and probabilities come out; encoding of raw rows is not counted. The "
    "sides answer alike to 1e-5."
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags."""

    shapes: tuple[Shape, ...] = ("criteo", "avazu")
    """The fields and their numbers of values: those of a log."""
    batches: tuple[int, ...] = (1, 256, 65536)
    """The numbers of rows of a call."""
    turns: int = 7
    """The number of turns of each side, whose median counts."""
    shrink: int = 1
    """A divisor of the numbers of values, for a quick look."""
    results: Path = Path("runs/serving/results")
    """The path of the results, without their endings .md and .json."""


def main() -> None:
    """Reads the command line, measures, writes the table."""
    arguments = tyro.cli(Arguments, description=__doc__)
    if min(arguments.batches, default=0) < 1 or arguments.turns < 1 or arguments.shrink < 1:
        raise InputError("--batches, --turns and --shrink are numbers of 1 or more.")
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for shape in arguments.shapes:
        sizes = sizes_of(shape, arguments.shrink)
        base, routed = _bundles(sizes)
        for name, bundle in (("DNN", base), ("routed", routed)):
            say(f"[{shape}, {name}]")
            sides = sides_of(bundle)
            by_batch = {str(rows): measure(sides, sizes, rows, arguments.turns)
                        for rows in arguments.batches}  # fmt: skip
            found.setdefault(shape, {})[name] = by_batch
    content = {"rows_per_second": found, "turns": arguments.turns, "shrink": arguments.shrink}
    missing = common.write_results(arguments.results, content, lambda: _lines(found))
    common.print_results(arguments.results, missing)


def _bundles(sizes: tuple[int, ...]) -> tuple[Bundle, Bundle]:
    """A DNN, and two of half the coordinates behind a compiled router."""
    rng, config = np.random.default_rng(0), Config()
    fields = (Field(f"f{n}", tuple(map(str, range(size - 1)))) for n, size in enumerate(sizes))
    schema = Schema("label", tuple(fields))

    def served(seed: int, **shape: Any) -> Served:
        model = build_model(config.model, sizes, **shape)
        return Served(model, init_model(jax.random.key(seed), model), 0, 0)

    def half() -> tuple[tuple[int, ...], ...]:
        dim = config.model.dim
        return tuple(tuple(sorted(rng.permutation(dim)[: dim // 2].tolist())) for _ in sizes)

    scores = rng.integers(-99, 100, size=(1, sum(sizes))).astype(np.int16)
    first = np.array([0, *accumulate(sizes[:-1])], np.int32)
    router = ScoreRouter(np.zeros(1, np.int32), scores, first)
    two = served(1, kept=half()), served(2, kept=half())
    base = Bundle(config, config.model, schema, (served(0),))
    return base, Bundle(config, config.model, schema, two, (0, 1), router)


def sides_of(bundle: Bundle) -> dict[str, Predict]:
    """What predicts by a bundle; PyTorch has no routed models."""
    sides = {"onnxruntime": by_onnx(bundle), "bundle": bundle.predict_ids}
    if HAS_TORCH and len(bundle.models) == 1:
        sides["torch"] = by_torch(bundle)
    return sides


def by_onnx(bundle: Bundle) -> Predict:
    """Predictions of the exported bundle by onnxruntime."""
    with tempfile.TemporaryDirectory() as folder:
        export(bundle, Path(folder) / "model")  # which needs onnxruntime, too
        import onnxruntime

        path = Path(folder) / "model" / "model.onnx"
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda ids: np.asarray(session.run(["probability"], {"ids": ids})[0])


def by_torch(bundle: Bundle) -> Predict:
    """Predictions of a DNN with the weights of a bundle's model by eager PyTorch."""
    import torch
    from bench.torch_baseline import ClickModel

    config: ModelConfig = bundle.config.model
    model, params = ClickModel(bundle.schema.sizes, config), bundle.models[0].variables.params
    (table,) = params["tables"][EMBEDDING].values()
    layers = [*params[NETWORK]["mlp"].values()]
    linear = [part for part in model.mlp if isinstance(part, torch.nn.Linear)]
    with torch.no_grad():
        model.embedding.weight.copy_(torch.tensor(np.asarray(table)))
        for own, layer in zip(linear, layers, strict=True):
            own.weight.copy_(torch.tensor(np.asarray(layer["kernel"]).T))
            own.bias.copy_(torch.tensor(np.asarray(layer["bias"])))

    def predict(ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(ids)).sigmoid().numpy())

    return predict


def measure(
    sides: Mapping[str, Predict], sizes: tuple[int, ...], rows: int, turns: int
) -> dict[str, float]:
    """Rows per second of each side in calls of as many rows.

    Raises:
      InputError: a side answers otherwise than the first one.
    """
    rng = np.random.default_rng(rows)
    ids = np.stack([rng.integers(size, size=rows) for size in sizes], axis=1).astype(np.int32)
    answers = [predict(ids) for predict in sides.values()]
    if any(np.abs(other - answers[0]).max() > TOLERANCE for other in answers):
        raise InputError(f"The sides {', '.join(sides)} answer differently: a defect.")
    calls = max(1, min(_MOST_CALLS, _TURN_ROWS // rows))

    def side(predict: Predict) -> Side:
        def turn() -> float:
            start = time.perf_counter()
            for _ in range(calls):
                predict(ids)
            return (time.perf_counter() - start) / calls

        return turn

    seconds = take_turns({name: side(predict) for name, predict in sides.items()}, turns)
    return {name: rows / taken for name, taken in seconds.items()}


def _lines(found: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> list[str]:
    names = ("onnxruntime", "bundle", "torch")
    rows = [
        [
            *(shape, model, f"{int(batch):,}"),
            *(f"{sides[name] / 1e3:,.1f}" if name in sides else "" for name in names),
        ]
        for shape, models in found.items()
        for model, batches in models.items()
        for batch, sides in batches.items()
    ]
    table = common.markdown_table(("log", "model", "batch", *names), rows, texts=(0, 1))
    packages = ("onnxruntime", "torch") if HAS_TORCH else ("onnxruntime",)
    also = f"- measured with {', '.join(f'{name} {version(name)}' for name in packages)}"
    title = "# Rows per second in production"
    return [title, "", _ABOUT, "", *table, "", *common.machine(), also, ""]


if __name__ == "__main__":
    run_cli(main, interrupted="Nothing was written; the same command starts from the beginning.")
