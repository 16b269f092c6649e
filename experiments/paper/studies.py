"""Studies of iHAS: what the number of clusters, the regulariser, the gates and the start do.

Each of --study varies one choice and leaves the others as they are. A setting that several studies
share is run once, and base models and searches are shared by runs in which they are the same. The
same command resumes after an interruption. Calls with other studies, logs, or more seeds add to the
same results.
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
from reference import full_size, reference_of
from study_list import STUDIES, Setting
from study_results import BASE, write

from ihas_jax.errors import InputError, run_cli
from ihas_jax.pipeline.walk import Walk
from ihas_jax.presets import PresetName


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    preset: PresetName | None = "small"
    """The values that the other flags start from."""
    study: tuple[str, ...] = ()
    """The studies, by default all: clusters, sparsity, temperature, threshold, steps, start."""
    output: Path = Path("runs/studies")


def main() -> None:
    """Parses the command line, runs what is missing, writes the results after each log."""
    arguments = parse(Arguments, __doc__)
    arguments.require_logs()
    if arguments.config.method != "ihas":
        raise InputError("These are studies of iHAS; leave --method out.")
    for name in arguments.study:
        if name not in STUDIES:
            raise InputError(f"There is no --study {name}; the studies are {', '.join(STUDIES)}.")
    variants = variants_of(arguments)
    record = Record(arguments, reference_of(arguments.config).identity, grows=True)
    walk = Walk("Studies", runs_left(record, variants), _no_event)
    missing: tuple[str, ...] = ()
    with walk.shown():
        for _ in score_logs(record, lambda name, data: variants, leave_out=True, walk=walk):
            missing = write(record)
    common.print_results(arguments.destination, missing)


def variants_of(arguments: Arguments) -> list[Variant]:
    """The full-size model, iHAS as the command line has it, and each other setting once."""
    config, reference = arguments.config, reference_of(arguments.config)
    settings = [one for name in arguments.study or STUDIES for one in STUDIES[name].settings]
    rows: dict[str, Setting] = {}
    for setting in (Setting("iHAS"), *settings):
        rows.setdefault(setting.name(config), setting)
    return [
        Variant(BASE, "none", reference.title, full_size(config), reference.key),
        *(
            Variant(name, name.replace(" ", "_"), name, setting.config(config), "ihas")
            for name, setting in rows.items()
        ),
    ]


def runs_left(record: Record, variants: Sequence[Variant]) -> int:
    """The number of runs that a record lacks, on all logs together."""
    arguments, left = record.arguments, 0
    for name, data in arguments.open_logs().items():
        found = record.scores_of(name, data)
        left += sum(len(arguments.seed_range[len(found.get(v.name, ())) :]) for v in variants)
    return left


def _no_event(kind: str, facts: dict[str, Any]) -> None:
    """Records nothing: each run has its own log."""


if __name__ == "__main__":
    run_cli(main)
