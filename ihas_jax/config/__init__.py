"""Every choice of a run as frozen dataclasses, one per stage and method.

The command line is made from these classes: the docstring of a field is the `--help` text.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from ihas_jax.config.bounds import Bound, NotNegative, Positive, Share, check_fields
from ihas_jax.config.methods import ClusterConfig, GateConfig, MethodConfig
from ihas_jax.config.model import ModelConfig
from ihas_jax.config.training import (
    AdamConfig,
    OptimizerConfig,
    RetrainConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.errors import InputError

__all__ = [
    "AdamConfig",
    "ClusterConfig",
    "Config",
    "GateConfig",
    "MethodConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RetrainConfig",
    "SearchConfig",
    "TrainConfig",
    "differences",
    "from_json",
    "to_json",
]
T = TypeVar("T")
_BELOW_2_32 = Bound(lambda seed: seed < 2**32, "must be less than 2^32, not")
Options = TypeVar("Options", bound=MethodConfig)


@dataclass(frozen=True)
class Config:
    """A whole run."""

    method: str = "ihas"
    """The selection method (see ihas_jax/selectors); none trains the click model alone."""
    budget: Positive[Share[float | None]] = None
    """The share of the numbers of the full-size embedding table that a method may keep, such as
    0.125 for an eighth. All models of the outcome count together. Without a budget the method's own
    options say how much is kept."""
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    options: tuple[MethodConfig, ...] = ()
    """Options of methods that differ from the defaults; `of` reads them, `having` sets them."""
    seed: Annotated[NotNegative[int], _BELOW_2_32] = 0
    """The seed of initial weights, shuffling, gate noise and clustering."""

    def __post_init__(self) -> None:
        """Brings `options` into one order, without those that are the defaults.

        Raises:
          InputError: a value is of a wrong type or out of range, or two of `options` have one flag;
            the message names the flag.
        """
        check_fields(self)
        found = {options.flag: options for options in self.options}
        if len(found) < len(self.options):
            flags = sorted(options.flag for options in self.options)
            raise InputError(f"Config.options has one flag twice: {', '.join(flags)}.")
        kept = [found[flag] for flag in sorted(found) if found[flag] != type(found[flag])()]
        object.__setattr__(self, "options", tuple(kept))

    def of(self, kind: type[Options]) -> Options:
        """The options of a class, such as `PepConfig`: those that were given, or the defaults.

        Raises:
          InputError: the given options of this flag are of another class.
        """
        found = next((given for given in self.options if given.flag == kind.flag), None)
        if found is None:
            return kind()
        if not isinstance(found, kind):
            raise InputError(
                f"The options {found} are not of the class {kind.__qualname__} that has the flag "
                f"{kind.flag!r} now; if that class was defined anew, make the options anew, too."
            )
        return found

    def having(self, *options: MethodConfig) -> Config:
        """A config with other options of methods; those of other flags stay.

        Raises:
          InputError: an argument is not the options of a method, or two have one flag.
        """
        for new in options:
            if not isinstance(new, MethodConfig):
                raise InputError(
                    f"Config.having takes options of methods, such as GateConfig(), not {new!r}."
                )
        flags = {new.flag for new in options}
        rest = (old for old in self.options if old.flag not in flags)
        return dataclasses.replace(self, options=(*rest, *options))


def to_json(config: Any) -> dict[str, Any]:
    """A config dataclass as a dictionary that is ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(cls: type[T], values: dict[str, Any]) -> T:
    """The inverse of `to_json`; missing values take their defaults.

    Raises:
      InputError: a name is unknown, or a value is of a wrong type or out of range.
    """
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := set(values) - names:
        raise InputError(f"{cls.__name__} has no value named {', '.join(sorted(unknown))}.")
    return cls(**{name: _decoded(hints[name], value) for name, value in values.items()})


def _decoded(kind: Any, value: Any) -> Any:
    """A value of JSON as a value of a type."""
    kinds = typing.get_args(kind) or (kind,)
    if isinstance(value, list):
        return tuple(_decoded(kinds[0], one) for one in value)
    found = [one for one in kinds if dataclasses.is_dataclass(one)]
    if isinstance(value, dict) and found:
        return from_json(typing.cast(type, found[0]), value)
    return value


def differences(old: Config, new: Config) -> list[str]:
    """The values in which two configs differ, as `search.gate_every: 100 -> 5`."""
    kinds = {type(options) for config in (old, new) for options in config.options}
    return _differences(old, new) + [
        line
        for kind in sorted(kinds, key=lambda kind: kind.flag)
        for line in _differences(old.of(kind), new.of(kind), f"{kind.flag}.")
    ]


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    found = []
    for f in dataclasses.fields(old):
        a, b = getattr(old, f.name), getattr(new, f.name)
        if dataclasses.is_dataclass(a) and type(a) is type(b):
            found += _differences(a, b, f"{prefix}{f.name}.")
        elif a != b and f.name != "options":
            found.append(f"{prefix}{f.name}: {a} -> {b}")
    return found
