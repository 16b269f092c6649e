"""The choosing stage of methods other than iHAS: one selection for all rows, and its model."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ihas_jax import checksums
from ihas_jax.files import read_json, write_json
from ihas_jax.models.base import (
    EMBEDDING,
    FACTORS,
    VALUES,
    BatchStats,
    Model,
    Params,
    cut_network,
)
from ihas_jax.nn.compact import slice_table
from ihas_jax.nn.embedding import Kept
from ihas_jax.progress import log
from ihas_jax.selectors.base import Selector
from ihas_jax.selectors.selection import Found, Selection, whole
from ihas_jax.stages.pretrain import pretrain_state, train_model
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import Searches
from ihas_jax.training.checkpoint import Checkpoints
from ihas_jax.training.loop import Fitted
from ihas_jax.training.optimizers import l2_adam, make_table_optimizer
from ihas_jax.training.steps import TrainState

_FACTS = "selection.json"


def choose(run: Run, selector: Selector, model: Model, searched: Fitted) -> tuple[Selection, float]:
    """What the method keeps of a searched model, and the seconds that choosing took."""
    folder = run.workdir / "choose"
    if (folder / _FACTS).exists() and (finished := _load(folder, model)) is not None:
        return finished
    start = time.monotonic()
    valid = run.data.valid
    found = Found(model, searched.params, searched.batch_stats, valid, run.key("choose"))
    selection = selector.choose(found)
    seconds = time.monotonic() - start
    _save(folder, selection, seconds)
    spec = model.embedding
    share = selection.parameters(spec) / spec.parameters
    log(f"[choose] keeps {share:.1%} of the embedding table")
    run.event("selection", {"kept": selection.kept, "share": share})
    return selection, seconds


def _save(folder: Path, selection: Selection, seconds: float) -> None:
    arrays = {"values": selection.values, "mask": selection.mask}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    folder.mkdir(parents=True, exist_ok=True)
    checksums.start(folder)
    if arrays:
        with Checkpoints(folder / "arrays", keep=1) as checkpoints:
            checkpoints.save({"selection": arrays}, {})
    facts = {"kept": selection.kept, "arrays": list(arrays), "scale": selection.scale}
    write_json(folder / _FACTS, facts | {"seconds": seconds})


def _load(folder: Path, model: Model) -> tuple[Selection, float] | None:
    facts = read_json(folder / _FACTS)
    kept = tuple(tuple(field) for field in facts["kept"])
    arrays: dict[str, np.ndarray] = {}
    if facts["arrays"]:
        values = sum(model.embedding.sizes)
        shapes = {"values": (values,), "mask": (values, model.embedding.dim)}
        like = {name: jax.ShapeDtypeStruct(shapes[name], np.bool_) for name in facts["arrays"]}
        with Checkpoints(folder / "arrays", keep=1) as checkpoints:
            found = checkpoints.restore({"selection": like})
        if found is None:
            return None
        arrays = {name: np.asarray(array) for name, array in found[0]["selection"].items()}
    selection = Selection(kept, arrays.get("values"), arrays.get("mask"), facts["scale"])
    return selection, facts["seconds"]


def selected_model(run: Run, selection: Selection) -> Model:
    """The click model of the kept coordinates and values."""
    full = run.model()
    return run.model(kept_of_model(full, selection), held=selection.held(full.embedding))


def kept_of_model(full: Model, selection: Selection) -> Kept | None:
    """The kept coordinates as a model is built with them: None for all."""
    return None if selection.kept == whole(full.embedding) else selection.kept


def retrain_selection(
    run: Run,
    selector: Selector,
    selection: Selection,
    searches: Searches,
) -> Fitted:
    """Trains the click model of a selection, with early stopping.

    It starts from what the method's recipe says: fresh weights, or the kept part of the weights
    that the search began with or came by. What the selection adds to its statistics stays there.

    Args:
      run: the run.
      selector: the method.
      selection: what it chose.
      searches: the trainings of its search.
    """
    full, model = run.model(), selected_model(run, selection)
    stopping = run.data.test if selector.recipe.stopping == "test" else run.data.valid
    start, source = selector.recipe.start, None
    if start == "rewound" and searches.rewound is not None:
        source = (searches.rewound.params, searches.rewound.batch_stats)
    elif start != "fresh":
        initial = pretrain_state(run, full, selector)
        source = (initial.params, initial.batch_stats)
    whole_network = start != "initial_embeddings"

    def begin(state: TrainState) -> TrainState:
        if source is not None:
            state = _inherit(run, model, state, selection, *source, whole_network=whole_network)
        added = jax.tree.map(jnp.asarray, selection.statistics(model.embedding))
        return dataclasses.replace(state, batch_stats=state.batch_stats | added)

    return train_model(run, "retrain", model, valid=stopping, start=begin)


def _inherit(
    run: Run,
    model: Model,
    state: TrainState,
    selection: Selection,
    params: Params,
    batch_stats: BatchStats,
    *,
    whole_network: bool,
) -> TrainState:
    """A state that starts with the kept part of a full-size model's weights."""
    full, tables = run.model(), dict(state.params["tables"])
    for name in full.tables if whole_network else (EMBEDDING,):
        values = selection.values if name == EMBEDDING else None
        table = params["tables"][name]
        tables[name] = slice_table(full.tables[name], table, model.tables[name], values)
    network, stats = state.params["network"], state.batch_stats
    if whole_network:
        normed = {name: tree for name, tree in stats.items() if name != VALUES}
        network, normed = (
            cut_network(full, model, {name: tree[name] for name in like}, like)
            for tree, like in ((params["network"], network), (batch_stats, normed))
        )
        stats = stats | normed
    config = run.config.optimizer
    return dataclasses.replace(
        state,
        params={"tables": tables, "network": network},
        batch_stats=stats,
        table_optimizer=make_table_optimizer(config).init(tables),
        network_optimizer=l2_adam(config).init(network),
    )


def folded(model: Model, fitted: Fitted) -> tuple[Params, BatchStats]:
    """The weights of a model whose factors are multiplied into its embedding table.

    It computes what the model computes, as a model without factors.
    """
    if FACTORS not in fitted.batch_stats:
        return fitted.params, fitted.batch_stats
    tables = dict(fitted.params["tables"])
    factors = fitted.batch_stats[FACTORS]
    tables[EMBEDDING] = {name: part * factors[name] for name, part in tables[EMBEDDING].items()}
    stats = {name: tree for name, tree in fitted.batch_stats.items() if name != FACTORS}
    return fitted.params | {"tables": tables}, stats
