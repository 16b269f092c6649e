"""All click models side by side: equation, parameters, time of a step, test AUC on real logs.

Times and parameters are measured at the shape of the full Avazu log with the default choices and
row-wise updates; each model takes turns with the DNN. On each log the models are trained without
selection, with several seeds, and learn from teachers if there are any. The same command resumes
after an interruption.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import common
import jax
import tyro
from bench.common import Settings
from bench.steps import time_training
from bench.workload import configure, draw_split, sizes_of
from command_line import parse
from compare import Variant, score_logs
from comparison import LogComparison, Record
from reference import STUDENT, full_size

import ihas_jax as ihas
from ihas_jax.config import ModelConfig
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import run_cli
from ihas_jax.flags import replaced
from ihas_jax.models import MODELS
from ihas_jax.models.base import count_parameters
from ihas_jax.names import markdown
from ihas_jax.progress import say
from ihas_jax.stages.speed import take_turns


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    models: tuple[str, ...] = ()
    """The click models, by default all; ncf is trained only if the first of its fields is user."""
    output: Path = Path("runs/models")
    settings: tyro.conf.OmitArgPrefixes[Settings] = field(
        default_factory=lambda: Settings(steps=5, turns=5)
    )


def main() -> None:
    """Reads the command line, trains and measures, writes the table."""
    arguments = parse(Arguments, __doc__)
    names = arguments.models or tuple(MODELS)
    for name in names:
        MODELS.find(name)
    taught = bool(arguments.config.retrain.teachers)
    start = full_size(arguments.config) if taught else arguments.config
    configs = {name: replaced(start, "model.name", name) for name in names}
    key = STUDENT if taught else ""
    variants = [Variant(name, name, name, config, key) for name, config in configs.items()]
    record = Record(arguments)
    for _ in score_logs(record, lambda name, data: [v for v in variants if _carries(data, v)]):
        pass
    rows = [measure(config.model, arguments.settings) for config in configs.values()]
    content = record.content | {"models": rows}
    missing = common.write_results(
        arguments.destination, content, lambda: _lines(arguments, rows, record.logs)
    )
    common.print_results(arguments.destination, missing)


def _carries(data: Dataset, variant: Variant) -> bool:
    model = variant.config.model
    return model.name != "ncf" or data.schema.names[model.ncf_pair[0]] == "user"


def _lines(arguments: Arguments, rows: Sequence[dict[str, Any]], logs: dict[str, Any]) -> list[str]:
    cells = [
        [
            row["name"],
            f"`{row['equation']}`".replace("|", "\\|"),
            f"{row['parameters']:,}",
            f"{row['ratio']:.2f}",
            *(
                common.spread_cell(runs, "auc") if (runs := scores.get(row["name"])) else ""
                for scores in logs.values()
            ),
        ]
        for row in rows
    ]
    headers = ("model", "equation", "parameters", "step", *map(markdown, logs))
    teachers = arguments.config.retrain.teachers
    about = (
        "Parameters, and the time of a training step (row-wise updates, batch "
        f"{arguments.settings.batch_size}) as a multiple of the DNN's in the same process, "
        "medians of turns: at the shape of the full Avazu log. Test AUC over "
        f"{arguments.seeds} seeds, mean ± standard deviation"
        + (f", taught by {' '.join(teachers)}." if teachers else ".")
    )
    body = [*common.markdown_table(headers, cells, texts=(0, 1)), "", about]
    return common.report("Click models", body, arguments.config)


def measure(config: ModelConfig, settings: Settings) -> dict[str, Any]:
    """Equation, parameters, and the time of a step against the DNN's, at Avazu's shape."""
    say(f"[Models] {config.name}")
    sizes = sizes_of("avazu", settings.shrink)
    data = draw_split(sizes, settings.batch_size * settings.steps)
    optimizer = configure("rowwise").optimizer
    sides = {}
    for side, choices in (("model", config), ("dnn", replace(config, name="dnn"))):
        model = ihas.build_model(choices, sizes)
        sides[side] = time_training(model, optimizer, data, settings)
    seconds = take_turns(sides, settings.turns)
    model = ihas.build_model(config, sizes)
    shapes = jax.eval_shape(lambda key: ihas.init_model(key, model), jax.random.key(0))
    return {
        "name": config.name,
        "equation": MODELS[config.name].equation,
        "parameters": count_parameters(shapes[0]),
        "milliseconds": 1e3 * seconds["model"],
        "dnn milliseconds": 1e3 * seconds["dnn"],
        "ratio": seconds["model"] / seconds["dnn"],
    }


if __name__ == "__main__":
    run_cli(main)
