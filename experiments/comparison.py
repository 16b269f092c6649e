"""A comparison over seeds: its flags, and the scores from which it resumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from command_line import TrainingFlags
from reference import full_size

from ihas_jax.config import Config
from ihas_jax.data.dataset import Dataset
from ihas_jax.data.open import open_store
from ihas_jax.errors import InputError
from ihas_jax.files import null_to_nan, read_json, write_json
from ihas_jax.flags import config_from_json, config_to_json, replaced
from ihas_jax.names import printable
from ihas_jax.pipeline.about import differences_that_matter
from ihas_jax.pipeline.idle import for_method
from ihas_jax.pipeline.workdir import fingerprint
from ihas_jax.presets import search_of


@dataclass(frozen=True, kw_only=True)
class Comparison(TrainingFlags):
    """The flags of every comparison over seeds."""

    seeds: int = 3
    """The number of seeds, from --seed on."""
    output: Path = Path("runs")
    """The folder of the runs, in which each run has a folder."""
    results: Path | None = None
    """The path of the results, without their endings .md, .json and .png; by default results in the
    folder of the runs."""

    @property
    def seed_range(self) -> range:
        """The seeds."""
        return range(self.config.seed, self.config.seed + self.seeds)

    @property
    def destination(self) -> Path:
        """The path of the results."""
        return self.results or self.output / "results"


@dataclass(frozen=True, kw_only=True)
class LogComparison(Comparison):
    """The flags of every comparison over seeds on prepared logs."""

    data: tuple[Path, ...] = ()
    """The folders that prepare.py made, one per log."""

    def require_pairs(self) -> None:
        """Raises an InputError where there is nothing to compare, seed by seed."""
        if self.seeds < 2 or not self.data:
            raise InputError("Name at least one log by --data, and at least 2 --seeds to compare.")

    def require_logs(self) -> None:
        """Raises an InputError where there is no log, or no seed."""
        if self.seeds < 1 or not self.data:
            raise InputError("Name at least one log by --data, and at least 1 of --seeds.")

    def open_logs(self) -> dict[str, Dataset]:
        """The stores of --data by the names of their folders, in characters that can be printed.

        Raises:
          InputError: two of them have the same name.
        """
        names = [printable(path.resolve().name) for path in self.data]
        if len(set(names)) < len(names):
            raise InputError(f"--data names two folders of the same name: {', '.join(names)}.")
        return {name: open_store(path) for name, path in zip(names, self.data, strict=True)}

    def config_of(
        self,
        method: str,
        budget: float | None = None,
        flags: Mapping[str, Any] = MappingProxyType({}),
    ) -> Config:
        """The config of a method with its defaults, and with the flags of the command line.

        The flags of --search apply to --method alone, and flags that mean nothing to another method
        are left out there, such as --budget for `none`.

        Args:
          method: the method.
          budget: a budget in place of that of the command line.
          flags: values of a variant of the method, by flag.

        Raises:
          InputError: the method is `none`, and the searched model is a teacher.
        """
        if method == "none":
            return full_size(self.config)
        own = method == self.config.method
        search = self.config.search if own else search_of(method, self.preset or "paper")
        config = dataclasses.replace(
            self.config, method=method, search=search, budget=budget or self.config.budget
        )
        for flag, value in flags.items():
            config = replaced(config, flag, value)
        return config if own and not flags else for_method(config)


@dataclass
class Record:
    """The scores of a comparison, in a JSON file from which the same command resumes.

    Attributes:
      arguments: the flags of the comparison.
      identity: everything else that the scores depend on, by name, as JSON.
      grows: whether more --seeds add to those of the file, and fewer leave them, so that variants
        may have different numbers of seeds, which all begin with --seed.
      logs: the scores by log; at first those of the file.
      data: what tells the rows of each log from others.
    """

    arguments: LogComparison
    identity: Mapping[str, Any] = field(default_factory=dict)
    grows: bool = False
    logs: dict[str, Any] = field(init=False)
    data: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Raises: InputError: the file holds scores of other flags."""
        path = self._path
        found = read_json(path) if path.exists() else {}
        self.logs, self.data = null_to_nan(found.get("logs", {})), found.get("data", {})
        if found:
            wanted = {**self._counted, **self.identity}
            other = [name for name, value in wanted.items() if found.get(name) != value]
            old = config_from_json(found["config"])
            other += differences_that_matter(old, self.arguments.config)
            if other:
                raise InputError(
                    f"{path} holds scores of another comparison, which differs in "
                    f"{'; '.join(other)}. Choose another --results, or delete the file."
                )

    @property
    def _counted(self) -> dict[str, int]:
        return {} if self.grows else {"seeds": self.arguments.seeds}

    @property
    def _path(self) -> Path:
        return Path(f"{self.arguments.destination}.json")

    def scores_of(self, name: str, data: Dataset) -> dict[str, Any]:
        """The scores of a log so far, which may be added to.

        Raises:
          InputError: the file holds scores of another log of the same name.
        """
        own = fingerprint(data)
        if self.data.setdefault(name, own) != own:
            raise InputError(
                f"{self._path} holds scores of another log {name} ({self.data[name]}; this one has "
                f"{own}). Choose another --results, or delete the file."
            )
        scores: dict[str, Any] = self.logs.setdefault(name, {})
        return scores

    @property
    def content(self) -> dict[str, Any]:
        """The content of the file."""
        config = config_to_json(self.arguments.config)
        about = {**self._counted, "config": config, "data": self.data}
        return {"logs": self.logs, **about, **self.identity}

    def save(self) -> None:
        """Writes the scores so far."""
        self.arguments.destination.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, self.content)
