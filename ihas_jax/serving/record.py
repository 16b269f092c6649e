"""What bundle.json says: all of a bundle but its vocabularies and arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ihas_jax.config import ModelConfig, from_json
from ihas_jax.config.bounds import check_fields
from ihas_jax.errors import InputError
from ihas_jax.nn.embedding import Kept

FORMAT, _READ = 5, (3, 4, 5)
"""Format of bundles, and the formats that are read; 4 has other files of arrays, and 3 lacks
compiled routers, too."""
NAME = "bundle.json"

RouterKind = Literal["exact", "compiled", "values"]


@dataclass(frozen=True)
class ModelRecord:
    """One model of a bundle.

    Attributes:
      kept: kept coordinates of each field; None for all.
      stored_values: number of values of each field with a row of their own; None for all.
      selects: whether it is a searched model, which selects by itself.
      parameters: as `Served.parameters`.
      bytes: as `Served.bytes`.
      table_of_first: whether it has the table of the first model, which alone is stored.
    """

    kept: Kept | None
    stored_values: tuple[int, ...] | None
    selects: bool
    parameters: int
    bytes: int
    table_of_first: bool = False


@dataclass(frozen=True)
class Record:
    """A bundle without its vocabularies and arrays.

    Attributes:
      version: the format.
      config: the run's config, as `config_to_json` writes it.
      searched: the click model that was searched.
      models: the models that serve.
      routes: for each cluster, the index of the model that serves it.
      router: what routes rows; None for nothing.
      grouped_by: the position of the field whose values a router of values looks up.
      usage: whether the bundle knows how the training rows use its table.
    """

    version: int
    config: dict[str, Any]
    searched: ModelConfig
    models: tuple[ModelRecord, ...]
    routes: tuple[int, ...]
    router: RouterKind | None = None
    grouped_by: int | None = None
    usage: bool = False

    def __post_init__(self) -> None:
        """Raises: InputError: an entry has another type, or says what no bundle of ours says."""
        check_fields(self, "")
        if not self.routes or not set(self.routes) <= set(range(len(self.models))):
            raise InputError(f"routes {list(self.routes)} for {len(self.models)} models")
        if self.models[0].table_of_first:
            raise InputError("the first model has no table")
        if (self.router == "values") != (self.grouped_by is not None):
            raise InputError(f"the router {self.router} with the field {self.grouped_by}")


def read_record(folder: Path) -> Record:
    """Reads the record of a bundle, in any of the formats.

    Raises:
      InputError: it has another format.
      OSError, ValueError, RecursionError: it can't be read, or is none.
    """
    facts = json.loads((folder / NAME).read_text(encoding="utf-8"))
    require_version(folder, facts, _READ)
    try:
        return from_json(Record, _renewed(facts))
    except (InputError, TypeError) as error:  # a folder is named by who knows what it is for
        raise ValueError(str(error)) from None


def _renewed(facts: dict[str, Any]) -> dict[str, Any]:
    """Entries as they are today: format 3 says in two of them what routes rows."""
    facts = dict(facts)
    if (exact := facts.pop("routed", None)) is None:
        return facts
    by_value = "values" if facts.get("grouped_by") is not None else None
    return facts | {"router": "exact" if exact else by_value}


def require_version(path: Path, about: Any, read: Sequence[int]) -> None:
    """Raises: InputError: a folder was written in another format."""
    found = about.get("version", 1) if isinstance(about, dict) else "unknown"
    if found not in read:
        formats = " and ".join(map(str, read))
        raise InputError(
            f"{path} is in format {found}, and this version of ihas_jax reads format "
            f"{formats}. Run the same command with a new --output, or use the version that wrote "
            "the folder."
        )
