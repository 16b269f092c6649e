"""The stages of the methods other than iHAS: base model, search, choice, retraining, evaluation."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ihas_jax.data.drift import with_shares
from ihas_jax.models.base import count_parameters
from ihas_jax.selectors.registry import build_selector
from ihas_jax.selectors.selection import Selection
from ihas_jax.serving.bundle import Bundle, save_bundle
from ihas_jax.stages.chain import Stage
from ihas_jax.stages.choose import (
    choose,
    folded,
    kept_of_model,
    retrain_selection,
    selected_model,
)
from ihas_jax.stages.evaluate import scores_of
from ihas_jax.stages.pretrain import streamed_predict, train_base
from ihas_jax.stages.publish import publish
from ihas_jax.stages.run import Run, read_seconds
from ihas_jax.stages.search import Searches, search, streamed_selected
from ihas_jax.training.loop import Fitted


class MethodStages:
    """The results of the stages so far; a finished stage is read back instead of run.

    Which stages there are depends on the method: `none` has a base model only, and where the
    searched model is the outcome nothing is chosen and retrained.
    """

    def __init__(self, run: Run) -> None:
        """`run.config.method` names the method."""
        self.run = run
        self.method = run.config.method
        self.model = run.model()
        self.shared: dict[str, float] = {}
        if self.method != "none":
            self.selector = build_selector(run.config, self.model, run.epoch_steps)
        self.base: Fitted
        self.searches: Searches
        self.selection: Selection
        self.retrained: Fitted

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages by name, in their order."""
        base = {"base": Stage(self._base)}
        if self.method == "none":
            return base | {"evaluate": Stage(self._evaluate, ("base",))}
        searching = base | {"search": Stage(self._search)}
        if self._serves_search:
            return searching | {"evaluate": Stage(self._evaluate, ("base", "search"))}
        return searching | {
            "choose": Stage(self._choose, ("search",)),
            "retrain": Stage(self._retrain, ("search", "choose")),
            "evaluate": Stage(self._evaluate, ("base", "search", "choose", "retrain")),
        }

    @property
    def _serves_search(self) -> bool:
        """Whether the searched model is what comes of the method."""
        return self.method != "none" and self.selector.recipe.outcome == "search"

    def _base(self) -> float:
        self.base = train_base(self.run)
        return self.base.seconds

    def _search(self) -> float:
        self.searches = search(self.run, self.selector)
        return self.searches.seconds

    def _choose(self) -> float:
        self.selection, seconds = choose(self.run, self.selector, self.model, self.searches.fitted)
        return seconds

    def _retrain(self) -> float:
        self.retrained = retrain_selection(self.run, self.selector, self.selection, self.searches)
        return self.retrained.seconds

    def _evaluate(self) -> float:
        start = time.monotonic()
        run = self.run
        metrics: dict[str, Any] = {"base": self._scores_of_base()}
        histories = {"base": self.base.history}
        if self.method == "none":
            bundle = self._bundle(None, (self.base.params, self.base.batch_stats))
        else:
            fitted = self.searches.fitted
            metrics["search"] = self._scores_of_search()
            if self.searches.rewound is not None:
                histories["search, first epochs"] = self.searches.rewound.history
            histories["search"] = fitted.history
            if self._serves_search:
                metrics[self.method] = metrics.pop("search")
                bundle = self._bundle(None, (fitted.params, fitted.batch_stats))
            else:
                metrics[self.method] = self._scores_of_selection()
                metrics["selection"] = self._describe()
                histories["retrain"] = self.retrained.history
                weights = folded(selected_model(run, self.selection), self.retrained)
                bundle = self._bundle(self.selection, weights)
        save_bundle(bundle, run.workdir / "bundle")
        seconds = time.monotonic() - start
        metrics |= {
            "method": self.method,
            "seconds": read_seconds(run) | {"evaluate": round(seconds, 3)},
        }
        publish(run, metrics, histories)
        return seconds

    def _scores_of_base(self) -> dict[str, Any]:
        test, base = self.run.data.test, self.base
        probs = streamed_predict(self.model, "[evaluate] base")(
            (base.params, base.batch_stats), test.ids
        )
        return scores_of("base", test.labels, probs, count_parameters(base.params))

    def _scores_of_search(self) -> dict[str, Any]:
        test, fitted = self.run.data.test, self.searches.fitted
        predictor = streamed_selected(self.model, self.selector, "[evaluate] search")
        probs, kept = predictor((fitted.params, fitted.batch_stats), test.ids)
        scores = scores_of("search", test.labels, probs, count_parameters(fitted.params))
        return scores | {"kept": float(kept.mean())}

    def _scores_of_selection(self) -> dict[str, Any]:
        """`parameters` leaves out what a mask removes, and the row that removed values share.

        `bytes` has what says which numbers and values are kept.
        """
        test, model = self.run.data.test, selected_model(self.run, self.selection)
        weights = (self.retrained.params, self.retrained.batch_stats)
        probs = streamed_predict(model, "[evaluate] retrained model")(weights, test.ids)
        spec = self.model.embedding
        rest = count_parameters(self.retrained.params) - model.embedding.parameters
        numbers = rest + self.selection.parameters(spec)
        scores = scores_of(self.method, test.labels, probs, numbers)
        return scores | {"bytes": 4 * rest + self.selection.bytes(spec)}

    def _describe(self) -> dict[str, Any]:
        """Mean kept coordinates of the values of each field, and the share of all."""
        spec, schema = self.model.embedding, self.run.data.schema
        numbers = self.selection.parameters_by_field(spec)
        widths = np.array(numbers) / np.array(spec.sizes)
        return {
            "widths": dict(zip(schema.names, widths.tolist(), strict=True)),
            "kept": sum(numbers) / spec.parameters,
        }

    def _bundle(self, selection: Selection | None, weights: tuple[Any, Any]) -> Bundle:
        run = self.run
        return Bundle(
            config=run.config,
            searched=run.config.model,
            schema=with_shares(run.data),
            kept=(None if selection is None else kept_of_model(self.model, selection),),
            held=(None if selection is None else selection.held(self.model.embedding),),
            routes=(0,),
            router={},
            weights=(weights,),
        )
