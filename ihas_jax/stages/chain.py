"""The stages of a run in their order; each one goes on from what is already in the folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ihas_jax.errors import InputError
from ihas_jax.progress import log
from ihas_jax.stages.run import Run, read_seconds, write_seconds


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
      run: does what is left of it, or reads back what is finished; returns the seconds of its
        training over all resumptions.
      needs: names of the stages whose results it uses.
    """

    run: Callable[[], float]
    needs: tuple[str, ...] = ()


class Chain:
    """The stages of one run, and which of them are finished."""

    def __init__(
        self, run: Run, stages: Mapping[str, Stage], shared: Mapping[str, float] | None = None
    ) -> None:
        """`shared` are seconds of finished stages that belong to another run."""
        self._run, self._stages = run, stages
        self._own, self._shared = read_seconds(run), dict(shared or {})

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each finished stage, those that are another run's included."""
        return self._shared | self._own

    def advance(self, wanted: str) -> None:
        """Runs one stage, whose predecessors must be finished, or with 'all' what is missing.

        Raises:
          InputError: there is no such stage, or an earlier one is missing.
        """
        if wanted not in ("all", *self._stages):
            method = self._run.config.method
            raise InputError(
                f"The method {method} has no --stage {wanted}; it has {', '.join(self._stages)}."
            )
        if wanted in self.seconds and wanted != list(self._stages)[-1]:
            log(f"[{wanted}] is finished already")
            return
        names = self._stages if wanted == "all" else (*self._stages[wanted].needs, wanted)
        for name in names:
            if name not in (wanted, *self.seconds) and wanted != "all":
                raise InputError(
                    f"--stage {wanted} needs the stage '{name}', which {self._run.workdir} does "
                    f"not hold yet. Run --stage {name} first, or leave --stage out to run all of "
                    "them."
                )
            self._advance(name)

    def _advance(self, name: str) -> None:
        """Runs a stage or reads its result back, and records that it is finished."""
        fresh = name not in self.seconds
        if fresh:
            log(f"[{name}] starts")
            self._run.event("stage", {"stage": name, "state": "starts"})
        start = time.monotonic()
        trained = self._stages[name].run()
        # a stage that was cut short took longer than this process knows
        seconds = max(trained, time.monotonic() - start)
        if fresh:
            self._own[name] = round(seconds, 3)
            write_seconds(self._run, self._own)
            self._run.event("stage", {"stage": name, "state": "done", "seconds": seconds})
