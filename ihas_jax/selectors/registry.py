"""The selection methods by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ihas_jax.config import (
    AdamConfig,
    ClusterConfig,
    Config,
    GateConfig,
    MethodConfig,
    SearchConfig,
    from_json,
    to_json,
)
from ihas_jax.config.methods import (
    AdaFSConfig,
    AutoDimConfig,
    AutoEmbConfig,
    AutoFieldConfig,
    DimRegConfig,
    OptEmbedConfig,
    OptFSConfig,
    PepConfig,
    SsedsConfig,
)
from ihas_jax.config.shares import (
    MagnitudeConfig,
    MixedConfig,
    RandomConfig,
    SpectralConfig,
    UniformConfig,
)
from ihas_jax.errors import InputError
from ihas_jax.models.base import Model
from ihas_jax.registry import Registry, require_name
from ihas_jax.selectors.base import Selector, idle_untrained
from ihas_jax.selectors.budget import require_room
from ihas_jax.selectors.plan import ENTRIES

Builder = Callable[[Config, Model, int], Selector]
"""`build(config, model, epoch_steps)` makes the selector of a run; see `build_selector`."""


@dataclass(frozen=True)
class Method:
    """A selection method as runs, presets and reports know it.

    Attributes:
      title: the name of the method in reports.
      build: makes the selector of the method.
      options: the classes of the choices of the method, if it has any.
      search: pretraining and gate steps of the published code.
      small: values of `search` that differ for logs of up to a few million rows.
      serves_searched: whether the searched model is the outcome, so that nothing is retrained.
      idle: the flags that would have no effect under a config, with a clause that says why and what
        to do; a run with another value of theirs is refused.
    """

    title: str
    build: Builder
    options: tuple[type[MethodConfig], ...] = ()
    search: SearchConfig = field(default_factory=SearchConfig)
    small: Mapping[str, Any] = field(default_factory=dict)
    serves_searched: bool = False
    idle: Callable[[Config], Mapping[str, str]] = lambda config: {}


def _later(place: str) -> Callable[..., Any]:
    """A function of a module of this package, which is imported at the first call.

    So a process that only predicts imports no methods but those that it serves.
    """
    module, function = place.split(".")

    def call(*arguments: Any) -> Any:
        return getattr(import_module(f"ihas_jax.selectors.{module}"), function)(*arguments)

    return call


# the searched model is the outcome of these methods: few validation rows can't both fit and judge
# it, and it must not have fitted a small log before the search begins
_SEARCHED = {"stopping_share": 0.5, "pretrain_epochs": 1}
# a small log has too few gate steps to move the gates at the published learning rate of 1e-3
_FASTER = {"gate_optimizer": AdamConfig(learning_rate=1e-2)}
_AT_ONCE = SearchConfig(pretrain_epochs=0)
_BILEVEL = SearchConfig(pretrain_epochs=2, gate_every=10)
_EACH_STEP = SearchConfig(0, 1, gate_optimizer=AdamConfig(learning_rate=1e-4))

METHODS: Registry[Method] = Registry(
    "method",
    "method",
    {
        "pep": Method("PEP", _later("pep.build_pep"), (PepConfig,), _AT_ONCE),
        "autofield": Method(
            *("AutoField", _later("autofield.build_autofield"), (AutoFieldConfig,)),
            *(SearchConfig(0, 10), _FASTER),
        ),
        "optembed": Method(
            "OptEmbed", _later("optembed.build_optembed"), (OptEmbedConfig,), _AT_ONCE
        ),
        "adafs_soft": Method(
            *("AdaFS-soft", _later("adafs.build_adafs_soft"), (AdaFSConfig,), _BILEVEL, _SEARCHED),
            serves_searched=True,
        ),
        "adafs_hard": Method(
            *("AdaFS-hard", _later("adafs.build_adafs_hard"), (AdaFSConfig,), _BILEVEL, _SEARCHED),
            serves_searched=True,
        ),
        "optfs": Method("OptFS", _later("optfs.build_optfs"), (OptFSConfig,), _AT_ONCE),
        "autodim": Method(
            "AutoDim", _later("autodim.build_autodim"), (AutoDimConfig,), _BILEVEL, _FASTER
        ),
        "autoemb": Method(
            *("AutoEmb", _later("autoemb.build_autoemb"), (AutoEmbConfig,)),
            *(_EACH_STEP, {"stopping_share": 0.5, "gate_optimizer": AdamConfig()}),
            serves_searched=True,
        ),
        "sseds": Method("SSEDS", _later("sseds.build_sseds"), (SsedsConfig,), _AT_ONCE),
        "dimreg": Method(
            "DimReg", _later("dimreg.build_dimreg"), (DimRegConfig,), SearchConfig(0, 1)
        ),
        "spectral": Method(
            *("Spectral", _later("spectral.build_spectral")),
            *((SpectralConfig, ClusterConfig), _AT_ONCE),
            idle=_later("spectral.idle_in_spectral"),
        ),
        "uniform": Method(
            *("Uniform size", _later("uniform.build_uniform"), (UniformConfig,), _AT_ONCE),
            idle=idle_untrained,
        ),
        "mixed": Method(
            *("Mixed sizes", _later("mixed.build_mixed"), (MixedConfig,), _AT_ONCE),
            idle=idle_untrained,
        ),
        "magnitude": Method(
            "Magnitude", _later("magnitude.build_magnitude"), (MagnitudeConfig,), _AT_ONCE
        ),
        "random": Method(
            *("Random", _later("random_choice.build_random"), (RandomConfig,), _AT_ONCE),
            idle=idle_untrained,
        ),
        "ihas": Method(
            *("iHAS", _later("bernoulli.build_bernoulli"), (GateConfig, ClusterConfig)),
            idle=_later("bernoulli.idle_in_gates"),
        ),
    },
    others=("none",),
    reserved=dict.fromkeys(ENTRIES, "metrics.json has an entry of that name"),
)
"""The selection methods by name, in the order of Table 2: others', the baselines, iHAS."""


def register_method(name: str, method: Method) -> None:
    """Makes a method known by a name to `fit`, presets, tables and command lines.

    A process that loads a run or a bundle of the method registers it first, too.

    Args:
      name: small letters, digits and _; a name that was registered before gets the new method.
        Names of other entries of metrics.json are reserved.
      method: the method, whose options have defaults for all fields; a class of options that was
        defined anew, as in a notebook, replaces the one before.

    Raises:
      InputError: the name or the flag of options is not a name, is taken or is reserved, options
        are not a tuple of classes, a field of options has no default, options can't be stored as
        JSON, or their `choice` names no fields.
    """
    if not isinstance(method.options, tuple):
        raise InputError(
            f"The options of the method {name!r} must be a tuple of classes, such as (MyConfig,), "
            f"not {method.options}."
        )
    taken: dict[str, Any] = {f.name: None for f in dataclasses.fields(Config)}
    for other, known in METHODS.items():
        taken |= {kind.flag: kind for kind in known.options if other != name}
    for kind in method.options:
        _require_options(kind)
        if kind.flag in taken and _place(taken[kind.flag]) != _place(kind):
            raise InputError(
                f"The options {kind.__name__} of the method {name!r} have the flag {kind.flag!r}, "
                "which is taken; choose another one."
            )
        taken[kind.flag] = kind
    METHODS.register(name, method)


def _require_options(kind: Any) -> None:
    """Raises: InputError: flags and JSON can't be made from a class of options."""
    suits = isinstance(kind, type) and issubclass(kind, MethodConfig)
    if not (suits and "__dataclass_fields__" in vars(kind)):
        raise InputError(
            "The options of a method must be subclasses of MethodConfig with @dataclass, not "
            f"{kind}."
        )
    require_name(getattr(kind, "flag", ""), f"the flag of {kind.__name__}")
    names = [f.name for f in dataclasses.fields(kind)]
    for f in dataclasses.fields(kind):
        if f.name in ("flag", "choice", "amount"):
            raise InputError(
                f"The {f.name} of {kind.__name__} must have no type, or it is a field."
            )
        if f.default is f.default_factory is dataclasses.MISSING:
            raise InputError(f"The field {f.name!r} of {kind.__name__} needs a default.")
    for name in ("choice", "amount"):
        listed = getattr(kind, name)
        if not (isinstance(listed, tuple) and {*listed} <= {*names}):
            raise InputError(
                f"The {name} of {kind.__name__} must be a tuple of names of its fields, not "
                f"{listed!r}."
            )
    default = kind()
    try:
        stored = from_json(kind, to_json(default)) == default
    except TypeError:
        stored = False
    if not stored:
        raise InputError(
            f"{kind.__name__} can't be stored as JSON: its fields must be numbers, text, None, "
            "tuples of these, or frozen dataclasses."
        )


def _place(kind: Any) -> tuple[str, str] | None:
    """Where a class is defined, which stays when the class is defined anew."""
    return kind and (kind.__module__, kind.__qualname__)


def build_selector(config: Config, model: Model, epoch_steps: int) -> Selector:
    """Builds the selector of the method that `config.method` names.

    Args:
      config: every choice of the run.
      model: the click model to search.
      epoch_steps: training steps of an epoch, from which some methods set their learning rate.

    Raises:
      InputError: there is no such selector, the model can't carry it, or it can't keep to the
        budget.
    """
    method = METHODS.find(config.method)
    selector = method.build(config, model, epoch_steps)
    if config.budget is None:
        return selector
    if method.serves_searched:
        raise InputError(
            f"--method {config.method} serves its searched model, whose table is whole, so it "
            "can't keep to --budget. Leave --budget out and choose a smaller --model.dim."
        )
    require_room("budget", config.budget, model.embedding)
    return selector
