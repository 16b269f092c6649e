"""Table 2: all selection methods on the same logs, click model, split and budget, over seeds.

Finished parts are kept, so the same command goes on where it stopped.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import dataclasses
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rendering import write
from variants import Shared, Table, Variant, save_scores, score_all

from ihas_jax.cli import earlier_logs, early_preset, open_logs
from ihas_jax.config import Config, differences, replaced
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, run_cli
from ihas_jax.method_config import MethodName
from ihas_jax.names import markdown
from ihas_jax.presets import PresetName, search_of
from ihas_jax.progress import say
from ihas_jax.reporting.report import METHODS
from ihas_jax.serving.bundle import load_bundle
from ihas_jax.stages.parts import require_parts
from ihas_jax.stages.pipeline import fit
from ihas_jax.training.metrics import score

PAPER = {
    "none": {"avazu": (0.7765, 0.3818)},
    "pep": {"avazu": (0.7665, 0.3874), "criteo": (0.8006, 0.4507)},
    "autofield": {"avazu": (0.7773, 0.3813), "criteo": (0.8029, 0.4490)},
    "optembed": {"avazu": (0.7630, 0.3894), "criteo": (0.7962, 0.4543)},
    "adafs_soft": {"avazu": (0.7777, 0.3812), "criteo": (0.8039, 0.4484)},
    "adafs_hard": {"avazu": (0.7763, 0.3821), "criteo": (0.8031, 0.4560)},
    "optfs": {"avazu": (0.7724, 0.3840), "criteo": (0.8015, 0.4504)},
    "ihas": {"avazu": (0.7815, 0.3791), "criteo": (0.8043, 0.4478)},
}
"""AUC and logloss of the paper's Table 2 (base: Table 4), on the full logs."""
_SHARED: dict[str, tuple[Any, ...]] = {
    "optimizer.learning_rate": (3e-4, 1e-3, 3e-3),
    "optimizer.l2": (0.0, 1e-6, 1e-5, 1e-4),
}
_SPACES: dict[MethodName, dict[str, tuple[Any, ...]]] = {
    "none": {},
    "pep": {"pep.kept": (0.2, 0.4, 0.6, 0.8, 0.9), "pep.epochs": (10, 20, 40)},
    "autofield": {"autofield.weights": ("softmax", "gumbel"), "search.gate_every": (2, 5, 10)},
    "optembed": {"optembed.reach": (0.3, 1.0, 3.0), "optembed.weight": (1e-4, 1e-3, 1e-2)},
    "adafs_soft": {"adafs.relu": (True, False), "search.gate_every": (2, 5, 10)},
    "adafs_hard": {"adafs.relu": (True, False), "search.gate_every": (2, 5, 10)},
    "optfs": {
        "optfs.epochs": (5, 10, 15),
        "optfs.temperature": (200.0, 1000.0, 5000.0),
        "optfs.weight": (1e-3, 1e-2, 1e-1),
    },
    "autodim": {"autodim.dims": ((2, 4, 8, 16), (4, 8, 16), (8, 16))},
    "sseds": {"sseds.kept": (0.1, 0.25, 0.5, 0.75, 0.9)},
    "dimreg": {"dimreg.weight": (0.01, 0.1, 1.0), "dimreg.l1_ratio": (0.5, 1.0, 1.7)},
    "ihas": {
        "gates.l0_weight": (0.4, 0.8, 1.0, 1.2),
        "gates.weight": (1e-4, 1e-3, 1e-2),
        "retrain.warm_start": (False, True),
    },
}
"""What --trials chooses from: of every method its own values, and those that all share."""
_FIELDS: dict[MethodName, str] = {"autofield": "autofield.fields", "adafs_hard": "adafs.fields"}
_FIELD_SHARES = (0.25, 0.5, 0.75)
"""And of how many fields a method keeps, as shares of all."""
_TRIAL_SEED = 10_000


@dataclass(frozen=True)
class Arguments:
    """Compares the selection methods on prepared logs. Run the same command again to go on.

    Flags of --search are those of --method alone; the other methods have those of the preset.
    """

    data: tuple[Path, ...]
    """Folders made by prepare.py."""
    config: Annotated[Config, tyro.conf.arg(name="")]
    methods: tuple[MethodName, ...] = tuple(METHODS)
    """The methods; none, the base model, always comes first."""
    seeds: int = 3
    """How many seeds, from --seed on."""
    trials: int = 0
    """Values that each method tries on validation rows before its seeds are run (0: defaults)."""
    output: Path = Path("runs/table2")
    """Folder of the runs, one folder for each log."""
    results: Path = Path("experiments/results/table2")
    """Where the table goes: this path with .md, .json and .png at its end."""
    preset: PresetName | None = None
    """Values that the other flags start from, as in run.py."""


def main() -> None:
    """Parses the command line, runs what is missing, writes the table after each log."""
    arguments = tyro.cli(Arguments, default=Arguments((), early_preset()))
    if arguments.seeds < 2 or not arguments.data or arguments.trials < 0:
        raise InputError(
            "Name at least one log by --data, and at least 2 --seeds to compare; --trials must not "
            "be negative."
        )
    order = [name for name in METHODS if name in ("none", *arguments.methods)]
    own = {
        method: differences(arguments.config, default_of(arguments, method)) for method in METHODS
    }
    besides = {"trials": arguments.trials, "own": own}
    shared = Shared(arguments.config, arguments.seeds, besides)
    table: Table = earlier_logs(arguments.results, arguments.config, arguments.seeds, besides)
    chosen: list[str] = []
    inference: dict[str, dict[str, float]] = {}
    seeds = range(arguments.config.seed, arguments.config.seed + arguments.seeds)

    def keep() -> None:
        save_scores(arguments.results, table, shared)

    for name, data in open_logs(arguments.data).items():
        folder, scores = arguments.output / name, table.setdefault(name, {})
        variants = [variant_of(arguments, method, data, folder) for method in order]
        chosen += [
            f"{markdown(name)}, {v.title}: {c}." for v in variants if (c := choice_of(arguments, v))
        ]
        inference[name] = score_all(variants, data, folder, seeds, scores, keep)
        missing = write(
            arguments.results, "Table 2: selection methods", variants, table, inference,
            shared, _note(arguments, own, chosen),
        )  # fmt: skip
    require_parts(missing, f"{arguments.results}.json")
    print(Path(f"{arguments.results}.md").read_text(encoding="utf-8"))


def variant_of(arguments: Arguments, method: MethodName, data: Dataset, folder: Path) -> Variant:
    """A method with its defaults, or with the best of its trials on validation rows."""
    default = default_of(arguments, method)
    fields = len(data.schema.names)
    trials = [default, *(drawn(default, fields, i) for i in range(1, arguments.trials))]
    config = default
    if len(trials) > 1:
        found = [
            validation_score(trial, data, folder / "trials" / f"{method}_{i}")
            for i, trial in enumerate(trials)
        ]
        config = trials[int(np.argmax(found))]
    key = "base" if method == "none" else method
    return Variant(method, method, METHODS[method], config, key, PAPER.get(method, {}))


def default_of(arguments: Arguments, method: MethodName) -> Config:
    """The config of a method without trials."""
    config = arguments.config
    if method in ("none", config.method):
        return dataclasses.replace(config, method=method)
    search = search_of(method, arguments.preset or "paper")
    return dataclasses.replace(config, method=method, search=search)


def choice_of(arguments: Arguments, variant: Variant) -> str:
    """The values that a method's trials chose, as they differ from its defaults."""
    return "; ".join(differences(default_of(arguments, variant.config.method), variant.config))


def drawn(config: Config, fields: int, trial: int) -> Config:
    """A config with values drawn from what its method may try on a log of so many fields."""
    rng = np.random.Generator(np.random.Philox(key=[trial, zlib.crc32(config.method.encode())]))
    space = _SHARED | _SPACES[config.method]
    if config.method in _FIELDS:
        space[_FIELDS[config.method]] = tuple(round(share * fields) for share in _FIELD_SHARES)
    for flag, values in space.items():
        config = replaced(config, flag, values[rng.integers(len(values))])
    return config


def validation_score(config: Config, data: Dataset, workdir: Path) -> float:
    """AUC on validation rows of what a run predicts, with a seed apart from the table's.

    The lowest of all where the run fails.
    """
    try:
        fit(dataclasses.replace(config, seed=_TRIAL_SEED), data, workdir)
    except InputError as error:
        say(f"[Trials] {workdir.name} can't run: {error}")
        return float("-inf")
    probs = load_bundle(workdir).predict_ids(data.valid.ids)
    return score(data.valid.labels, probs).objective


def _note(arguments: Arguments, own: dict[MethodName, list[str]], chosen: list[str]) -> str:
    differing = [
        f"{METHODS[method]}, {'; '.join(values)}."
        for method, found in own.items()
        if (values := [value for value in found if not value.startswith("method:")])
    ]
    defaults = f"Defaults that differ from the values below: {' '.join(differing)}"
    if not arguments.trials:
        return f"Every method has its default values. {defaults}"
    return (
        f"Every method has the best of {arguments.trials} trials on validation rows, of which the "
        "first are its defaults; methods whose gates learn on validation rows have seen them "
        f"before. {defaults} Chosen instead of defaults: {' '.join(chosen) or 'nothing.'}"
    )


if __name__ == "__main__":
    run_cli(main)
