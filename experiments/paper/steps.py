"""The steps of reproduce.py: which script makes each table and figure, with which flags."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ihas_jax.errors import InputError
from ihas_jax.files import read_json, write_json

_HERE = Path(__file__).resolve().parent
METHODS = ("pep", "autofield", "optembed", "adafs_soft", "adafs_hard", "optfs", "ihas")
"""The methods of the paper's Table 2."""
ABLATIONS = ("base", "ihas_1", "ihas_2", "ihas_3", "ihas_4", "ihas")
"""The rows of the paper's Table 4."""
MODELS = ("fm", "wide_deep", "deepfm")
"""The click models of the paper's Table 3."""
_INTERRUPTED = 130


@dataclass(frozen=True)
class Step:
    """A script that is run once.

    Attributes:
      name: the name in messages and in the file of finished steps.
      command: the script, by its path in experiments/, and its arguments.
      seeded: whether its work grows with the number of seeds.
      logs: the names of the logs that it reads.
    """

    name: str
    command: tuple[str, ...]
    seeded: bool
    logs: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is run, and where.

    Attributes:
      folder: the folder of the prepared logs, the runs and the results.
      logs: the raw files by the name of the log, `avazu` or `criteo`.
      seeds: the number of seeds.
      flags: the flags of all trainings.
      limit_rows: the number of rows to read of each file; None for all.
    """

    folder: Path
    logs: Mapping[str, Path]
    seeds: int
    flags: Sequence[str] = ()
    limit_rows: int | None = None

    def store(self, log: str) -> Path:
        """The prepared log."""
        return self.folder / "data" / log

    @property
    def prepares(self) -> list[Step]:
        """A step for each log."""
        limit = [] if self.limit_rows is None else ["--limit-rows", str(self.limit_rows)]
        return [
            Step(
                f"prepare {log}",
                (
                    *("prepare.py", log, "--input", str(path)),
                    *("--output", str(self.store(log)), *limit),
                ),
                False,
                (log,),
            )
            for log, path in self.logs.items()
        ]

    @property
    def trainings(self) -> list[Step]:
        """Tables and figures, in an order in which each finds the runs of those before it.

        The paper has Tables 3 and 4 and Figures 3 to 6 for Avazu; Criteo takes its place if it is
        the only log.
        """
        both = tuple(self.logs)
        one = both[:1]
        methods = ("--methods", *METHODS)
        run, plain = (self.folder / "runs" / one[0] / name for name in ("ihas_0", "ihas_3_0"))
        figures = (
            *("paper/figures.py", "--run", run, "--without", plain),
            *("--data", self.store(one[0]), "--output", self.folder / "figures"),
        )
        variants = ("--variants", *ABLATIONS)
        return [
            self._compared("table 2", "table2_overall", "table2", both, methods),
            self._compared("table 4", "table4_ablation", "table4", one, variants),
            self._compared("table 3", "table3_transfer", "table3", one, ("--models", *MODELS)),
            Step("figures 3 to 6", tuple(map(str, figures)), False, one),
            self._compared("figure 4", "figure4_inference", "figure4", one, methods),
            self._compared("figure 6", "figure6_cases", "figure6", one),
        ]

    def _compared(
        self, name: str, script: str, results: str, logs: tuple[str, ...], own: Sequence[str] = ()
    ) -> Step:
        """A comparison over seeds, whose runs are in the folder that all share."""
        command = (
            *(f"paper/{script}.py", "--data", *(str(self.store(log)) for log in logs)),
            *(*own, "--seeds", str(self.seeds), "--output", str(self.folder / "runs")),
            *("--results", str(self.folder / results), *self.flags),
        )
        return Step(name, command, True, logs)


@dataclass
class Done:
    """The steps that are finished, with their seconds, in a file from which a command resumes.

    Attributes:
      path: the file.
      steps: by the name of a step its `command`, its `seconds` and whether it is `finished`.
    """

    path: Path
    steps: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        """Reads what the file has."""
        remedy = "Delete it: the same command runs the steps again, which resume by themselves."
        self.steps = read_json(self.path, remedy) if self.path.exists() else {}

    def has(self, step: Step) -> bool:
        """Whether a step is finished with the same command."""
        found = self.steps.get(step.name, {})
        return found.get("command") == [*step.command] and bool(found["finished"])

    def run(self, step: Step, output: Path | None = None) -> None:
        """Runs a step unless it is finished.

        Args:
          step: the step.
          output: the file that takes what the step prints; None prints it here.

        Raises:
          InputError: the step has failed.
          SystemExit: the step was interrupted, and has said so.
        """
        if self.has(step):
            return
        before = self.steps.get(step.name, {})
        same = before.get("command") == [*step.command]
        start, code = time.monotonic(), -1
        try:
            code = _run(step.command, output)
        finally:
            seconds = time.monotonic() - start + (before["seconds"] if same else 0.0)
            self.steps[step.name] = {
                "command": [*step.command],
                "seconds": seconds,
                "finished": code == 0,
            }
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, self.steps)
        if code == _INTERRUPTED:
            raise SystemExit(_INTERRUPTED)
        if code:
            where = "above" if output is None else f"in {output}"
            raise InputError(
                f"The step {step.name!r} has failed with exit code {code}; its message is {where}. "
                "The same command resumes there."
            )


def _run(command: Sequence[str], output: Path | None) -> int:
    """The exit code of a script."""
    script, *arguments = command
    words = [sys.executable, str(_HERE.parent / script), *arguments]
    if output is None:
        return _await(subprocess.Popen(words))
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as file:
        return _await(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT))


def _await(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait()
    except KeyboardInterrupt:  # a terminal sends it to the script, too
        process.wait()
        raise
