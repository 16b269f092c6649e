"""The selection methods by name."""

from __future__ import annotations

from collections.abc import Callable

from ihas_jax.config import Config
from ihas_jax.errors import InputError
from ihas_jax.method_config import MethodName
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

_BUILDERS: dict[MethodName, Callable[[Config, Model, int], Selector]] = {
    "ihas": build_bernoulli,
    "autofield": build_autofield,
    "adafs_soft": build_adafs_soft,
    "adafs_hard": build_adafs_hard,
    "autodim": build_autodim,
    "pep": build_pep,
    "optembed": build_optembed,
    "optfs": build_optfs,
    "sseds": build_sseds,
    "dimreg": build_dimreg,
}


def build_selector(config: Config, model: Model, epoch_steps: int) -> Selector:
    """Builds the selector of the method that `config.method` names.

    Args:
      config: every choice of the run.
      model: the click model to search.
      epoch_steps: training steps of an epoch, by which some methods set their pace.

    Raises:
      InputError: there is no such selector, or the model can't carry it.
    """
    if config.method not in _BUILDERS:
        raise InputError(f"{config.method!r} selects nothing; there are {', '.join(_BUILDERS)}")
    return _BUILDERS[config.method](config, model, epoch_steps)
