"""The bundle of a run: schema, router and compact models; raw rows in, probabilities out."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax import checksums
from ihas_jax.config import Config, ModelConfig, from_json, to_json
from ihas_jax.data.checks import as_ids
from ihas_jax.data.schema import Schema
from ihas_jax.errors import InputError
from ihas_jax.files import write_json
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, SELECTOR, Model, init_model
from ihas_jax.nn.embedding import Kept, init_table
from ihas_jax.selectors.base import Selector
from ihas_jax.selectors.registry import build_selector
from ihas_jax.stages.cluster import make_assign, masked_embeddings
from ihas_jax.stages.evaluate import predict_routed
from ihas_jax.stages.pretrain import streamed_predict
from ihas_jax.stages.search import init_search, predict_selected
from ihas_jax.training.checkpoint import Checkpoints
from ihas_jax.training.streaming import Streamed

if TYPE_CHECKING:
    from ihas_jax.data.encoder import Encoder

_ANEW = (
    "Delete that folder and run experiments/run.py again with the same flags: its last stage "
    "writes it anew."
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """Everything that prediction needs.

    Methods other than iHAS have one model and no router. Where the searched model is the outcome,
    its weights have the selector's among them.

    Attributes:
      config: the run's config.
      searched: the click model whose gates route; the run's own, or another's in a transfer.
      schema: vocabularies of the fields.
      kept: kept coordinates of each compact model, None for a model with all of them.
      held: for each the number of kept values of each field, None for a model with all of them.
      routes: for each cluster the index of the model that serves it.
      router: `{"params": {"tables", "selector"}, "centroids": [C, K]}`, or empty.
      weights: `(params, batch_stats)` of each model; which values have rows is in the latter.
    """

    config: Config
    searched: ModelConfig
    schema: Schema
    kept: tuple[Kept | None, ...]
    held: tuple[tuple[int, ...] | None, ...]
    routes: tuple[int, ...]
    router: dict[str, Any]
    weights: tuple[tuple[Any, Any], ...]

    @cached_property
    def _base(self) -> Model:
        return build_model(self.searched, self.schema.sizes)

    @cached_property
    def _selector(self) -> Selector:
        return build_selector(self.config, self._base, 1)

    @cached_property
    def _assign(self) -> Streamed:
        return make_assign(self._base, self._selector)

    @cached_property
    def _masks(self) -> Streamed:
        def masks(params: Any, ids: Array) -> Array:
            return masked_embeddings(self._base, self._selector, params, ids).masks.astype(jnp.int8)

        return Streamed(masks, "[predict] gates")

    @cached_property
    def _experts(self) -> list[tuple[Streamed, Any]]:
        if self._serves_search:
            predictors = [Streamed(self._predict_selected, "[predict] searched model")]
        else:
            name = "[predict] routed models" if self.router else "[predict] model"
            predictors = [streamed_predict(model, name) for model in self.models]
        return list(zip(predictors, self.weights, strict=True))

    def _predict_selected(self, weights: Any, ids: Array) -> Array:
        return predict_selected(self._base, self._selector, weights[0], weights[1], ids)[0]

    @property
    def _serves_search(self) -> bool:
        """Whether the model selects while it predicts."""
        return self.config.method != "none" and self._selector.recipe.outcome == "search"

    @cached_property
    def _encoder(self) -> Encoder:
        from ihas_jax.data.encoder import Encoder  # polars is needed for raw rows only

        return Encoder(self.schema)

    @cached_property
    def models(self) -> tuple[Model, ...]:
        """The compact models."""
        sizes = self.schema.sizes
        return tuple(
            build_model(self.config.model, sizes, kept=kept, held=held)
            for kept, held in zip(self.kept, self.held, strict=True)
        )

    def assign(self, ids: np.ndarray) -> np.ndarray:
        """Cluster `[n]` of each row of ids `[n, N]`.

        Raises:
          InputError: as `predict_ids`.
        """
        return self._cluster(self._check(ids))

    def _cluster(self, ids: np.ndarray) -> np.ndarray:
        if not len(ids):
            return np.zeros(0, np.int32)
        if not self.router or len(self.routes) == 1:
            return np.zeros(len(ids), np.int32)
        weights = (self.router["params"], self.router["centroids"])
        return self._assign(weights, ids)

    def masks(self, ids: np.ndarray) -> np.ndarray:
        """Open gates `[n, K]` of each row of ids `[n, N]`, int8; K = N * D, field by field.

        Raises:
          InputError: as `predict_ids`; or the run is of a method other than iHAS.
        """
        if not self.router:
            raise InputError(f"A run of the method {self.config.method} has no gates for each row.")
        ids = self._check(ids)
        if not len(ids):
            return np.zeros((0, self._base.embedding.coordinates), np.int8)
        return self._masks(self.router["params"], ids)

    def predict_ids(self, ids: np.ndarray) -> np.ndarray:
        """Click probabilities `[n]` for ids `[n, N]`, each row by its cluster's model.

        Args:
          ids: integers of any dtype, local to each field and by the bundle's own schema.

        Raises:
          InputError: the ids are not integers `[n, N]`, or one is none of its field; the message
            names the row and the field.
        """
        ids = self._check(ids)
        if len(self.kept) == 1:
            predictor, weights = self._experts[0]
            return predictor(weights, ids) if len(ids) else np.zeros(0, np.float32)
        return predict_routed(self._experts, self.routes, self._cluster(ids), ids)

    def _check(self, ids: np.ndarray) -> np.ndarray:
        return as_ids(ids, self.schema.sizes, self.schema.names)

    def predict_proba(self, rows: Any) -> np.ndarray:
        """Click probabilities `[n]` for raw rows.

        Warns with `OtherShareWarning` where far more values of a field are unknown than in the log
        that the vocabularies were counted on.

        Args:
          rows: a data frame of Polars (also lazy), pandas or PyArrow, a mapping of columns by name,
            one row as a mapping of scalars, or a list of such rows.

        Raises:
          InputError: as `ihas_jax.data.encoder.Encoder`.
        """
        return self.predict_ids(self._encoder(rows))


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Writes a bundle to a folder of its own, which appears all at once."""
    arrays = {"models": {str(i): weights for i, weights in enumerate(_named(bundle.weights))}}
    if bundle.router:
        router = bundle.router["params"]
        arrays["router"] = {
            "tables": {EMBEDDING: router["tables"][EMBEDDING]},
            SELECTOR: router[SELECTOR],
            "centroids": bundle.router["centroids"],
        }
    facts = {
        "config": to_json(bundle.config),
        "searched": to_json(bundle.searched),
        "kept": bundle.kept,
        "held": bundle.held,
        "routes": bundle.routes,
    }
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    bundle.schema.save(partial / "schema.json")
    with Checkpoints(partial / "arrays", keep=1) as checkpoints:
        checkpoints.save(arrays, {})
    write_json(partial / "bundle.json", facts)
    checksums.seal(partial)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    partial.rename(path)


def load_bundle(path: str | Path) -> Bundle:
    """Reads the bundle of a run, given the run's folder or the bundle's own.

    Raises:
      InputError: there is no complete bundle.
    """
    path = Path(path)
    path = path / "bundle" if (path / "bundle").is_dir() else path
    if damaged := checksums.damaged(path):
        raise InputError(
            f"{path / damaged[0]} is damaged: it has another checksum than when it was written. "
            + _ANEW
        )
    try:
        facts = json.loads((path / "bundle.json").read_text(encoding="utf-8"))
        config = from_json(Config, facts["config"])
        searched = from_json(ModelConfig, facts.get("searched", facts["config"]["model"]))
        kept = tuple(
            None if model is None else tuple(tuple(field) for field in model)
            for model in facts["kept"]
        )
        held = facts.get("held", (None,) * len(kept))
        held = tuple(None if model is None else tuple(model) for model in held)
        routes = tuple(facts["routes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no complete bundle ({error}). A run writes it in its last stage; run "
            "experiments/run.py to the end, then pass its --output folder."
        ) from None
    bundle = Bundle(config, searched, Schema.load(path / "schema.json"), kept, held, routes, {}, ())
    key = jax.random.key(0)

    routed = config.method == "ihas"

    def shapes() -> Any:
        if bundle._serves_search:
            state = init_search(key, config, bundle._base, bundle._selector)
            weights = [(state.params, state.batch_stats)]
        else:
            weights = [init_model(key, model) for model in bundle.models]
        models = {"models": {str(i): named for i, named in enumerate(_named(weights))}}
        if not routed:
            return models
        centroids = jnp.zeros((len(bundle.routes), bundle._base.embedding.coordinates))
        router = {
            "tables": {EMBEDDING: init_table(key, bundle._base.embedding)},
            SELECTOR: bundle._selector.init(key).gates,
            "centroids": centroids,
        }
        return models | {"router": router}

    with Checkpoints(path / "arrays", read_only=True) as checkpoints:
        found = checkpoints.restore(jax.eval_shape(shapes))
    if found is None:
        raise InputError(f"{path} holds no undamaged arrays. {_ANEW}")
    arrays = found[0]
    models = (arrays["models"][str(i)] for i in range(len(kept)))
    weights = tuple((trees["params"], trees.get("batch_stats", {})) for trees in models)
    router = dict(arrays.get("router", {}))
    if router:
        router = {"centroids": router.pop("centroids"), "params": router}
    return dataclasses.replace(bundle, router=router, weights=weights)


def _named(weights: Sequence[tuple[Any, Any]]) -> list[dict[str, Any]]:
    named = [{"params": params, "batch_stats": stats} for params, stats in weights]
    return [{name: tree for name, tree in item.items() if tree} for item in named]
