"""Figure 3 over seeds: does the polarisation part the probabilities of gates into two groups?

iHAS is searched with and without the polarisation, and the gates of test rows are measured. The
same command resumes after an interruption.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # where common and compare are

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
from command_line import parse
from compare import Scores
from comparison import LogComparison, Record
from finished import gates_of
from gate_figure import Gates

from ihas_jax.config import Config
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, run_cli
from ihas_jax.flags import replaced
from ihas_jax.names import markdown
from ihas_jax.pipeline.fit import fit
from ihas_jax.presets import PresetName
from ihas_jax.progress import say
from ihas_jax.stages.run import Run

_ROWS = {"ihas": "with polarisation", "ihas_3": "without polarisation"}
"""The names of the runs, which Table 4 shares, and their titles."""
_HEADERS = (
    *("log", "search", "distance from the mean", "p", "gap of open and closed", "p", "open"),
)
_ABOUT = (
    "Gates of the first 1,000 test rows, mean ± standard deviation over seeds. Distance from the "
    "mean: of a row's probabilities from their mean, the mean over the coordinates, which the "
    "polarisation of equation 5 raises (at most 0.5). Gap: the mean probability of a row's open "
    "gates minus that of its closed ones; 0 where all are open or all closed, which a threshold "
    "does not separate. p: of a paired t-test of the difference between the two searches."
)


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    preset: PresetName | None = "small"
    """The values that the other flags start from."""
    output: Path = Path("runs/figure3")
    """The folder of the runs, in which each run has a folder; runs that Table 4 left in it are not
    run again."""


def main() -> None:
    """Parses the command line, runs what is missing, writes the results after each log."""
    arguments = parse(Arguments, __doc__)
    arguments.require_logs()
    if arguments.config.method != "ihas" or not _polarized(arguments.config, True):
        raise InputError("Gates of iHAS are measured: leave --method and --gates.polarization out.")
    record = Record(arguments)
    missing: tuple[str, ...] = ()
    for name, data in arguments.open_logs().items():
        scores = record.scores_of(name, data)
        for run in _ROWS:
            found = scores.setdefault(run, [])
            for seed in arguments.seed_range[len(found) :]:
                found.append(measure(arguments, data, name, run, seed))
                record.save()
        missing = common.write_results(
            arguments.destination, record.content, lambda: lines_of(record)
        )
    common.print_results(arguments.destination, missing)


def _polarized(config: Config, wanted: bool) -> bool:
    return replaced(config, "gates.polarization", wanted) == config


def measure(arguments: Arguments, data: Dataset, log: str, name: str, seed: int) -> Scores:
    """The facts of the gates of a run, whose search is trained where it is missing."""
    say(f"[{log}] iHAS {_ROWS[name]}, seed {seed}")
    config = replaced(arguments.config, "gates.polarization", name == "ihas")
    config, folder = dataclasses.replace(config, seed=seed), arguments.output / log
    fit(config, data, folder / f"{name}_{seed}", "search")
    return gate_facts(gates_of(Run(config, data, folder / f"{name}_{seed}")))


def gate_facts(gates: Gates) -> Scores:
    """How well the probabilities of each row are parted, means over the rows.

    Returns:
      `distance` of the probabilities from their mean, `gap` between the mean probabilities of open
      and closed gates, and the share of `open` gates.
    """
    probs, thresholds = np.asarray(gates.probs, float), np.asarray(gates.thresholds, float)
    opened = probs > thresholds[:, None]
    number, total = opened.sum(axis=1), (probs * opened).sum(axis=1)
    both = (number > 0) & (number < probs.shape[1])
    above = total / np.maximum(number, 1)
    below = (probs.sum(axis=1) - total) / np.maximum(probs.shape[1] - number, 1)
    return {
        "distance": float(np.abs(probs - probs.mean(axis=1, keepdims=True)).mean()),
        "gap": float(np.where(both, above - below, 0.0).mean()),
        "open": float(opened.mean()),
    }


def lines_of(record: Record) -> list[str]:
    """The lines of the Markdown file."""
    rows = []
    for log, scores in record.logs.items():
        for name, title in _ROWS.items():
            if len(found := scores.get(name, [])) < record.arguments.seeds:
                continue
            cells = [markdown(log), title]
            for fact in ("distance", "gap"):
                gains = common.gain_cells(scores["ihas"], found, fact)
                cells += [common.spread_cell(found, fact), gains[1]]
            rows.append([*cells, common.spread_cell(found, "open")])
    body = [*common.markdown_table(_HEADERS, rows, texts=(0, 1)), "", _ABOUT]
    return common.report("Figure 3: probabilities of gates", body, record.arguments.config)


if __name__ == "__main__":
    run_cli(main)
