"""The selection methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ihas_jax.config import AdamConfig, Config, SearchConfig
from ihas_jax.errors import InputError
from ihas_jax.models.base import Model
from ihas_jax.selectors.adafs import build_adafs_hard, build_adafs_soft
from ihas_jax.selectors.autodim import build_autodim
from ihas_jax.selectors.autofield import build_autofield
from ihas_jax.selectors.base import Selector
from ihas_jax.selectors.bernoulli import build_bernoulli
from ihas_jax.selectors.dimreg import build_dimreg
from ihas_jax.selectors.optembed import build_optembed
from ihas_jax.selectors.optfs import build_optfs
from ihas_jax.selectors.pep import build_pep
from ihas_jax.selectors.sseds import build_sseds

Builder = Callable[[Config, Model, int], Selector]
"""`build(config, model, epoch_steps)` makes the selector of a run; see `build_selector`."""


@dataclass(frozen=True)
class Method:
    """A selection method as runs, presets and reports know it.

    Attributes:
      title: the name of the method in reports.
      build: makes the selector of the method.
      search: pretraining and gate steps of the published code.
      small: values of `search` that differ for logs of up to a few million rows.
    """

    title: str
    build: Builder
    search: SearchConfig = field(default_factory=SearchConfig)
    small: Mapping[str, Any] = field(default_factory=dict)


# the searched model is the outcome of these methods: few validation rows can't both fit and judge
# it, and it must not have fitted a small log before the search begins
_SEARCHED = {"stopping_share": 0.5, "pretrain_epochs": 1}
# a small log has too few gate steps to move the gates at the published learning rate of 1e-3
_FASTER = {"gate_optimizer": AdamConfig(learning_rate=1e-2)}
_AT_ONCE = SearchConfig(pretrain_epochs=0)
_BILEVEL = SearchConfig(pretrain_epochs=2, gate_every=10)

METHODS: dict[str, Method] = {
    "pep": Method("PEP", build_pep, _AT_ONCE),
    "autofield": Method("AutoField", build_autofield, SearchConfig(0, 10), _FASTER),
    "optembed": Method("OptEmbed", build_optembed, _AT_ONCE),
    "adafs_soft": Method("AdaFS-soft", build_adafs_soft, _BILEVEL, _SEARCHED),
    "adafs_hard": Method("AdaFS-hard", build_adafs_hard, _BILEVEL, _SEARCHED),
    "optfs": Method("OptFS", build_optfs, _AT_ONCE),
    "autodim": Method("AutoDim", build_autodim, _BILEVEL, _FASTER),
    "sseds": Method("SSEDS", build_sseds, _AT_ONCE),
    "dimreg": Method("DimReg", build_dimreg, SearchConfig(0, 1)),
    "ihas": Method("iHAS", build_bernoulli),
}
"""The selection methods by name, in the order of the paper's Table 2."""


def find_method(name: str) -> Method:
    """The method with a name.

    Raises:
      InputError: there is no such method.
    """
    if name not in METHODS:
        raise InputError(f"There is no method {name!r}; the methods are {', '.join(METHODS)}.")
    return METHODS[name]


def build_selector(config: Config, model: Model, epoch_steps: int) -> Selector:
    """Builds the selector of the method that `config.method` names.

    Args:
      config: every choice of the run.
      model: the click model to search.
      epoch_steps: training steps of an epoch, from which some methods set their learning rate.

    Raises:
      InputError: there is no such selector, or the model can't carry it.
    """
    return find_method(config.method).build(config, model, epoch_steps)
