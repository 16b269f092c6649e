"""Selection methods, and what authors of a method need.

A method (the word of users) is a selector (the word of the code) with a recipe of stages: how its
gates are searched, and the plan of models to retrain that it makes of a search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ihas_jax.lazy import names_of_api

if TYPE_CHECKING:
    from ihas_jax.selectors.api import *  # noqa: F403
else:
    __getattr__, __dir__ = names_of_api(__name__)
