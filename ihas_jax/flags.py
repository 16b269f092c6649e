"""A config by its flags: as JSON, from JSON, and with another value of one flag.

Which options stand under which flag is what the registered methods say.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, cast

from ihas_jax.config import Config, MethodConfig, from_json, to_json
from ihas_jax.errors import InputError
from ihas_jax.selectors.registry import METHODS

T = TypeVar("T")


def option_kinds() -> dict[str, type[MethodConfig]]:
    """The classes of options of all methods, by flag."""
    return {kind.flag: kind for method in METHODS.values() for kind in method.options}


def config_to_json(config: Config) -> dict[str, Any]:
    """A config as a dictionary that is ready for JSON, with options under their flags.

    All options of the config's method are there, and of other methods those that differ from the
    defaults.

    Raises:
      InputError: no registered method has such options.
    """
    for options in config.options:
        if options.flag not in option_kinds():
            raise InputError(
                f"No registered method has the options {type(options).__name__}; name the class in "
                "its Method(..., options=(...,)) and register that."
            )
    own = METHODS[config.method].options if config.method in METHODS else ()
    values = to_json(dataclasses.replace(config, options=()))
    del values["options"]
    kinds = (*own, *(type(options) for options in config.options))
    return values | {kind.flag: to_json(config.of(kind)) for kind in kinds}


def config_from_json(values: dict[str, Any]) -> Config:
    """The inverse of `config_to_json`; missing values take their defaults.

    Raises:
      InputError: a name is unknown.
    """
    kinds, names = option_kinds(), {f.name for f in dataclasses.fields(Config)}
    if unknown := values.keys() - kinds.keys() - names:
        raise InputError(
            f"Config has no value named {', '.join(sorted(unknown))}. The options of a method of "
            "your own are known after the method is registered, on a command line by --plugins."
        )
    values = _renewed(values)
    config = from_json(Config, {name: values[name] for name in values.keys() & names})
    options = [from_json(kinds[flag], values[flag]) for flag in values.keys() & kinds.keys()]
    return config.having(*options)


def _renewed(values: dict[str, Any]) -> dict[str, Any]:
    """Values under the names of today, since files of earlier versions are still read."""
    retrain = dict(values.get("retrain", {}))
    if retrain.pop("warm_start", False):
        retrain["start"] = "tables"
    return values | {"retrain": retrain}


def replaced(config: Config, flag: str, value: Any) -> Config:
    """A config in which one flag, such as `search.gate-every`, has another value.

    Args:
      config: the config.
      flag: the flag without `--`, with hyphens or underscores.
      value: the new value.

    Raises:
      InputError: there is no such flag, or the value is of a wrong type or out of range.
    """
    flag = flag.replace("-", "_")
    first, _, rest = flag.partition(".")
    kind = option_kinds().get(first)
    if kind is None:
        return _replaced(config, flag, value)
    return config.having(_replaced(config.of(kind), rest, value))


def value_of(config: Config, flag: str) -> Any:
    """The value of one flag, such as `search.gate_every`, which `replaced` can change.

    Raises:
      InputError: there is no such flag.
    """
    first, *rest = flag.replace("-", "_").split(".")
    kind = option_kinds().get(first)
    found: Any = config if kind is None else config.of(kind)
    for name in (first, *rest) if kind is None else rest:
        if name not in getattr(found, "__dataclass_fields__", ()):
            raise InputError(f"{type(found).__name__} has no value named {name!r}.")
        found = getattr(found, name)
    return found


def _replaced(config: T, flag: str, value: Any) -> T:
    name, _, rest = flag.partition(".")
    if name not in getattr(config, "__dataclass_fields__", ()):
        raise InputError(f"{type(config).__name__} has no value named {name!r}.")
    part = _replaced(getattr(config, name), rest, value) if rest else value
    return dataclasses.replace(cast(Any, config), **{name: part})
