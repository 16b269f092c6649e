"""What a comparison at several budgets refuses before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ihas_jax.config import Config
from ihas_jax.errors import InputError
from ihas_jax.flags import value_of
from ihas_jax.selectors.registry import METHODS


def sorted_budgets(budgets: Sequence[float]) -> tuple[float, ...]:
    """The budgets from the smallest on.

    Raises:
      InputError: there is no budget, or a budget is out of range or named twice.
    """
    if not budgets or len(set(budgets)) < len(budgets):
        raise InputError("Name at least one share as --budgets, and none of them twice.")
    for budget in budgets:
        if not 0 < budget <= 1:
            raise InputError(f"--budgets {budget} must be a share above 0 and at most 1.")
    return tuple(sorted(budgets))


def refuse_amounts(config: Config, methods: Iterable[str]) -> None:
    """Raises: InputError: a flag says how much is kept by a method whose rows have budgets."""
    for method in methods:
        for option in METHODS.find(method).options:
            for name in option.amount:
                flag = f"{option.flag}.{name}"
                if value_of(config, flag) != value_of(Config(), flag):
                    raise InputError(
                        f"Every row has a budget of its own; leave --{flag.replace('_', '-')} out."
                    )
