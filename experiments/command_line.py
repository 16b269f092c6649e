"""Command lines that are made from the config classes, the presets and what is registered."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
from tyro.extras import literal_type_from_choices

from ihas_jax.config import Config, MethodConfig, ModelConfig
from ihas_jax.errors import InputError
from ihas_jax.flags import option_kinds, replaced
from ihas_jax.job import Job
from ihas_jax.models import MODELS
from ihas_jax.pipeline.plugins import import_file
from ihas_jax.presets import PresetName, preset
from ihas_jax.selectors import METHODS


@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """The flags of every script that trains models."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    preset: PresetName | None = None
    """The values that the other flags start from.
    small is for logs of up to a few million rows, and the default without --data.
    paper is the default with --data; compact is the recipe that we recommend for a small model.
    reference has the model choices of pytorch-fm's examples."""
    plugins: tuple[Path, ...] = ()
    """Python files that register selection methods or click models of your own."""


@dataclass(frozen=True, kw_only=True)
class ProcessFlags:
    """The flags of scripts whose work several processes share."""

    job: Annotated[Job, tyro.conf.arg(name="")] = field(default_factory=Job)


Flags = TypeVar("Flags", bound=TrainingFlags)


def parse(
    kind: type[Flags],
    about: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    hidden: tuple[str, ...] = (),
) -> Flags:
    """Reads the command line of a script.

    Args:
      kind: the class of its flags.
      about: the text with which the help begins; by default the docstring of the class.
      defaults: values that flags of the config start from in this script, whatever the preset.
      hidden: values of the config, and options of methods, that are no flags in this script.

    Raises:
      InputError: a plugin is not a file, a method or click model is unknown, a flag is one of those
        that are hidden, or a value is out of range.
    """
    start = _early_preset(kind.preset)
    for flag, value in (defaults or {}).items():
        start = replaced(start, flag, value)
    config = _flags_of(start, hidden)
    shown = Annotated[type(config), tyro.conf.arg(name="")]  # type: ignore[valid-type]
    extended = make_dataclass(
        kind.__name__, [("config", shown, config)], bases=(kind,), frozen=True, kw_only=True
    )
    _refuse_hidden(kind, hidden)
    text = inspect.cleandoc(about or str(kind.__doc__))
    parsed: Any = tyro.cli(extended, description=text)
    values = {f.name: getattr(parsed, f.name) for f in fields(kind)}
    return kind(**values | {"config": _config_of(parsed.config)})


def parse_config(flags: Sequence[str], default: Config) -> Config:
    """The config that `default` becomes by flags as they stand on a command line."""
    return _config_of(tyro.cli(type(shown := _flags_of(default)), args=flags, default=shown))


def _refuse_hidden(kind: type[TrainingFlags], hidden: tuple[str, ...]) -> None:
    """Raises: InputError: the command line has a flag that other scripts have."""
    own = {f.name for f in fields(kind)}
    for f in fields(kind):
        if is_dataclass(nested := f.default_factory):
            own |= {inner.name for inner in fields(nested)}
    for word in sys.argv[1:]:
        flag = word.split("=")[0].replace("_", "-")
        group, dot, _ = flag.removeprefix("--").partition(".")
        name = group.replace("-", "_")
        similar = [one for one in own if one.startswith(name)]  # tyro suggests it
        if flag.startswith("--") and name in hidden and (dot or not similar):
            raise InputError(
                f"{Path(sys.argv[0]).name} has no {flag}: it chooses methods and their options by "
                "itself. Leave the flag out, or run experiments/run.py for one method."
            )


def _early_preset(usual: PresetName | None) -> Config:
    """The preset that the command line names, read first since it sets the defaults of the flags.

    Plugins are imported first. Wrong flags are reported when the whole command line is read.
    """

    @dataclass(frozen=True)
    class Early:
        data: str | None = None
        preset: PresetName | None = usual
        model: str = "dnn"
        method: str | None = None
        plugins: tuple[Path, ...] = ()

    early, _ = tyro.cli(Early, return_unknown_args=True, add_help=False)
    for plugin in early.plugins:
        import_file(plugin)
    name = early.preset or ("small" if early.data is None else "paper")
    return preset(name, early.model, early.method)


def _flags_of(config: Config, hidden: tuple[str, ...] = ()) -> Config:
    """A config as the command line shows it: with choices of names, and options by flag."""
    own = {f.name: getattr(config, f.name) for f in fields(Config)} | {"options": ()}
    model = {f.name: getattr(config.model, f.name) for f in fields(ModelConfig)}
    methods = literal_type_from_choices(["none", *METHODS])
    names = literal_type_from_choices(list(MODELS))
    model_flag = tyro.conf.arg(name="model", prefix_name=False)
    named = Annotated[names, model_flag]  # type: ignore[valid-type]
    shown_model = make_dataclass(
        "ModelConfig", [("name", named)], bases=(ModelConfig,), frozen=True
    )
    options = {flag: config.of(kind) for flag, kind in option_kinds().items()}
    kinds: Any = get_type_hints(Config) | {flag: type(value) for flag, value in options.items()}
    fields_shown: dict[str, Any] = {
        "method": methods,
        "model": shown_model,
        "options": tyro.conf.Suppress[tuple[MethodConfig, ...]],
        **{flag: type(value) for flag, value in options.items()},
        **{name: tyro.conf.Suppress[kinds[name]] for name in hidden},  # type: ignore[misc]
    }
    shown = make_dataclass(
        "Config",
        list(fields_shown.items()),
        bases=(Config,),
        frozen=True,
        kw_only=True,
    )
    shown_model.__doc__, shown.__doc__ = ModelConfig.__doc__, Config.__doc__
    return shown(**own | {"model": shown_model(**model)} | options)


def _config_of(shown: Any) -> Config:
    """The inverse of `_flags_of`."""
    own = {f.name: getattr(shown, f.name) for f in fields(Config)}
    model = {f.name: getattr(shown.model, f.name) for f in fields(ModelConfig)}
    options = tuple(getattr(shown, flag) for flag in option_kinds())
    return Config(**own | {"model": ModelConfig(**model), "options": options})
