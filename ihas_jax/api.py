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
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.drift import OtherShareWarning
from ihas_jax.data.open import open_store
from ihas_jax.data.raw.columns import LostWordWarning
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.synthetic import SyntheticConfig, SyntheticLog, synthetic
from ihas_jax.errors import InputError
from ihas_jax.method_config import MethodName
from ihas_jax.models import build_model
from ihas_jax.models.base import Model, Variables, count_parameters
from ihas_jax.models.forward import Lookup, Transformed, forward, init_model, predict
from ihas_jax.nn.gates import gate_penalty, sample_gates, search_threshold, select_gates
from ihas_jax.pipeline.fit import Result, fit, fit_seeds
from ihas_jax.presets import preset
from ihas_jax.selectors.base import Recipe, Selecting, Selector, Weights
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.selectors.plan import Expert, Found, Plan
from ihas_jax.selectors.registry import build_selector
from ihas_jax.selectors.search import (
    init_search,
    make_gate_step,
    make_model_step,
    make_search_round,
)
from ihas_jax.selectors.selection import Selection
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.storage import load_bundle
from ihas_jax.training.metrics import Scores, auc, logloss, score
from ihas_jax.training.optimizers import l2_adam
from ihas_jax.training.parallel import data_mesh, pmap_step, replicate, shard_rows
from ihas_jax.training.seeds import over_seeds, stack_seeds, unstack_seed
from ihas_jax.training.steps import (
    Batch,
    TrainState,
    init_train,
    make_round,
    make_step,
    model_optimizers,
)

__all__ = [
    "AdamConfig",
    "Batch",
    "BernoulliGates",
    "Bundle",
    "ClusterConfig",
    "Config",
    "Dataset",
    "Expert",
    "Feed",
    "Field",
    "Found",
    "GateConfig",
    "InputError",
    "Lookup",
    "LostWordWarning",
    "MethodName",
    "Model",
    "ModelConfig",
    "ModelName",
    "OptimizerConfig",
    "OtherShareWarning",
    "Plan",
    "Recipe",
    "Result",
    "RetrainConfig",
    "RoundIterator",
    "Rounds",
    "Schema",
    "Scores",
    "SearchConfig",
    "Selecting",
    "Selection",
    "Selector",
    "Split",
    "SyntheticConfig",
    "SyntheticLog",
    "TrainConfig",
    "TrainState",
    "Transformed",
    "Variables",
    "Weights",
    "auc",
    "build_model",
    "build_selector",
    "count_parameters",
    "data_mesh",
    "fit",
    "fit_seeds",
    "forward",
    "gate_penalty",
    "init_model",
    "init_search",
    "init_train",
    "l2_adam",
    "load_bundle",
    "logloss",
    "make_gate_step",
    "make_model_step",
    "make_round",
    "make_search_round",
    "make_step",
    "model_optimizers",
    "open_store",
    "over_seeds",
    "pmap_step",
    "predict",
    "preset",
    "replicate",
    "sample_gates",
    "score",
    "search_threshold",
    "select_gates",
    "shard_rows",
    "stack_seeds",
    "synthetic",
    "unstack_seed",
]
