"""Figure 4: the time of predicting the whole test split, by each method, with test AUC beside it.

All that prediction needs is counted, routing included. iHAS is there with its exact router and with
a compiled one, which has a goal: at most the base model's time, and the exact router's AUC. The
same command resumes trainings after an interruption; times are measured anew by each call. Flags
of --search apply to the method that --method names; the others have the values of the preset.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # where common and compare are

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
from command_line import parse
from compare import Variant, score_logs
from comparison import LogComparison, Record
from inference import COMPILED, EXACT, NONE
from inference_table import write
from reference import reference_of
from timing import time_inference

from ihas_jax.config import differences
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import run_cli
from ihas_jax.files import read_json
from ihas_jax.flags import replaced
from ihas_jax.pipeline.idle import for_method
from ihas_jax.presets import PresetName
from ihas_jax.reporting.scores import titles
from ihas_jax.selectors.registry import METHODS

_TURNS = 41


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    preset: PresetName | None = "small"
    """The values that the other flags start from."""
    methods: tuple[str, ...] = ()
    """The methods to compare, by default all; the base model and iHAS are always among them."""
    output: Path = Path("runs/figure4")
    """The folder of the runs, in which each run has a folder; runs that Table 2 left in it are not
    run again."""


def main() -> None:
    """Parses the command line, runs what is missing, measures, writes results after each log."""
    arguments = parse(Arguments, __doc__)
    arguments.require_logs()
    variants = variants_of(arguments)
    own = {v.name: differences(arguments.config, v.config) for v in variants}
    record = Record(arguments, {"own": own, **reference_of(arguments.config).identity})
    measured: dict[str, dict[str, Any]] = {}
    missing: tuple[str, ...] = ()
    for name, data, _ in score_logs(record, lambda name, data: variants, leave_out=True):
        scored = [variant for variant in variants if variant.name in record.logs[name]]
        measured[name] = measure(arguments, scored, name, data)
        missing = write(record, variants, measured, _TURNS)
    common.print_results(arguments.destination, missing)


def variants_of(arguments: Arguments) -> list[Variant]:
    """The models that are compared, the base model first and iHAS with its two routers last."""
    for method in arguments.methods:
        METHODS.find(method, "methods")
    reference, ihas = reference_of(arguments.config), arguments.config_of(EXACT)
    base = Variant(NONE, NONE, reference.title, arguments.config_of(NONE), reference.key)
    others = [m for m in METHODS if m != EXACT and m in (arguments.methods or METHODS)]

    def routed(name: str, router: str) -> Variant:
        config = for_method(replaced(ihas, "cluster.router", router))
        return Variant(name, name, f"iHAS, {router} router", config, EXACT)

    return [
        base,
        *(Variant(m, m, titles()[m], arguments.config_of(m), m) for m in others),
        routed(EXACT, "exact"),
        routed(COMPILED, "compiled"),
    ]


def measure(
    arguments: Arguments, variants: Sequence[Variant], name: str, data: Dataset
) -> dict[str, Any]:
    """Microseconds per test row of each variant by seed, and in which seeds the router is compiled.

    A compiled router that agrees too little with the exact one is not kept.
    """
    folder = arguments.output / name
    times = [time_inference(variants, data, folder, seed, _TURNS) for seed in arguments.seed_range]
    there = COMPILED in {variant.name for variant in variants}
    runs = [folder / f"{COMPILED}_{seed}" for seed in arguments.seed_range if there]
    return {
        "test_rows": len(data.test.labels),
        "microseconds": {v.name: [time[v.name] for time in times] for v in variants},
        "compiled": [read_json(run / "metrics.json")["router"]["kept"] for run in runs],
    }


if __name__ == "__main__":
    run_cli(main)
