"""What `import ihas_jax` offers."""

from __future__ import annotations

from ihas_jax.config import (
    AdamConfig,
    ClusterConfig,
    Config,
    GateConfig,
    ModelConfig,
    ModelName,
    OptimizerConfig,
    RetrainConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.data.batches import Feed, RoundIterator, Rounds
from ihas_jax.data.columns import LostWordWarning
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.drift import OtherShareWarning
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.store import open_store
from ihas_jax.data.synthetic import SyntheticConfig, SyntheticLog, synthetic
from ihas_jax.errors import InputError
from ihas_jax.method_config import MethodName
from ihas_jax.models import build_model
from ihas_jax.models.base import (
    Model,
    apply_network,
    count_parameters,
    init_model,
    lookup_rows,
    row_numbers,
)
from ihas_jax.nn.embedding import EmbeddingSpec, align, flatten, init_table, lookup, positions
from ihas_jax.nn.gates import gate_penalty, sample_gates, search_threshold, select_gates
from ihas_jax.presets import preset
from ihas_jax.selectors.base import Applied, Looked, Recipe, Selected, Selector, Weights
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.selectors.registry import build_selector
from ihas_jax.selectors.selection import Found, Selection
from ihas_jax.serving.bundle import Bundle, load_bundle
from ihas_jax.stages.cluster import assign_clusters, fit_clusters, majority_coordinates
from ihas_jax.stages.pipeline import Result, fit, transfer
from ihas_jax.stages.pretrain import predict
from ihas_jax.stages.search import (
    SearchState,
    init_search,
    make_gate_step,
    make_model_step,
    make_search_round,
    predict_selected,
)
from ihas_jax.stages.together import fit_together
from ihas_jax.training.metrics import Scores, auc, logloss, score
from ihas_jax.training.optimizers import l2_adam
from ihas_jax.training.parallel import data_mesh, pmap_step, replicate, shard_rows
from ihas_jax.training.seeds import over_seeds, stack_seeds, unstack_seed
from ihas_jax.training.steps import Batch, TrainState, init_train, make_round, make_train_step

__all__ = [
    "AdamConfig",
    "Applied",
    "Batch",
    "BernoulliGates",
    "Bundle",
    "ClusterConfig",
    "Config",
    "Dataset",
    "EmbeddingSpec",
    "Feed",
    "Field",
    "Found",
    "GateConfig",
    "InputError",
    "Looked",
    "LostWordWarning",
    "MethodName",
    "Model",
    "ModelConfig",
    "ModelName",
    "OptimizerConfig",
    "OtherShareWarning",
    "Recipe",
    "Result",
    "RetrainConfig",
    "RoundIterator",
    "Rounds",
    "Schema",
    "Scores",
    "SearchConfig",
    "SearchState",
    "Selected",
    "Selection",
    "Selector",
    "Split",
    "SyntheticConfig",
    "SyntheticLog",
    "TrainConfig",
    "TrainState",
    "Weights",
    "align",
    "apply_network",
    "assign_clusters",
    "auc",
    "build_model",
    "build_selector",
    "count_parameters",
    "data_mesh",
    "fit",
    "fit_clusters",
    "fit_together",
    "flatten",
    "gate_penalty",
    "init_model",
    "init_search",
    "init_table",
    "init_train",
    "l2_adam",
    "load_bundle",
    "logloss",
    "lookup",
    "lookup_rows",
    "majority_coordinates",
    "make_gate_step",
    "make_model_step",
    "make_round",
    "make_search_round",
    "make_train_step",
    "open_store",
    "over_seeds",
    "pmap_step",
    "positions",
    "predict",
    "predict_selected",
    "preset",
    "replicate",
    "row_numbers",
    "sample_gates",
    "score",
    "search_threshold",
    "select_gates",
    "shard_rows",
    "stack_seeds",
    "synthetic",
    "transfer",
    "unstack_seed",
]
