"""Models that some methods can't work with."""

from __future__ import annotations

from ihas_jax.config import Config
from ihas_jax.errors import InputError
from ihas_jax.models.base import Model


def refuse_several_vectors(config: Config, model: Model) -> None:
    """Raises: InputError: embeddings of the model are several vectors side by side."""
    if model.embedding.vectors_per_field > 1:
        raise InputError(
            f"--method {config.method} does not go with --model {config.model.name}, whose "
            f"embeddings are {model.embedding.vectors_per_field} vectors side by side instead of "
            "one of a size to choose. Take another model or method."
        )


def refuse_zero_start(config: Config, model: Model) -> None:
    """Raises: InputError: embeddings of the model are zeros when the search starts."""
    if model.embedding.init == "zeros" and config.search.pretrain_epochs == 0:
        raise InputError(
            f"--method {config.method} keeps what is not near zero, and embeddings of --model "
            f"{config.model.name} start at zero and would stay there. Pass "
            "--search.pretrain-epochs 1, or --model.linear-init normal."
        )
