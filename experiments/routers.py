"""The compiled router beside the exact one: AUC, agreement, size and time.

Both route the clusters of one search. The same command resumes after an interruption.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import common
import numpy as np
from command_line import parse
from compare import run_alone
from comparison import LogComparison, Record
from timing import take_turns_in_predicting

from ihas_jax.config import Config
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, run_cli
from ihas_jax.flags import replaced
from ihas_jax.names import markdown
from ihas_jax.pipeline.idle import for_method
from ihas_jax.presets import PresetName
from ihas_jax.progress import say
from ihas_jax.reporting.comparison import spread
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.storage import load_bundle

Router = Literal["exact", "compiled"]
_HEADERS = (
    *("log", "C", "exact router, AUC", "compiled, AUC", "p", "compiled, logloss", "p"),
    *("agreement", "parameters", "µs of routing", "time, exact", "time, compiled"),
)
_ABOUT = (
    "Means over the seeds with standard deviations, on test rows. 'Compiled' are differences of "
    "the same seed from the exact router, and p is that of a paired t-test. 'Agreement' is the "
    "share of rows that both routers send to the same cluster. 'Parameters' are those of the "
    "exact and of the compiled router, 'µs of routing' their microseconds per row. The last two "
    "columns are the time of a whole prediction of all test rows, routing included, over that of "
    "the base model; all models of the first seed took turns. "
)
Scores = dict[str, dict[str, list[dict[str, Any]]]]
"""By number of clusters and router: facts by seed."""


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    preset: PresetName | None = "small"
    """The values that the other flags start from."""
    clusters: tuple[int, ...] = (2, 4)
    """The numbers of clusters."""
    seeds: int = 5
    """The number of seeds, from --seed on."""
    output: Path = Path("runs/routers")


def main() -> None:
    """Parses the command line, runs what is missing, writes the table after each log."""
    arguments = parse(Arguments, __doc__)
    arguments.require_pairs()
    if arguments.config.method != "ihas" or min(arguments.clusters, default=0) < 2:
        raise InputError("Routers of iHAS are compared: leave --method out, and name --clusters 2.")
    record = Record(arguments, {"clusters": list(arguments.clusters)})
    times: dict[str, dict[str, float]] = {}
    missing: tuple[str, ...] = ()
    for name, data in arguments.open_logs().items():
        scores: Scores = record.scores_of(name, data)
        for number in arguments.clusters:
            kinds = scores.setdefault(str(number), {"exact": [], "compiled": []})
            for seed in arguments.seed_range[len(kinds["compiled"]) :]:
                for kind, facts in score(arguments, data, name, number, seed).items():
                    kinds[kind].append(facts)
                record.save()
        times[name] = time_predictions(arguments, data, name)
        missing = _write(record, times)
    common.print_results(arguments.destination, missing)


def score(
    arguments: Arguments, data: Dataset, name: str, number: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Facts of iHAS with each router."""
    sources = [
        folder_of(arguments, name, other, kind, seed)
        for other in arguments.clusters
        for kind in get_args(Router)
    ]
    found = {}
    for kind in get_args(Router):
        say(f"[{name}, {number} clusters, {kind} router, seed {seed}]")
        folder = folder_of(arguments, name, number, kind, seed)
        config = config_of(arguments.config, number, kind, seed)
        metrics = run_alone(config, data, folder, (one for one in sources if one != folder))
        found[kind] = metrics["ihas"] | {"router": metrics.get("router")}
    return found


def config_of(config: Config, number: int, kind: Router, seed: int) -> Config:
    """The config of iHAS with a router."""
    own = replaced(replace(config, seed=seed), "cluster.clusters", number)
    return for_method(replaced(own, "cluster.router", kind))


def folder_of(arguments: Arguments, name: str, number: int, kind: Router, seed: int) -> Path:
    """The folder of a run."""
    return arguments.output / name / f"{kind}_{number}_{seed}"


def time_predictions(arguments: Arguments, data: Dataset, name: str) -> dict[str, float]:
    """Microseconds per test row of the base model and of iHAS with each router, by turns."""
    seed = arguments.config.seed
    bundles: dict[str, Bundle] = {"base": base_of(arguments, data, name)}
    for number in arguments.clusters:
        for kind in get_args(Router):
            folder = folder_of(arguments, name, number, kind, seed)
            bundles[f"{kind}_{number}"] = load_bundle(folder)
    predictors = {key: one.predict_ids for key, one in bundles.items()}
    return take_turns_in_predicting(predictors, data.test.ids)


def base_of(arguments: Arguments, data: Dataset, name: str) -> Bundle:
    """The bundle of the base model that the runs of the first seed have."""
    seed = arguments.config.seed
    folder = arguments.output / name / f"base_{seed}"
    config = replace(arguments.config, method="none", seed=seed, options=())
    first = folder_of(arguments, name, arguments.clusters[0], "exact", seed)
    run_alone(config, data, folder, [first])
    return load_bundle(folder)


def row_of(
    name: str, number: str, kinds: Mapping[str, common.Runs], times: Mapping[str, float]
) -> list[str]:
    """The row of a log and a number of clusters."""
    exact, compiled = kinds["exact"], kinds["compiled"]
    cells = [name, number, common.spread_cell(exact, "auc")]
    for metric in ("auc", "logloss"):
        cells += common.gain_cells(exact, compiled, metric)
    routers = [run["router"] for run in compiled]
    kept = [one for one in routers if one["kept"]]
    if not kept:
        share = f"{spread([one['agreement'] for one in routers]):.4f}"
        return [*cells, f"{share}, too little", *4 * [""]]

    def pair(fact: str, digits: int) -> str:
        means = (np.mean([one[kind][fact] for one in kept]) for kind in get_args(Router))
        return " → ".join(f"{mean:,.{digits}f}" for mean in means)

    return [
        *cells,
        f"{spread([one['test_agreement'] for one in kept]):.4f}",
        pair("parameters", 0),
        pair("microseconds", 2),
        *(f"{times[f'{kind}_{number}'] / times['base']:.2f}" for kind in get_args(Router)),
    ]


def _write(record: Record, times: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    arguments = record.arguments

    def lines() -> list[str]:
        rows = [
            row_of(markdown(name), number, kinds, times[name])
            for name, numbers in record.logs.items()
            if name in times  # the others are not complete
            for number, kinds in numbers.items()
        ]
        table = common.markdown_table(_HEADERS, rows, texts=(0,))
        return common.report("A compiled router", [_ABOUT, "", *table], arguments.config)

    content = record.content | {"inference": times}
    return common.write_results(arguments.destination, content, lines)


if __name__ == "__main__":
    run_cli(main)
