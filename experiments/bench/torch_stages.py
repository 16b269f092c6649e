"""The three stages of iHAS in plain eager PyTorch, on the models and steps of `torch_baseline`."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from bench.torch_baseline import (
    Batch,
    ClickModel,
    CompactModel,
    Gates,
    OptimizerKind,
    make_optimizers,
    search_step,
    train_step,
)
from ihas_jax.config import ClusterConfig, Config, GateConfig, ModelConfig
from ihas_jax.data.dataset import Dataset

_BATCH_ROWS = 4096


class Clusters(NamedTuple):
    """Centroids and shares of open masks `[C, K]`, rows `[C]`, the cluster of each row `[n]`."""

    centroids: Tensor
    mean_masks: Tensor
    counts: Tensor
    train: Tensor
    valid: Tensor


def run_stages(
    data: Dataset,
    config: Config,
    kind: OptimizerKind,
    log: Callable[[str], None] = print,
    device: str = "cpu",
) -> dict[str, Any]:
    """Searches, clusters, retrains and evaluates.

    Returns:
      `seconds` of each stage ('search' includes pretraining), the `epochs` of the trainings that
      stop early, and `auc` and `logloss` of the routed test rows.

    Raises:
      ValueError: the config asks for something that is not here.
    """
    model, gates = config.model, config.of(GateConfig)
    known = GateConfig(gates.temperature, gates.l0_weight, gates.weight, bins=gates.bins)
    if (
        model != ModelConfig(dim=model.dim, hidden=model.hidden)
        or gates != known
        or config.retrain.start not in (None, "fresh")
    ):
        raise ValueError("no batch norm, dropout, torch's init, gate ablations or warm start here")
    torch.manual_seed(config.seed)
    stages = _Stages(data.schema.sizes, config, kind, log)
    train, valid, test = (
        # copies, since the arrays of a store are read only
        (
            torch.tensor(split.ids, dtype=torch.int32, device=device),
            torch.tensor(split.labels, dtype=torch.float32, device=device),
        )
        for split in (data.train, data.valid, data.test)
    )
    seconds: dict[str, float] = {}
    epochs: dict[str, int] = {}
    with _timed(seconds, "search"):
        searched, epochs["search"] = stages.search(train, valid)
    with _timed(seconds, "choose"):
        clusters = stages.cluster(searched, train[0], valid[0])
    with _timed(seconds, "retrain"):
        experts, routes, epochs["retrain"] = stages.retrain(clusters, train, valid)
    with _timed(seconds, "evaluate"):
        assigned = _stream(lambda ids: searched.route(ids, clusters.centroids), test[0])
        logits = torch.empty_like(test[1])
        for c, route in enumerate(routes):
            members = assigned == c
            if members.any():
                logits[members] = _stream(experts[route], test[0][members])
        auc, logloss = _score(test[1], logits)
    log(f"[evaluate] AUC: {auc:.4f} - logloss: {logloss:.4f}")
    return {"seconds": seconds, "epochs": epochs, "auc": auc, "logloss": logloss}


class Searched(nn.Module):
    """A click model beside its gates, used deterministically."""

    def __init__(self, model: ClickModel, gates: Gates) -> None:
        super().__init__()
        self.model, self.gates = model, gates

    def select(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Masked embeddings and masks `[B, K]` of ids `[B, N]`."""
        embeddings = self.model.embed(ids)
        masks, _ = self.gates.select(embeddings)
        return embeddings.flatten(1) * masks, masks

    def route(self, ids: Tensor, centroids: Tensor) -> Tensor:
        """Cluster of each row, `[B, N]` and `[C, K]` -> `[B]`."""
        return _assign(self.select(ids)[0], centroids)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `[B]` of ids `[B, N]`."""
        return self.model.head(self.select(ids)[0])


@dataclass(frozen=True)
class _Stages:
    sizes: Sequence[int]
    config: Config
    kind: OptimizerKind
    log: Callable[[str], None]

    def search(self, train: Batch, valid: Batch) -> tuple[Searched, int]:
        """Pretrains, then searches; returns the best epoch's weights, and the epochs searched."""
        config, shape, sparse = self.config.search, self.config.model, self.kind == "sparse"
        model = ClickModel(self.sizes, shape, click_rate=_click_rate(train), sparse=sparse)
        optimizers = self._optimizers(model.to(train[0].device))
        for _ in range(config.pretrain_epochs):
            for ids, labels in self._epoch(train):
                train_step(model, optimizers, ids, labels)
        gates = Gates(len(self.sizes) * shape.dim, self.config.of(GateConfig)).to(train[0].device)
        kind: OptimizerKind = "adam" if self.kind == "adam" else "fused"
        settings = config.gate_optimizer
        (gate_optimizer,) = make_optimizers(gates, kind, settings.learning_rate, settings.l2)
        gate_batches = (batch for _ in count() for batch in self._epoch(valid))
        steps = count(1)

        def update(ids: Tensor, labels: Tensor) -> Tensor:
            gate_batch = next(gate_batches) if next(steps) % config.gate_every == 0 else None
            return search_step(model, gates, optimizers, gate_optimizer, (ids, labels), gate_batch)

        searched = Searched(model, gates)
        return searched, self._fit("search", searched, update, train, valid)

    @torch.inference_mode()
    def cluster(self, searched: Searched, train_ids: Tensor, valid_ids: Tensor) -> Clusters:
        """Mini-batch K-means on the masked embeddings of the training rows."""
        config = self.config.of(ClusterConfig)
        kmeans = MiniBatchKMeans(config.clusters, random_state=self.config.seed)
        order = torch.randperm(len(train_ids), device=train_ids.device)
        before = float("inf")
        for number in range(config.max_passes):
            inertia = 0.0
            for rows in order.split(config.batch_rows):
                points, _ = searched.select(train_ids[rows])
                inertia += float(kmeans.partial_fit(points.cpu().numpy()).inertia_) / len(order)
            self.log(f"[cluster] pass {number} - mean squared distance: {inertia:.6f}")
            if before - inertia < config.tolerance * before:
                break
            before = inertia
        centroids = torch.tensor(kmeans.cluster_centers_, device=train_ids.device)
        open_counts = torch.zeros_like(centroids, dtype=torch.float64)
        parts = []
        for ids in train_ids.split(_BATCH_ROWS):
            points, masks = searched.select(ids)
            parts.append(_assign(points, centroids))
            open_counts += functional.one_hot(parts[-1], len(centroids)).to(masks.dtype).T @ masks
        train = torch.cat(parts)
        valid = _stream(lambda ids: searched.route(ids, centroids), valid_ids)
        counts = torch.bincount(train, minlength=len(centroids))
        return Clusters(centroids, open_counts / counts.clamp(min=1)[:, None], counts, train, valid)

    def retrain(
        self, clusters: Clusters, train: Batch, valid: Batch
    ) -> tuple[list[CompactModel], list[int], int]:
        """One compact model per cluster, one of all rows for clusters that can't carry their own.

        Returns:
          The models, the index of the one that serves each cluster, and all epochs together.
        """
        jobs: list[tuple[Tensor, Batch, Batch]] = []
        routes = []
        for c, mean_mask in enumerate(clusters.mean_masks):
            mine, theirs = _where(train, clusters.train == c), _where(valid, clusters.valid == c)
            fits = len(mine[0]) >= max(self.config.of(ClusterConfig).min_rows, 1)
            fits = fits and len(theirs[0]) > 0 and bool(mine[1].min() < mine[1].max())
            routes.append(len(jobs) if fits else -1)
            if fits:
                jobs.append((mean_mask, mine, theirs))
        if -1 in routes:
            shares = clusters.counts.double() / clusters.counts.sum()
            jobs.append((shares @ clusters.mean_masks, train, valid))
        experts, epochs, shape, sparse = [], 0, self.config.model, self.kind == "sparse"
        for number, (mean_mask, mine, theirs) in enumerate(jobs):
            keep = mean_mask >= self.config.of(ClusterConfig).majority
            if not keep.any():
                keep[mean_mask.argmax()] = True
            widths, rate = keep.view(-1, shape.dim).sum(dim=1).tolist(), _click_rate(mine)
            model = CompactModel(self.sizes, widths, shape, click_rate=rate, sparse=sparse)
            update = partial(train_step, model, self._optimizers(model.to(train[0].device)))
            epochs += self._fit(f"retrain/{number}", model, update, mine, theirs)
            experts.append(model)
        return experts, routes, epochs

    def _optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        config = self.config.optimizer
        return make_optimizers(model, self.kind, config.learning_rate, config.l2)

    def _epoch(self, data: Batch) -> Iterator[Batch]:
        """Shuffled batches, the last one filled up from the start of the permutation."""
        rows, size = len(data[0]), self.config.train.batch_size
        order = torch.randperm(rows, device=data[0].device)
        total = -(-rows // size) * size
        for part in order.repeat(-(-total // rows))[:total].split(size):
            yield _where(data, part)

    def _fit(
        self,
        name: str,
        model: nn.Module,
        update: Callable[[Tensor, Tensor], Tensor],
        train: Batch,
        valid: Batch,
    ) -> int:
        """Trains until neither AUC nor logloss improve, keeps the best AUC; returns the epochs."""
        config = self.config.train
        best, lowest, waited, epoch = -float("inf"), float("inf"), 0, 0
        kept = model.state_dict()
        while epoch < config.max_epochs and waited < config.patience:
            losses = torch.stack([update(*batch) for batch in self._epoch(train)])
            auc, logloss = _score(valid[1], _stream(model, valid[0]))
            scores = f"AUC: {auc:.4f} - logloss: {logloss:.4f}"
            self.log(f"[{name}] epoch {epoch} - loss: {losses.mean():.4f} - {scores}")
            objective = -logloss if np.isnan(auc) else auc
            waited = 0 if objective > best or logloss < lowest else waited + 1
            lowest = min(lowest, logloss)
            if objective > best:
                best, kept = objective, copy.deepcopy(model.state_dict())
            epoch += 1
        model.load_state_dict(kept)
        return epoch


@torch.inference_mode()
def _stream(function: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
    return torch.cat([function(part) for part in ids.split(_BATCH_ROWS)])


def _assign(points: Tensor, centroids: Tensor) -> Tensor:
    """Index of the nearest centroid, `[B, K]` and `[C, K]` -> `[B]`."""
    return (centroids.square().sum(dim=1) - 2 * points @ centroids.T).argmin(dim=1)


def _score(labels: Tensor, logits: Tensor) -> tuple[float, float]:
    """AUC (nan where one class is missing) and logloss of `[n]` labels and logits."""
    truth, probs = labels.cpu().numpy(), logits.sigmoid().cpu().numpy()
    auc = roc_auc_score(truth, probs) if truth.min() < truth.max() else np.nan
    return float(auc), float(log_loss(truth, probs, labels=[0, 1]))


def _where(data: Batch, rows: Tensor) -> Batch:
    return data[0][rows], data[1][rows]


def _click_rate(data: Batch) -> float:
    return float(data[1].mean().clamp(1e-4, 1 - 1e-4))


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
