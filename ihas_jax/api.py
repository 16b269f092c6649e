"""What `import ihas_jax` offers; what authors of methods need is in `ihas_jax.selectors`."""

from __future__ import annotations

from ihas_jax.config import (
    AdamConfig,
    ClusterConfig,
    Config,
    GateConfig,
    ModelConfig,
    OptimizerConfig,
    RetrainConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.config.compress import CompressConfig
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.drift import OtherShareWarning
from ihas_jax.data.open import open_store
from ihas_jax.data.raw.columns import LostWordWarning
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.errors import InputError
from ihas_jax.flags import replaced
from ihas_jax.job import Job
from ihas_jax.joining import joined
from ihas_jax.models import build_model, register_model
from ihas_jax.models.base import Model
from ihas_jax.models.forward import forward, init_model, predict
from ihas_jax.models.placing import place
from ihas_jax.nn.gates import sample_gates, select_gates
from ihas_jax.pipeline.compress import compress
from ihas_jax.pipeline.fit import fit, fit_seeds
from ihas_jax.presets import preset
from ihas_jax.programs import kept_programs
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.selectors.registry import register_method
from ihas_jax.selectors.search import (
    init_search,
    make_gate_step,
    make_model_step,
    make_search_round,
)
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.export.folder import export
from ihas_jax.serving.storage import load_bundle, save_bundle
from ihas_jax.serving.stream import predict_stream
from ihas_jax.stages.cut import cut
from ihas_jax.training.metrics import auc
from ihas_jax.training.parallel import data_mesh, pmap_step, replicate, shard_rows
from ihas_jax.training.rounds import make_round
from ihas_jax.training.seeds import over_seeds, stack_seeds
from ihas_jax.training.steps import (
    Batch,
    TrainState,
    init_train,
    make_step,
    model_optimizers,
    settle,
)

__all__ = [
    "AdamConfig",
    "Batch",
    "BernoulliGates",
    "Bundle",
    "ClusterConfig",
    "CompressConfig",
    "Config",
    "Dataset",
    "Field",
    "GateConfig",
    "InputError",
    "Job",
    "LostWordWarning",
    "Model",
    "ModelConfig",
    "OptimizerConfig",
    "OtherShareWarning",
    "RetrainConfig",
    "Schema",
    "SearchConfig",
    "Split",
    "SyntheticConfig",
    "TrainConfig",
    "TrainState",
    "auc",
    "build_model",
    "compress",
    "cut",
    "data_mesh",
    "export",
    "fit",
    "fit_seeds",
    "forward",
    "init_model",
    "init_search",
    "init_train",
    "joined",
    "kept_programs",
    "load_bundle",
    "make_gate_step",
    "make_model_step",
    "make_round",
    "make_search_round",
    "make_step",
    "model_optimizers",
    "open_store",
    "over_seeds",
    "place",
    "pmap_step",
    "predict",
    "predict_stream",
    "preset",
    "register_method",
    "register_model",
    "replaced",
    "replicate",
    "sample_gates",
    "save_bundle",
    "select_gates",
    "settle",
    "shard_rows",
    "stack_seeds",
    "synthetic",
]
