"""The studies of iHAS's choices, as data: what each of them varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ihas_jax.config import Config
from ihas_jax.flags import replaced, value_of

DEFAULT = "ihas"
"""The name of the setting that changes nothing."""


@dataclass(frozen=True)
class Setting:
    """A point of a study.

    Attributes:
      label: the name in table and figure.
      flags: values of the config, by flag; the other values are those of the command line.
      line: the line of the figure that joins the point with others.
    """

    label: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    line: str = ""

    def name(self, config: Config) -> str:
        """The name in files, which settings share that make the same config of a config."""
        differing = [
            f"{flag.rpartition('.')[2]}={value}"
            for flag, value in self.flags.items()
            if value_of(config, flag) != value
        ]
        return " ".join(differing) or DEFAULT

    def config(self, config: Config) -> Config:
        """A config with the values of the setting."""
        for flag, value in self.flags.items():
            config = replaced(config, flag, value)
        return config


@dataclass(frozen=True)
class Study:
    """What is varied, and against what the AUC is drawn.

    Attributes:
      title: the heading.
      axis: the horizontal axis of the figure.
      settings: the points.
      by_kept: whether the figure's horizontal axis is the share of coordinates that a row keeps,
        in place of the settings in their order.
      joined: whether a line joins the points, since the settings have an order.
      note: what the reader of the table has to know, as Markdown.
    """

    title: str
    axis: str
    settings: Sequence[Setting]
    by_kept: bool = False
    joined: bool = True
    note: str = ""


def _values(flag: str, values: Sequence[Any]) -> tuple[Setting, ...]:
    """A setting for each value of a flag."""
    return tuple(Setting(f"{value:g}", {flag: value}) for value in values)


STUDIES: Mapping[str, Study] = {
    "clusters": Study("Number of clusters", "clusters C", _values("cluster.clusters", range(1, 9))),
    "sparsity": Study(
        "Sparsity λ and weight of the regulariser",
        "share of coordinates that a row keeps",
        tuple(
            Setting(
                f"λ {sparsity:g}, weight {weight:g}",
                {"gates.l0_weight": sparsity, "gates.weight": weight},
                f"weight {weight:g}",
            )
            for weight in (1e-4, 1e-3, 1e-2)
            for sparsity in (0.4, 0.8, 1.2, 1.6)
        ),
        by_kept=True,
    ),
    "temperature": Study(
        "Temperature τ", "τ", _values("gates.temperature", (0.05, 0.1, 0.5, 1.0, 2.0))
    ),
    "threshold": Study(
        "Threshold of the gates",
        "rule",
        (
            Setting("literal", {"gates.threshold": "literal"}),
            Setting("guarded", {"gates.threshold": "guarded"}),
            Setting("0.5", {"gates.threshold": "half"}),
        ),
        joined=False,
    ),
    "steps": Study(
        "Training batches for each step of the gates",
        "training batches per gate step",
        _values("search.gate_every", (1, 2, 5, 10, 20, 100)),
    ),
    "start": Study(
        "Start of retraining",
        "weights that retraining starts from",
        (
            Setting("cold", {"retrain.start": None}),
            Setting("warm", {"retrain.start": "tables"}),
            Setting("cold, apart", {"retrain.start": None, "search.stopping_share": 0.5}),
            Setting("shared, apart", {"retrain.start": "shared", "search.stopping_share": 0.5}),
        ),
        joined=False,
        note=(
            "Apart: half of the validation rows move no gate (`--search.stopping-share 0.5`), as "
            "the shared start needs, since such rows decide there which clusters keep a network."
        ),
    ),
}
