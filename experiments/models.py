"""All click models side by side: equation, parameters, time of a step, test AUC on real logs.

Times and parameters are those at the shape of the full Avazu log with the default choices and
row-wise updates; each model takes turns with the DNN. On each log the models are trained as they
are, without selection, with several seeds.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import jax
import tyro
from bench.common import Settings, configure, sizes_of, take_turns
from bench.steps import time_training
from bench.workload import draw_split
from table_updates import train

import ihas_jax as ihas
from ihas_jax.cli import earlier_logs, early_preset, open_logs
from ihas_jax.config import Config, ModelConfig, ModelName, to_json
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import run_cli
from ihas_jax.files import write_json
from ihas_jax.models.base import count_parameters
from ihas_jax.names import markdown
from ihas_jax.presets import PresetName
from ihas_jax.progress import say
from ihas_jax.reporting.comparison import auc_spread
from ihas_jax.reporting.report import provenance
from ihas_jax.stages.parts import require_parts, write_results

Trained = dict[str, dict[str, list[dict[str, float]]]]
"""Test scores of each seed, by log and model."""


@dataclass(frozen=True)
class Arguments:
    """Trains and measures the click models. Run the same command again to go on."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    data: tuple[Path, ...] = ()
    """Folders made by prepare.py."""
    models: tuple[ModelName, ...] = get_args(ModelName)
    """Which models."""
    seeds: int = 3
    """How many seeds, from --seed on."""
    output: Path = Path("runs/models")
    """Folder of the trainings, one folder for each log, model and seed."""
    results: Path = Path("experiments/results/models")
    """Where the table goes: this path with .md and .json at its end."""
    preset: PresetName | None = None
    """Values that the other flags start from, as in run.py."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = field(
        default_factory=lambda: Settings(steps=5, turns=5)
    )


def main() -> None:
    """Reads the command line, trains and measures, writes the table."""
    arguments = tyro.cli(Arguments, default=Arguments(early_preset()))
    trained = earlier_logs(arguments.results, arguments.config, arguments.seeds, {})
    for folder, data in open_logs(arguments.data).items():
        models = trained.setdefault(folder, {})
        for name in arguments.models:
            if name not in models:
                models[name] = scores(arguments, folder, data, name)
                write(arguments, [], trained)
    rows = [
        measure(replace(arguments.config.model, name=name), arguments.settings)
        for name in arguments.models
    ]
    missing = write(arguments, rows, trained)
    require_parts(missing, f"{arguments.results}.json")
    print(Path(f"{arguments.results}.md").read_text(encoding="utf-8"))


def write(arguments: Arguments, rows: list[dict[str, Any]], trained: Trained) -> tuple[str, ...]:
    """Writes what is trained as JSON, and once models are measured the table as Markdown.

    Returns:
      The files that could not be made.
    """
    content = {"models": rows, "logs": trained, "seeds": arguments.seeds}
    content |= {"config": to_json(arguments.config)}
    if rows:
        return write_results(arguments.results, content, lambda: _lines(arguments, rows, trained))
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(f"{arguments.results}.json"), content)
    return ()


def _lines(arguments: Arguments, rows: list[dict[str, Any]], trained: Trained) -> list[str]:
    """The Markdown file's."""
    return [
        "# Click models",
        "",
        *_table(rows, trained),
        "",
        "Parameters, and the time of a training step (row-wise updates, batch "
        f"{arguments.settings.batch_size}) as a multiple of the DNN's in the same process, "
        "medians of turns: at the shape of the full Avazu log. Test AUC over "
        f"{arguments.seeds} seeds, mean ± standard deviation.",
        "",
        *provenance(arguments.config),
        "",
    ]


def scores(
    arguments: Arguments, folder: str, data: Dataset, name: ModelName
) -> list[dict[str, float]]:
    """Test scores of a model's trainings on a log, one for each seed; none of NCF without users."""
    model = replace(arguments.config.model, name=name)
    if name == "ncf" and data.schema.names[model.ncf_pair[0]] != "user":
        return []
    first, runs = arguments.config.seed, []
    for seed in range(first, first + arguments.seeds):
        say(f"[{folder}] {name}, seed {seed}")
        config = replace(arguments.config, model=model, seed=seed)
        workdir = arguments.output / folder / f"{name}_{seed}"
        runs.append(train(config, data, workdir))
    return runs


def equation(model: ihas.Model) -> str:
    """The equation that the docstring of a model's network begins with."""
    first = (type(model.network).__doc__ or "").partition("\n\n")[0]
    return " ".join(first.split()).removesuffix(".")


def measure(config: ModelConfig, settings: Settings) -> dict[str, Any]:
    """Equation, parameters, and milliseconds of a step beside the DNN's, at Avazu's shape."""
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
        "equation": equation(model),
        "parameters": count_parameters(shapes[0]),
        "milliseconds": 1e3 * seconds["model"],
        "dnn milliseconds": 1e3 * seconds["dnn"],
        "ratio": seconds["model"] / seconds["dnn"],
    }


def _table(rows: list[dict[str, Any]], trained: Trained) -> list[str]:
    logs = "".join(f" {markdown(name)} |" for name in trained)
    lines = [
        f"| model | equation | parameters | step |{logs}",
        f"|---|---|---:|---:|{'---:|' * len(trained)}",
    ]
    for row in rows:
        equation = row["equation"].replace("|", "\\|")
        cells = [row["name"], f"`{equation}`", f"{row['parameters']:,}", f"{row['ratio']:.2f}"]
        for models in trained.values():
            runs = models.get(row["name"], [])
            cells.append(auc_spread(runs) if runs else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    run_cli(main)
