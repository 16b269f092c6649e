from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from ihas_jax.config import (
    AdamConfig,
    ClusterConfig,
    Config,
    GateConfig,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    RetrainConfig,
    SearchConfig,
    TrainConfig,
    differences,
    from_json,
    to_json,
)
from ihas_jax.config.bounds import Positive, Share
from ihas_jax.config.methods import DimRegConfig, PepConfig, SsedsConfig
from ihas_jax.errors import InputError
from ihas_jax.flags import config_from_json, config_to_json, replaced
from ihas_jax.models import MODELS, build_model
from ihas_jax.pipeline.idle import check_flags
from ihas_jax.presets import preset

OTHER = Config(
    model=ModelConfig(dim=4, hidden=(8, 4, 2), batch_norm=True, dropout=0.2, init="torch"),
    optimizer=OptimizerConfig(learning_rate=0.1 + 0.2, l2=0.0),
    train=TrainConfig(batch_size=7, checkpoint_seconds=0),
    search=SearchConfig(gate_every=5, gate_optimizer=AdamConfig(1e-4)),
    retrain=RetrainConfig(start="tables"),
    seed=3,
    options=(
        GateConfig(threshold="literal", bins=100, reduction="sum", instance_wise=False),
        ClusterConfig(clusters=1),
    ),
)


RESULTS = Path(__file__).resolve().parents[1] / "experiments" / "results"


@pytest.mark.parametrize("config", [preset("paper"), preset("small", "fm", "pep"), OTHER])
def test_json_round_trip(config):
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_json_has_the_options_of_the_method_and_those_that_differ():
    config = Config(method="pep", options=(SsedsConfig(kept=0.1), DimRegConfig()))
    values = config_to_json(config)
    assert values["pep"] == {**vars(PepConfig())} and values["sseds"] == {"kept": 0.1}
    assert not {"dimreg", "gates", "options"} & values.keys()


def test_json_has_a_method_that_is_not_registered_here():
    config = Config(method="elsewhere", options=(PepConfig(kept=0.2),))
    assert config_from_json(config_to_json(config)) == config


def test_names_that_json_lacks_keep_their_defaults():
    assert config_from_json({"model": {"dim": 4}}) == Config(model=ModelConfig(dim=4))
    assert config_from_json({"pep": {"epochs": 20}}) == Config()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"xdeepfm_cin": ()}, "--model.xdeepfm-cin needs at least one width"),
        ({"autoint_heads": 3}, "--model.autoint-heads 3 must divide --model.autoint-width"),
        ({"name": "finalmlp", "finalmlp_heads": 3}, "--model.finalmlp-heads 3 must divide the"),
        ({"name": "finalmlp", "hidden": ()}, "--model.finalmlp-heads 1 must divide the last"),
        ({"ncf_pair": (1, 1)}, "--model.ncf-pair must be two positions of fields, not (1, 1)"),
        ({"ncf_pair": (0, -1)}, "--model.ncf-pair must be two positions of fields, not (0, -1)"),
    ],
)
def test_choices_of_a_model_fit_each_other(values, message):
    with pytest.raises(InputError) as error:
        ModelConfig(**values)
    assert str(error.value).startswith(message)


def test_the_configs_of_all_results_can_be_read():
    found = [json.loads(path.read_text("utf-8")) for path in RESULTS.glob("*.json")]
    configs = [values["config"] for values in found if "config" in values]
    assert len(configs) > 10
    assert {config_from_json(config).method for config in configs} == {"ihas", "spectral"}


@dataclass(frozen=True)
class Inner:
    least: Positive[int] = 1


@dataclass(frozen=True)
class Rich(MethodConfig):
    flag = "rich"
    inner: Inner = Inner()
    perhaps: Inner | None = None
    pairs: tuple[tuple[int, float], ...] = ()
    inners: tuple[Inner, ...] = ()
    counts: tuple[Positive[int], ...] = ()
    top: Share[float] | None = None
    mode: Literal["a", 2] = "a"
    free: Any = ()


FULL = Rich(
    Inner(2), Inner(3), ((1, 0.5), (2, 1)), (Inner(4), Inner(5)), (6, 7), 0.25, 2, free=True
)


def test_options_of_nested_values_are_written_and_read_back():
    for options in (Rich(), FULL):
        assert from_json(Rich, json.loads(json.dumps(to_json(options)))) == options
    old, new = Config(options=(Rich(),)), Config(options=(Rich(perhaps=Inner(2)),))
    assert differences(old, new) == ["rich.perhaps: None -> Inner(least=2)"]
    assert differences(new, old) == ["rich.perhaps: Inner(least=2) -> None"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": Inner(0)}, "--rich.inner.least must be positive, not 0."),
        ({"perhaps": Inner(0)}, "--rich.perhaps.least must be positive, not 0."),
        ({"inner": None}, "--rich.inner must be Inner, not None."),
        ({"inners": (Inner(1), Inner(0))}, "--rich.inners.least must be positive, not 0."),
        ({"counts": (1, 0)}, "--rich.counts must be positive, not 0."),
        ({"top": 1.5}, "--rich.top must lie between 0 and 1, not 1.5."),
        ({"top": "high"}, "--rich.top must be float or None, not 'high'."),
        ({"mode": "2"}, "--rich.mode must be 'a' or 2, not '2'."),
        ({"pairs": ((1, 2, 3),)}, "--rich.pairs must be tuple[tuple[int, float], ...], not"),
        ({"pairs": ((0.5, 1),)}, "--rich.pairs must be tuple[tuple[int, float], ...], not"),
    ],
)
def test_nested_values_have_types_and_bounds(values, message):
    with pytest.raises(InputError) as error:
        Rich(**values)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("flag", "value", "kind"),
    [
        ("model.dim", "8", "int"),
        ("model.dim", 8.5, "int"),
        ("model.dim", True, "int"),
        ("model.dim", None, "int"),
        ("model.dim", np.int64(8), "int"),
        ("model.dropout", np.float32(0.1), "float"),
        ("model.dropout", False, "float"),
        ("model.hidden", [8, 4], "tuple[int, ...]"),
        ("model.hidden", 8, "tuple[int, ...]"),
        ("model.ncf-pair", (0, 1, 2), "tuple[int, int]"),
        ("model.batch-norm", 1, "bool"),
        ("model", "dnn", "ModelConfig"),
        ("search.gate-optimizer", {"l2": 0.0}, "AdamConfig"),
        ("gates.reduction", "max", "'mean' or 'sum'"),
        ("gates.bins", 20.0, "int or None"),
        ("method", None, "str"),
        ("seed", math.nan, "int"),
    ],
)
def test_a_value_of_another_type_names_its_flag(flag, value, kind):
    with pytest.raises(InputError) as error:
        replaced(Config(), flag, value)
    assert str(error.value) == f"--{flag} must be {kind}, not {value!r}."


def test_whole_numbers_are_floats_too():
    assert Config(train=TrainConfig(checkpoint_seconds=0)).train.checkpoint_seconds == 0
    assert ModelConfig(dropout=np.float64(0.1)).dropout == 0.1


@pytest.mark.parametrize("flag", ["nonsense", "pep", "pep.keep", "search.gate_evry", "seed.x"])
def test_a_flag_that_there_is_not_is_refused(flag):
    with pytest.raises(InputError, match="has no value named"):
        replaced(Config(), flag, 1)


def test_a_flag_leaves_all_others():
    config = Config(options=(PepConfig(kept=0.2), SsedsConfig(0.1)), search=SearchConfig(3))
    wanted = (PepConfig(kept=0.2, epochs=4), SsedsConfig(0.1))
    assert replaced(config, "pep.epochs", 4) == dataclasses.replace(config, options=wanted)
    assert replaced(config, "search.gate-every", 7).search == SearchConfig(3, 7)


def test_flags_have_hyphens_or_underscores():
    for flag in ("search.gate-every", "search.gate_every"):
        assert replaced(Config(), flag, 7).search.gate_every == 7
    assert replaced(Config(), "cluster.min-rows", 7).of(ClusterConfig).min_rows == 7


@pytest.mark.parametrize(
    "wrong", [PepConfig(), None, (PepConfig,), (ModelConfig(),), [PepConfig()]], ids=repr
)
def test_what_is_no_tuple_of_options_is_refused(wrong):
    with pytest.raises(InputError, match="--options must be tuple"):
        Config(options=wrong)


@pytest.mark.parametrize("wrong", [PepConfig, TrainConfig(), (PepConfig(),)], ids=repr)
def test_what_is_no_options_of_a_method_is_refused(wrong):
    with pytest.raises(InputError, match="takes options of methods, such as GateConfig"):
        Config().having(wrong)


def test_options_of_a_class_that_was_defined_anew_are_refused():
    first, second = (dataclass(frozen=True)(type("Own", (MethodConfig,), own)) for own in 2 * [OWN])
    config = Config().having(first(kept=0.25))
    assert config.of(first).kept == 0.25
    with pytest.raises(InputError, match=r"Own\(kept=0.25\).*'own'.* make the options anew"):
        config.of(second)
    with pytest.raises(InputError, match="make the options anew"):
        differences(config, Config().having(second(kept=0.75)))
    assert config.having(second(kept=0.75)).of(second).kept == 0.75


OWN = {"flag": "own", "kept": 0.5, "__annotations__": {"kept": "float"}}


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match=r"Config has no value named colour, size\..* registered"):
        config_from_json({"size": 1, "colour": 2})
    with pytest.raises(InputError, match="SearchConfig has no value named gate_evry"):
        config_from_json({"search": {"gate_evry": 2}})
    with pytest.raises(InputError, match="PepConfig has no value named keep"):
        config_from_json({"pep": {"keep": 0.2}})


def test_bad_values_from_json_are_refused():
    with pytest.raises(InputError, match=r"--gates\.bins"):
        config_from_json({"gates": {"bins": 1}})


def test_options_are_read_by_class_and_one_object_replaces_the_one_before():
    config = Config(options=(SsedsConfig(kept=0.1), PepConfig(kept=0.2)))
    assert config.of(PepConfig).kept == 0.2 and config.of(DimRegConfig) == DimRegConfig()
    new = config.having(PepConfig(epochs=3), DimRegConfig(slope=1.0))
    assert new.of(PepConfig) == PepConfig(epochs=3)
    assert new.of(DimRegConfig).slope == 1.0 and new.of(SsedsConfig).kept == 0.1
    assert new == Config(options=(SsedsConfig(0.1), DimRegConfig(slope=1.0), PepConfig(epochs=3)))
    assert config.having(PepConfig(), SsedsConfig()) == Config()
    with pytest.raises(InputError, match="one flag twice: pep, pep"):
        Config(options=(PepConfig(), PepConfig(kept=0.2)))


def test_differences_name_values_old_and_new():
    assert differences(OTHER, OTHER) == []
    new = dataclasses.replace(
        OTHER,
        seed=4,
        model=dataclasses.replace(OTHER.model, hidden=(8,)),
        search=SearchConfig(gate_every=1, gate_optimizer=AdamConfig(1e-3)),
    )
    assert differences(OTHER, new) == [
        "model.hidden: (8, 4, 2) -> (8,)",
        "search.gate_every: 5 -> 1",
        "search.gate_optimizer.learning_rate: 0.0001 -> 0.001",
        "seed: 3 -> 4",
    ]


def test_differences_are_those_of_options_too():
    old, new = Config(options=(PepConfig(kept=0.2),)), Config(options=(SsedsConfig(kept=0.1),))
    assert differences(old, new) == ["pep.kept: 0.2 -> 0.5", "sseds.kept: 0.5 -> 0.1"]


def test_the_paper_preset_is_the_default_and_small_differs_where_it_says():
    assert preset("paper") == Config()
    changed = {line.split(":")[0] for line in differences(Config(), preset("small"))}
    assert {"search.gate_every", "search.pretrain_epochs"} <= changed


def test_the_reference_preset_has_the_choices_of_each_model():
    nfm, fm, autoint = (preset("reference", name).model for name in ("nfm", "fm", "autoint"))
    assert (nfm.name, nfm.dim, nfm.hidden, nfm.dropout) == ("nfm", 64, (64,), 0.2)
    assert (fm.name, fm.dim, fm.linear_init, fm.init) == ("fm", 16, "normal", "torch")
    assert (autoint.hidden, autoint.dropout, autoint.batch_norm) == ((400, 400), 0.0, True)
    assert preset("small", "fm").model == ModelConfig("fm")
    for name in MODELS:
        build_model(preset("reference", name).model, (3, 4, 5))


def test_an_unknown_model_lists_the_known_ones():
    unknown = r"--model deepfn names no click model\. Did you mean deepfm\? .* are lr, fm, .*gdcn"
    with pytest.raises(InputError, match=unknown):
        build_model(ModelConfig("deepfn"), (3, 4))
    with pytest.raises(InputError, match=unknown):
        preset("small", "deepfn")
    with pytest.raises(
        InputError, match=r"--model\.ncf-pair 0 2 names a field that the log does not have"
    ):
        build_model(ModelConfig("ncf", ncf_pair=(0, 2)), (3, 4))


@pytest.mark.parametrize("method", [None, "ihas", "none", "uniform", "pep", "magnitude"])
def test_the_compact_preset_has_no_flag_without_effect(method):
    config = preset("compact", method=method)
    assert config.method == (method or "spectral")
    assert config.budget == (None if method == "none" else 0.125)
    assert config.train.finish == (0.2, 0.04)
    assert config.search.rotate == (method == "ihas")
    assert config.retrain.teachers
    check_flags(config)
    small = preset("small", method=config.method)
    assert config.search == dataclasses.replace(small.search, rotate=method == "ihas")
