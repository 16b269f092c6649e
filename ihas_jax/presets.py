"""Presets: the values that the choices of a run start from."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from ihas_jax.config import Config, ModelConfig, SearchConfig
from ihas_jax.errors import InputError
from ihas_jax.models import MODELS
from ihas_jax.selectors.registry import METHODS

PresetName = Literal["paper", "small", "reference"]

_REFERENCE: dict[str, dict[str, Any]] = {
    "ffm": {"dim": 4},
    "nfm": {"dim": 64, "hidden": (64,)},
    "fnfm": {"dim": 4, "hidden": (64,)},
    "ipnn": {"hidden": (16,)},
    "opnn": {"hidden": (16,)},
    "autoint": {"hidden": (400, 400), "dropout": 0.0},
    "afn": {"hidden": (400, 400, 400), "dropout": 0.0},
}


def preset(name: PresetName, model: str = "dnn", method: str = "ihas") -> Config:
    """The starting values of a run with a click model and a selection method.

    `paper` is the paper's setting for logs of tens of millions of rows. `small` is for logs of
    up to a few million rows: smaller batches, so that an epoch has enough steps to learn from;
    gate updates every second batch, since one per 100 would leave the gates where they started;
    two epochs of pretraining, since a small log is soon fitted; and one more epoch of patience.
    `reference` has the sizes, batch norm, dropout and initial weights of the model in the examples
    of pytorch-fm, on which the paper builds; models that pytorch-fm lacks have its most frequent
    ones. Pretraining and gate steps are those of the method's published code.

    Raises:
      InputError: there is no such preset, click model or method.
    """
    if name not in get_args(PresetName):
        names = ", ".join(get_args(PresetName))
        raise InputError(f"There is no preset {name!r}; the presets are {names}.")
    MODELS.find(model)
    config = Config(method=method, model=ModelConfig(model), search=search_of(method, name))
    if name == "reference":
        usual: dict[str, Any] = {"hidden": (16, 16), "batch_norm": True, "dropout": 0.2}
        usual |= {"init": "torch", "linear_init": "normal"} | _REFERENCE.get(model, {})
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **usual))
    if name == "small":
        train = dataclasses.replace(config.train, batch_size=512, patience=3)
        return dataclasses.replace(config, train=train)
    return config


def search_of(method: str, name: PresetName) -> SearchConfig:
    """Pretraining and gate steps of a method under a preset."""
    found = None if method == "none" else METHODS.find(method)
    search = SearchConfig() if found is None else found.search
    if name != "small":
        return search
    every, epochs = min(search.gate_every, 2), min(search.pretrain_epochs, 2)
    search = dataclasses.replace(search, gate_every=every, pretrain_epochs=epochs)
    return search if found is None else dataclasses.replace(search, **found.small)
