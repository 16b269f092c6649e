"""The stages of a run in their order; each stage resumes from what the folder already holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ihas_jax.errors import InputError
from ihas_jax.files import read_json, write_json
from ihas_jax.processes import by_first
from ihas_jax.programs import compiling
from ihas_jax.progress import say
from ihas_jax.stages.run import Run

SECONDS = "stages.json"
"""The file with the seconds of each finished stage of a run."""
COMPILING = "compiling"
"""The entry of that file with the seconds of all stages in which programs were compiled."""
ALIASES = {"cluster": "choose"}
"""Other names of stages."""


@dataclass(frozen=True)
class Stage:
    """One stage of runs that differ in their seed alone.

    Attributes:
      work: does the rest of the stage, or reads a finished stage back; returns the seconds of the
        stage for each run, over all resumptions.
      needs: names of the stages whose results the stage uses.
    """

    work: Callable[[], Sequence[float]]
    needs: tuple[str, ...] = ()


class Chain:
    """The stages of runs, and which of them are finished."""

    def __init__(self, runs: Sequence[Run], stages: Mapping[str, Stage]) -> None:
        """Reads which stages are finished."""
        self._runs, self._stages = runs, stages
        self._seconds = [read_seconds(run) for run in runs]

    def advance(self, wanted: str) -> None:
        """Runs one stage, whose predecessors must be finished, or with 'all' every missing stage.

        Raises:
          InputError: there is no such stage, or an earlier one is missing.
        """
        wanted = require_stage(self._runs[0], self._stages, wanted)
        if self._finished(wanted) and wanted != list(self._stages)[-1]:
            say(f"[{wanted}] is already finished")
            return
        names = self._stages if wanted == "all" else (*self._stages[wanted].needs, wanted)
        for name in names:
            if wanted not in ("all", name) and not self._finished(name):
                raise InputError(
                    f"--stage {wanted} needs the stage '{name}', which {self._runs[0].workdir} "
                    f"does not hold yet. Run --stage {name} first, or leave --stage out to run all "
                    "of them."
                )
            self._advance(name)

    def _finished(self, name: str) -> bool:
        return all(name in seconds for seconds in self._seconds)

    def _advance(self, name: str) -> None:
        """Runs a stage or reads its results back, and records that it is finished."""
        fresh = [name not in seconds for seconds in self._seconds]
        if any(fresh):
            say(f"[{name}] starts")
        for run, new in zip(self._runs, fresh, strict=True):
            if new:
                run.event("stage", {"stage": name, "state": "starts"})
        with compiling() as compiled:
            taken = self._stages[name].work()
        for run, new, seconds, own in zip(self._runs, fresh, taken, self._seconds, strict=True):
            if new:
                own[name] = round(seconds, 3)
                add_compiling(own, compiled.seconds / sum(fresh))
                write_seconds(run, own)
                run.event("stage", {"stage": name, "state": "done", "seconds": seconds})


def require_stage(run: Run, stages: Iterable[str], wanted: str) -> str:
    """The name of a stage that is wanted under this name or another one.

    Raises:
      InputError: the run has no such stage.
    """
    names, found = [*stages], ALIASES.get(wanted, wanted)
    if found not in ("all", *names):
        why = " without --retrain.teachers" if found == "teach" else ""
        raise InputError(
            f"The method {run.config.method} has no --stage {wanted}{why}; it has "
            f"{', '.join(names)}."
        )
    return found


def timed(work: Callable[[], Any], seconds_of: Callable[[Any], float]) -> tuple[Any, float]:
    """A result, and the longer of its own seconds and the time of the call.

    The seconds of a resumed stage include those of earlier processes.
    """
    start = time.monotonic()
    result = work()
    return result, max(seconds_of(result), time.monotonic() - start)


def add_compiling(seconds: dict[str, float], more: float) -> None:
    """Adds to the time in which programs were compiled, which stands behind the stages."""
    seconds[COMPILING] = round(seconds.pop(COMPILING, 0.0) + more, 3)


@by_first
def read_seconds(run: Run) -> dict[str, float]:
    """Seconds of each finished stage of a run, and those of all in which it compiled."""
    path = run.workdir / SECONDS
    return read_json(path) if path.exists() else {}


@by_first
def write_seconds(run: Run, seconds: Mapping[str, float]) -> None:
    """Records the finished stages of a run."""
    write_json(run.workdir / SECONDS, dict(seconds))
