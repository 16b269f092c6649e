"""The rows of the comparison at equal sizes: full-size models, then each method at each budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compare import Scores, Variant
from comparison import LogComparison
from reference import BASE, STUDENT, TEACHER

from ihas_jax.config import Config
from ihas_jax.reporting.scores import titles
from ihas_jax.selectors.registry import METHODS

UNIFORM = "uniform"


@dataclass(frozen=True)
class Kind:
    """A method with some values of its options.

    Attributes:
      name: the name in files and folders.
      method: the name of the method.
      title: the name in table and figure.
      flags: values of the config that differ from the method's own, by flag.
    """

    name: str
    method: str
    title: str
    flags: Mapping[str, Any] = field(default_factory=dict)

    def config(self, arguments: LogComparison, budget: float) -> Config:
        """The config at a budget."""
        return arguments.config_of(self.method, budget, self.flags)


TURNED = {"search.rotate": True, "retrain.start": "searched"}
VARIANTS = (
    Kind("spectral_axes", "spectral", "Spectral, whole axes", {"spectral.cut": "axes"}),
    Kind(
        "magnitude_structured",
        "magnitude",
        "Magnitude, whole coordinates",
        {"magnitude.structured": True},
    ),
    Kind("spectral_two", "spectral", "Spectral, two clusters", {"spectral.clusters": 2}),
    Kind("ihas_one", "ihas", "iHAS, one cluster", {"cluster.clusters": 1}),
    Kind("ihas_turned", "ihas", "iHAS on principal axes", TURNED),
    Kind(
        "ihas_turned_one",
        "ihas",
        "iHAS on principal axes, one cluster",
        TURNED | {"cluster.clusters": 1},
    ),
    Kind("ihas_own", "ihas", "iHAS, own axes of each cluster", TURNED | {"cluster.axes": "own"}),
    Kind(
        "ihas_own_one",
        "ihas",
        "iHAS, own axes of one cluster",
        TURNED | {"cluster.axes": "own", "cluster.clusters": 1},
    ),
)
"""Other values of the options of a method, each a row after that of the method."""
OF_ONE_CLUSTER = {
    "spectral_two": "spectral",
    "ihas": "ihas_one",
    "ihas_turned": "ihas_turned_one",
    "ihas_own": "ihas_own_one",
}
"""The row with one cluster for each row with several."""


@dataclass(frozen=True)
class Sizes:
    """What is compared.

    Attributes:
      kinds: the methods and their variants, `uniform` first.
      budgets: shares of the table's numbers.
      taught: whether teachers teach every model.
    """

    kinds: tuple[Kind, ...]
    budgets: tuple[float, ...]
    taught: bool

    @property
    def full(self) -> str:
        """The row of the full-size model that uniform sizes are compared with."""
        return STUDENT if self.taught else BASE

    @property
    def whole(self) -> dict[str, str]:
        """The titles of the rows without a budget, by name."""
        base = {BASE: "full size, clicks" if self.taught else "full size"}
        more = {TEACHER: "teachers, mean", STUDENT: "full size, taught"}
        return base | more if self.taught else base

    @property
    def clustered(self) -> list[tuple[Kind, Kind]]:
        """The methods that are compared with several clusters, and with one."""
        kinds = {kind.name: kind for kind in self.kinds}
        pairs = [(kinds.get(several), kinds.get(one)) for several, one in OF_ONE_CLUSTER.items()]
        return [(several, one) for several, one in pairs if several and one]

    def reference(self, kind: Kind, budget: float) -> str:
        """The row that a method is compared with at a budget."""
        return self.full if kind.name == UNIFORM else row_of(self.kinds[0], budget)

    def variants(self, arguments: LogComparison) -> list[Variant]:
        """All rows in the order of the table.

        Searches that differ in their budget alone, or in how they are cut, are run once, since
        every row reuses the stages of those before it.
        """
        plain = arguments.config_of("none")
        rows = [Variant(key, "none", title, plain, key) for key, title in self.whole.items()]
        for budget in self.budgets:
            for kind in self.kinds:
                name, title = row_of(kind, budget), f"{kind.title}, {percent(budget)}"
                config = kind.config(arguments, budget)
                rows.append(Variant(name, name, title, config, kind.method))
        return rows


def row_of(kind: Kind, budget: float) -> str:
    """The name of a row, by which its scores are kept."""
    return f"{kind.name}_{budget}"


def kinds_of(methods: Iterable[str]) -> tuple[Kind, ...]:
    """`uniform`, then the methods that are named, each with its variants.

    Raises:
      InputError: a method is unknown.
    """
    kinds: list[Kind] = []
    for method in dict.fromkeys((UNIFORM, *methods)):
        METHODS.find(method, "methods")
        kinds.append(Kind(method, method, titles()[method]))
        kinds += [variant for variant in VARIANTS if variant.method == method]
    return tuple(kinds)


def percent(share: float) -> str:
    """A share in percent, with no more digits than it needs."""
    return f"{100 * share:g} %"


Found = Mapping[str, Sequence[Scores]]
"""The scores of a log by row; rows that can't run have none."""
