"""Table 2: all selection methods on the same logs, click model, split and budget, over seeds.

Finished parts are kept, so the same command resumes where it stopped.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # where common and compare are

import dataclasses
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import LogComparison, Record, early_preset
from compare import Variant, validation_score
from rendering import tabulate

from ihas_jax.config import Config, differences, replaced
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, run_cli
from ihas_jax.method_config import MethodName
from ihas_jax.names import markdown
from ihas_jax.presets import search_of
from ihas_jax.reporting.report import METHODS

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


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """Compares the selection methods on prepared logs.

    The same command resumes after an interruption. Flags of --search hold for
    --method alone; the other methods have the values of the preset.
    """

    methods: tuple[MethodName, ...] = tuple(METHODS)
    """The methods; none, the base model, is always among them, as the first."""
    trials: int = 0
    """How many values each method tries on validation rows before its seeds are run; with 0 it
    has its default values."""
    output: Path = Path("runs/table2")
    """The folder of the runs, with a folder for each log."""
    results: Path = Path("experiments/results/table2")


def main() -> None:
    """Parses the command line, runs what is missing, writes the table after each log."""
    arguments = tyro.cli(Arguments, default=Arguments(config=early_preset()))
    arguments.require_pairs()
    if arguments.trials < 0:
        raise InputError(f"--trials must be at least 0, not {arguments.trials}.")
    order = [name for name in METHODS if name in ("none", *arguments.methods)]
    own = {
        method: differences(arguments.config, default_of(arguments, method)) for method in METHODS
    }
    chosen: list[str] = []

    def variants_of(name: str, data: Dataset) -> list[Variant]:
        folder = arguments.output / name
        variants = [variant_of(arguments, method, data, folder) for method in order]
        chosen.extend(
            f"{markdown(name)}, {variant.title}: {choice}."
            for variant in variants
            if (choice := choice_of(arguments, variant))
        )
        return variants

    tabulate(
        Record(arguments, {"trials": arguments.trials, "own": own}),
        arguments.data,
        "Table 2: selection methods",
        variants_of,
        lambda: _note(arguments, own, chosen),
    )


def variant_of(arguments: Arguments, method: MethodName, data: Dataset, folder: Path) -> Variant:
    """A method with its defaults, or with the best of its trials on validation rows."""
    default = default_of(arguments, method)
    fields = len(data.schema.names)
    trials = [default, *(drawn(default, fields, i) for i in range(1, arguments.trials))]
    config = default
    if len(trials) > 1:
        # a seed apart from those of the table
        tried = [dataclasses.replace(trial, seed=_TRIAL_SEED) for trial in trials]
        places = [folder / "trials" / f"{method}_{i}" for i in range(len(trials))]
        found = [validation_score(c, data, p) for c, p in zip(tried, places, strict=True)]
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
    """A config with values drawn from what its method may try on a log of that many fields."""
    rng = np.random.Generator(np.random.Philox(key=[trial, zlib.crc32(config.method.encode())]))
    space = _SHARED | _SPACES[config.method]
    if config.method in _FIELDS:
        space[_FIELDS[config.method]] = tuple(round(share * fields) for share in _FIELD_SHARES)
    for flag, values in space.items():
        config = replaced(config, flag, values[rng.integers(len(values))])
    return config


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
