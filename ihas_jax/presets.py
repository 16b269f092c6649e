"""Presets: the values that the choices of a run start from."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from ihas_jax.config import ClusterConfig, Config, ModelConfig, SearchConfig
from ihas_jax.errors import InputError
from ihas_jax.models import MODELS
from ihas_jax.selectors.registry import METHODS

PresetName = Literal["paper", "small", "compact", "reference"]

_REFERENCE: dict[str, dict[str, Any]] = {
    "ffm": {"dim": 4},
    "nfm": {"dim": 64, "hidden": (64,)},
    "fnfm": {"dim": 4, "hidden": (64,)},
    "ipnn": {"hidden": (16,)},
    "opnn": {"hidden": (16,)},
    "autoint": {"hidden": (400, 400), "dropout": 0.0},
    "afn": {"hidden": (400, 400, 400), "dropout": 0.0},
}


def preset(name: PresetName, model: str = "dnn", method: str | None = None) -> Config:
    """The starting values of a run with a click model and a selection method.

    `paper` is the paper's setting for logs of tens of millions of rows. `small` is for logs of
    up to a few million rows: smaller batches, so that an epoch has enough steps to learn from;
    gate updates every second batch, since one per 100 would leave the gates where they started;
    two epochs of pretraining, since a small log is soon fitted; and one more epoch of patience.
    `compact` is the recipe that we recommend: the batches of `small`, an eighth of the table by
    Spectral, or iHAS on principal axes in one cluster, teachers, and smaller steps at the end.
    `reference` has the sizes, batch norm, dropout and initial weights of the model in the examples
    of pytorch-fm, on which the paper builds; models that pytorch-fm lacks have its most frequent
    ones. Pretraining and gate steps are those of the method's published code.

    Args:
      name: the preset.
      model: the click model.
      method: the selection method; by default ihas, or spectral for `compact`.

    Raises:
      InputError: there is no such preset, click model or method.
    """
    if name not in get_args(PresetName):
        names = ", ".join(get_args(PresetName))
        raise InputError(f"There is no preset {name!r}; the presets are {names}.")
    MODELS.find(model)
    method = method or ("spectral" if name == "compact" else "ihas")
    config = Config(method=method, model=ModelConfig(model), search=search_of(method, name))
    if name == "reference":
        usual: dict[str, Any] = {"hidden": (16, 16), "batch_norm": True, "dropout": 0.2}
        usual |= {"init": "torch", "linear_init": "normal"} | _REFERENCE.get(model, {})
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **usual))
    if name == "paper":
        return config
    train = dataclasses.replace(config.train, batch_size=512, patience=3)
    config = dataclasses.replace(config, train=train)
    return _compact(config) if name == "compact" else config


def _compact(config: Config) -> Config:
    """The recommended recipe, on the values of `small`."""
    own: dict[str, Any] = {"budget": None if config.method == "none" else 0.125}
    if config.method == "ihas":
        own["search"] = dataclasses.replace(config.search, rotate=True)
        config = config.having(ClusterConfig(clusters=1, axes="own"))
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(config.optimizer, l2=1e-5),
        train=dataclasses.replace(config.train, finish=(0.2, 0.04)),
        retrain=dataclasses.replace(config.retrain, teachers=("ffm", "dcnv2", "deepfm")),
        **own,
    )


def search_of(method: str, name: PresetName) -> SearchConfig:
    """Pretraining and gate steps of a method under a preset."""
    found = None if method == "none" else METHODS.find(method)
    search = SearchConfig() if found is None else found.search
    if name in ("paper", "reference"):
        return search
    every, epochs = min(search.gate_every, 2), min(search.pretrain_epochs, 2)
    search = dataclasses.replace(search, gate_every=every, pretrain_epochs=epochs)
    return search if found is None else dataclasses.replace(search, **found.small)
