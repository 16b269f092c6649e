"""The stages of iHAS: base model, search, clusters, retraining, evaluation."""

from __future__ import annotations

import time

import numpy as np

from ihas_jax.data.drift import with_shares
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.serving.bundle import Bundle, save_bundle
from ihas_jax.stages.chain import Stage
from ihas_jax.stages.cluster import Clusters, Searched, fit_clusters
from ihas_jax.stages.evaluate import evaluate
from ihas_jax.stages.pretrain import train_base
from ihas_jax.stages.publish import publish
from ihas_jax.stages.retrain import Plan, plan_experts, retrain
from ihas_jax.stages.run import Run, read_seconds
from ihas_jax.stages.search import search
from ihas_jax.training.checkpoint import Checkpoints
from ihas_jax.training.loop import Fitted


class IhasStages:
    """The results of the stages so far; a finished stage is read back instead of run."""

    def __init__(self, run: Run, source: Run) -> None:
        """`source` is the run whose folder holds search and clusters, most often the same."""
        self.run, self.source = run, source
        self.model = source.model()
        self.selector = BernoulliGates(run.config.gates, self.model.embedding.coordinates)
        shared = read_seconds(source) if source is not run else {}
        self.shared = {name: s for name, s in shared.items() if name in ("search", "cluster")}
        self.base: Fitted
        self.fitted: Fitted
        self.searched: Searched
        self.curve: list[dict[str, float]]
        self.plan: Plan
        self.retrained: list[Fitted]

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages by name, in their order."""
        return {
            "base": Stage(self._base),
            "search": Stage(self._search),
            "cluster": Stage(self._cluster, ("search",)),
            "retrain": Stage(self._retrain, ("search", "cluster")),
            "evaluate": Stage(self._evaluate, ("base", "search", "cluster", "retrain")),
        }

    def _base(self) -> float:
        self.base = train_base(self.run)
        return self.base.seconds

    def _search(self) -> float:
        searches = search(self.source, self.selector)
        self.fitted = searches.fitted
        return searches.seconds

    def _cluster(self) -> float:
        start = time.monotonic()
        run, config = self.source, self.source.config
        n_train, n_valid = len(run.data.train.labels), len(run.data.valid.labels)
        coordinates = self.selector.coordinates
        shape = (config.cluster.clusters, coordinates)
        target = Clusters(
            centroids=np.zeros(shape, np.float32),
            mean_masks=np.zeros(shape, np.float32),
            counts=np.zeros(shape[:1], np.int64),
            train=np.zeros(n_train, np.int32),
            valid=np.zeros(n_valid, np.int32),
        )
        with Checkpoints(run.workdir / "cluster") as checkpoints:
            found = checkpoints.restore({"clusters": vars(target)})
            if found is not None:
                items, facts = found
                arrays = {name: np.asarray(leaf) for name, leaf in items["clusters"].items()}
                self._set_clusters(Clusters(**arrays), facts["curve"])
                return float(facts["seconds"])
            clusters, curve = fit_clusters(
                self.model,
                self.selector,
                self.fitted.params,
                run.data.train.ids,
                run.data.valid.ids,
                config.cluster,
                run.seed("cluster"),
            )
            seconds = time.monotonic() - start
            self._set_clusters(clusters, [point._asdict() for point in curve])
            facts = {"seconds": seconds, "curve": self.curve}
            checkpoints.save({"clusters": vars(clusters)}, facts)
        run.event("clusters", {"counts": clusters.counts.tolist(), "curve": self.curve})
        return seconds

    def _set_clusters(self, clusters: Clusters, curve: list[dict[str, float]]) -> None:
        self.searched = Searched(self.model, self.selector, self.fitted, clusters)
        self.curve = curve

    def _retrain(self) -> float:
        run, data = self.run, self.run.data
        self.plan = plan_experts(
            self.searched.clusters, data.train.labels, data.valid.labels, run.config.cluster,
            self.model.embedding, run.model().embedding,
        )  # fmt: skip
        self.retrained = retrain(run, self.plan, self.model, self.fitted.params)
        return sum(fitted.seconds for fitted in self.retrained)

    def _evaluate(self) -> float:
        start = time.monotonic()
        run = self.run
        evaluation = evaluate(run, self.base, self.searched, self.plan, self.retrained)
        spec = run.model().embedding
        selections = [expert.selection for expert in self.plan.experts]
        bundle = Bundle(
            config=run.config,
            searched=self.source.config.model,
            schema=with_shares(run.data),
            kept=tuple(selection.kept for selection in selections),
            held=tuple(selection.held(spec) for selection in selections),
            routes=self.plan.routes,
            router={"params": self.fitted.params, "centroids": self.searched.clusters.centroids},
            weights=tuple((fitted.params, fitted.batch_stats) for fitted in self.retrained),
        )
        save_bundle(bundle, run.workdir / "bundle")
        seconds = time.monotonic() - start
        names = {"base": run.config.model.name, "search": self.source.config.model.name}
        finished = self.shared | read_seconds(run)
        metrics = evaluation.metrics | {
            "method": "ihas",
            "models": names | {"ihas": run.config.model.name},
            "kmeans": self.curve,
            "seconds": finished | {"evaluate": round(seconds, 3)},
        }
        histories = {"base": self.base.history, "search": self.fitted.history} | {
            f"retrain {expert.name}": fitted.history
            for expert, fitted in zip(self.plan.experts, self.retrained, strict=True)
        }
        publish(run, metrics, histories, evaluation.sample)
        return seconds
