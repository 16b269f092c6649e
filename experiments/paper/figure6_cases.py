"""Figure 6: the case study. Is a test row better predicted by the model of its own cluster?

iHAS is trained over several seeds. Over all test rows, the prediction of a row's own model is
compared with the mean prediction of the other models, which for two clusters is that of the other
one. The rows that are shown are drawn by chance. The same command resumes after an interruption.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # where common and compare are

from dataclasses import dataclass, replace
from pathlib import Path

import common
from case_figure import Facts
from case_table import write
from cases import case_facts
from command_line import parse
from compare import run_alone
from comparison import LogComparison, Record

from ihas_jax.config import ClusterConfig
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, run_cli
from ihas_jax.presets import PresetName
from ihas_jax.progress import say
from ihas_jax.serving.storage import load_bundle

_SEEDS = "seeds"


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    preset: PresetName | None = "small"
    """The values that the other flags start from."""
    output: Path = Path("runs/figure6")
    """The folder of the runs, in which each run has a folder; runs that Table 2 or Figure 4 left in
    it are not run again."""


def main() -> None:
    """Parses the command line, runs what is missing, writes the results after each log."""
    arguments = parse(Arguments, __doc__)
    arguments.require_logs()
    if arguments.config.method != "ihas":
        raise InputError("The case study is one of iHAS; leave --method out.")
    if arguments.config.of(ClusterConfig).clusters == 1:
        raise InputError("One cluster has no others; give --cluster.clusters 2 or more.")
    record = Record(arguments)
    missing: tuple[str, ...] = ()
    logs: list[str] = []
    for name, data in arguments.open_logs().items():
        facts = record.scores_of(name, data).setdefault(_SEEDS, [])
        for seed in arguments.seed_range[len(facts) :]:
            facts.append(study(arguments, data, name, seed))
            record.save()
        logs.append(name)
        missing = write(record, {name: record.logs[name][_SEEDS] for name in logs})
    common.print_results(arguments.destination, missing)


def study(arguments: Arguments, data: Dataset, name: str, seed: int) -> Facts:
    """The facts of a run of iHAS on a log."""
    say(f"[{name}] iHAS, seed {seed}")
    folder = arguments.output / name / f"ihas_{seed}"
    run_alone(replace(arguments.config, seed=seed), data, folder)
    return case_facts(load_bundle(folder), data.test.ids, data.test.labels, seed)


if __name__ == "__main__":
    run_cli(main)
