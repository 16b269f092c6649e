"""All click models side by side: equation, parameters, time of a step, test AUC on real logs.

Times and parameters are those at the shape of the full Avazu log with the
default choices and row-wise updates; each model takes turns with the DNN. The AUC is read from the
results of `paper/table3_transfer.py --models all`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import jax
import tyro
from bench.common import Settings, configure, sizes_of, take_turns
from bench.steps import time_training
from bench.workload import draw_split

import ihas_jax as ihas
from ihas_jax.config import Config, ModelConfig, ModelName
from ihas_jax.errors import run_cli
from ihas_jax.models.base import count_parameters
from ihas_jax.progress import log
from ihas_jax.reporting.comparison import spread
from ihas_jax.reporting.report import provenance


@dataclass(frozen=True)
class Arguments:
    """Measures the click models and writes their table."""

    models: tuple[ModelName, ...] = get_args(ModelName)
    """Which models."""
    table3: Path = Path("experiments/results/table3.json")
    """Where the test AUC of each model stands."""
    results: Path = Path("experiments/results/models")
    """Where the table goes: this path with .md and .json at its end."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = field(
        default_factory=lambda: Settings(steps=5, turns=5)
    )
    """How large and how often."""


def main() -> None:
    """Reads the command line, measures, writes the table."""
    arguments = tyro.cli(Arguments)
    rows = []
    for name in arguments.models:
        log(f"[Models] {name}")
        rows.append(measure(ModelConfig(name), arguments.settings))
    scores: dict[str, Any] = {}
    if arguments.table3.exists():
        scores = json.loads(arguments.table3.read_text(encoding="utf-8"))["logs"]
    lines = [
        "# Click models",
        "",
        *_table(rows, scores),
        "",
        "Parameters and the time of a training step (row-wise, batch "
        f"{arguments.settings.batch_size}) at the shape of the full Avazu log, as a multiple of "
        "the DNN's in the same process, medians of turns; test AUC of the model as it is, mean ± "
        "standard deviation over seeds, from the results of table3_transfer.py.",
        "",
        *provenance(Config()),
        "",
    ]
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{arguments.results}.md").write_text("\n".join(lines), encoding="utf-8")
    Path(f"{arguments.results}.json").write_text(json.dumps({"models": rows}, indent=2) + "\n")
    print("\n".join(lines))


def equation(model: ihas.Model) -> str:
    """The equation that the docstring of a model's network begins with."""
    first = (type(model.network).__doc__ or "").partition("\n\n")[0]
    return " ".join(first.split()).removesuffix(".")


def measure(config: ModelConfig, settings: Settings) -> dict[str, Any]:
    """Equation, parameters, and milliseconds of a step beside the DNN's, at Avazu's shape."""
    sizes = sizes_of("avazu", settings.shrink)
    data = draw_split(sizes, settings.batch_size * settings.steps)
    optimizer = configure("rowwise").optimizer
    sides = {}
    for side, choices in (("model", config), ("dnn", ModelConfig())):
        model = ihas.build_model(choices, sizes)
        sides[side] = time_training(model, optimizer, data, settings)
    seconds = take_turns(sides, settings.turns)
    model = ihas.build_model(config, sizes)
    shapes = jax.eval_shape(lambda key: ihas.init_model(key, model), jax.random.key(0))
    return {
        "name": config.name,
        "equation": equation(model),
        "parameters": count_parameters(shapes[0]),
        "milliseconds": 1e3 * seconds["model"],
        "dnn milliseconds": 1e3 * seconds["dnn"],
        "ratio": seconds["model"] / seconds["dnn"],
    }


def _table(rows: list[dict[str, Any]], scores: dict[str, Any]) -> list[str]:
    lines = [
        f"| model | equation | parameters | step |{''.join(f' {name} |' for name in scores)}",
        f"|---|---|---:|---:|{'---:|' * len(scores)}",
    ]
    for row in rows:
        cells = [row["name"], row["equation"], f"{row['parameters']:,}", f"{row['ratio']:.2f}"]
        for models in scores.values():
            runs = models.get(row["name"], {}).get("original")
            cells.append(f"{spread([run['auc'] for run in runs]):.4f}" if runs else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    run_cli(main)
