"""The methods by name: what each builds, and the pace of its search."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass

import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.config.methods import AutoDimConfig, AutoEmbConfig, MethodConfig, PepConfig
from ihas_jax.errors import InputError
from ihas_jax.flags import config_from_json, config_to_json, option_kinds, replaced
from ihas_jax.models import MODELS, ClickModel, build_model, register_model
from ihas_jax.pipeline.fit import fit
from ihas_jax.presets import preset
from ihas_jax.selectors import Recipe
from ihas_jax.selectors.plan import ENTRIES, Plan
from ihas_jax.selectors.registry import METHODS, Method, build_selector, register_method
from ihas_jax.stages.teachers import BASE, SEARCH

# class, epochs of pretraining, batches between gate steps where there are any
EXPECTED = {
    "pep": ("PepThresholds", 0, None),
    "autofield": ("AutoField", 0, 10),
    "optembed": ("Supernet", 0, None),
    "adafs_soft": ("AdaFS", 2, 10),
    "adafs_hard": ("AdaFS", 2, 10),
    "optfs": ("OptFSGates", 0, None),
    "autodim": ("AutoDim", 2, 10),
    "autoemb": ("AutoEmb", 0, 1),
    "sseds": ("Saliency", 0, None),
    "dimreg": ("DimRegGates", 0, 1),
    "spectral": ("Spectral", 0, None),
    "uniform": ("Uniform", 0, None),
    "mixed": ("Mixed", 0, None),
    "magnitude": ("Magnitude", 0, None),
    "random": ("RandomChoice", 0, None),
}


def test_every_method_builds_its_selector_and_searches_at_its_pace(tiny):
    built = {}
    for name, (kind, pretraining, every) in EXPECTED.items():
        config = dataclasses.replace(tiny.config, method=name)
        config = config.having(dataclasses.replace(config.of(AutoDimConfig), dims=(1, 2)))
        config = config.having(dataclasses.replace(config.of(AutoEmbConfig), dims=(2,)))
        built[name] = build_selector(config, tiny.model, 5)
        assert type(built[name]).__name__ == kind
        search = METHODS[name].search
        assert search.pretrain_epochs == pretraining, name
        assert every is None or search.gate_every == every, name
    assert (built["adafs_soft"].fields, built["adafs_hard"].fields) == (None, 1)
    assert set(METHODS) == {*EXPECTED, "ihas"}


@dataclass(frozen=True)
class Own(MethodConfig):
    flag = "own"
    kept: float = 0.5


def test_a_registered_method_is_built_by_its_name_and_may_be_registered_anew(tiny):
    register_method("own", Method("Own", lambda *_: "first", (Own,)))
    register_method("own", Method("Own", lambda *_: "second", (Own,)))
    assert build_selector(dataclasses.replace(tiny.config, method="own"), tiny.model, 5) == "second"
    assert replaced(tiny.config, "own.kept", 0.1).of(Own) == Own(kept=0.1)
    assert preset("small", "fm", "own").method == "own"


def test_a_method_that_is_registered_anew_may_have_another_class_of_the_same_flag():
    register_method("own", Method("Own", lambda *_: None, (Own,)))
    other = options("own")
    register_method("own", Method("Own", lambda *_: None, (other,)))
    assert option_kinds()["own"] is other


@pytest.mark.parametrize("name", ["pep", "none", "My-Method", "2nd", ""])
def test_a_name_that_is_taken_or_none_is_refused(name):
    with pytest.raises(InputError, match=r"already|can't be the name of a method"):
        register_method(name, Method("Own", lambda *_: None))
    assert METHODS.get(name) is None or METHODS[name].title != "Own"


@pytest.mark.parametrize("name", ENTRIES)
def test_entries_of_the_metrics_are_no_names_of_methods_nor_of_facts(name):
    with pytest.raises(InputError, match=rf"'{name}' can't be .* metrics\.json has an entry"):
        register_method(name, Method("Own", lambda *_: None))
    assert name not in METHODS
    with pytest.raises(InputError, match=rf"Plan\.facts can't have the entry '{name}'"):
        Plan((), facts={"worth": 0.5, name: 1})


@pytest.mark.parametrize("name", [BASE, SEARCH])
def test_teachers_of_every_run_are_no_names_of_click_models(name):
    with pytest.raises(InputError, match=f"'{name}' can't be .* names a teacher that a run trains"):
        register_model(name, MODELS["fm"])
    assert name not in MODELS


def options(flag):
    return dataclass(frozen=True)(type("Other", (MethodConfig,), {"flag": flag}))


def test_two_classes_of_options_of_a_method_have_two_flags():
    with pytest.raises(InputError, match="'own', which is taken"):
        register_method("own", Method("Own", lambda *_: None, (Own, options("own"))))


@pytest.mark.parametrize("flag", ["pep", "gates", "model", "seed", "a-b", "own"])
def test_a_flag_that_is_taken_or_none_is_refused(flag):
    register_method("first", Method("First", lambda *_: None, (Own,)))
    with pytest.raises(InputError, match="Other"):
        register_method("second", Method("Second", lambda *_: None, (options(flag),)))
    assert "second" not in METHODS


def test_options_may_be_shared_and_need_defaults():
    register_method("first", Method("First", lambda *_: None, (Own,)))
    register_method("second", Method("Second", lambda *_: None, (Own, PepConfig)))

    @dataclass(frozen=True)
    class Miscounted(MethodConfig):
        flag = "miscounted"
        amount = ("kep",)
        kept: float = 0.5

    @dataclass(frozen=True)
    class Bare(MethodConfig):
        flag = "bare"
        kept: float

    with pytest.raises(InputError, match="'kept' of Bare needs a default"):
        register_method("third", Method("Third", lambda *_: None, (Bare,)))


def test_methods_that_share_options_may_be_registered_anew_with_their_class(tiny):
    """As by a cell of a notebook that is run again."""
    for value in (0.25, 0.75):
        space = {"flag": "shared", "kept": value, "__annotations__": {"kept": "float"}}
        shared = dataclass(frozen=True)(type("Shared", (MethodConfig,), space))
        for name in ("first", "second"):
            register_method(name, Method(name, lambda *_: None, (shared,)))
    assert option_kinds()["shared"] is shared
    assert config_from_json({"shared": {}}).of(shared).kept == 0.75


class Letter(enum.Enum):
    A = "a"


def test_options_that_are_none_or_cannot_be_stored_are_refused():
    @dataclass(frozen=True)
    class Lettered(MethodConfig):
        flag = "lettered"
        letter: Letter = Letter.A

    @dataclass(frozen=True)
    class Flagless(MethodConfig):
        pass

    class Undecorated(Own):
        flag = "undecorated"
        more: float = 0.5

    @dataclass(frozen=True)
    class Typed(MethodConfig):
        flag: str = "typed"

    @dataclass(frozen=True)
    class Chosen(MethodConfig):
        flag = "chosen"
        choice: str = "numbers"

    @dataclass(frozen=True)
    class Misnamed(MethodConfig):
        flag = "misnamed"
        choice = ("kep",)
        kept: float = 0.5

    @dataclass(frozen=True)
    class Miscounted(MethodConfig):
        flag = "miscounted"
        amount = ("kep",)
        kept: float = 0.5

    @dataclass(frozen=True)
    class Bare(MethodConfig):
        flag = "bare"
        choice = "kept"
        kept: float = 0.5

    wrong = {"stored as JSON": Lettered, "'' can't be the flag of Flagless": Flagless}
    wrong |= {"subclasses of MethodConfig": ModelConfig, "with @dataclass": Undecorated}
    wrong |= {"flag of Typed must have no type": Typed}
    wrong |= {"choice of Chosen must have no type": Chosen}
    wrong |= {"choice of Misnamed must be a tuple": Misnamed, "of its fields, not 'kept'": Bare}
    wrong |= {"amount of Miscounted must be a tuple": Miscounted}
    for message, kind in wrong.items():
        with pytest.raises(InputError, match=message):
            register_method("own", Method("Own", lambda *_: None, (kind,)))
    with pytest.raises(InputError, match="subclasses of MethodConfig"):
        register_method("own", Method("Own", lambda *_: None, (PepConfig(),)))
    with pytest.raises(InputError, match=r"must be a tuple of classes, such as \(MyConfig,\)"):
        register_method("own", Method("Own", lambda *_: None, Own))
    assert "own" not in METHODS


def test_a_registered_model_is_built_by_its_name():
    register_model("factors", ClickModel(MODELS["fm"].build, "logit = ...", least_fields=3))
    built = [build_model(ModelConfig(name), (2, 3, 4)) for name in ("factors", "fm")]
    assert built[0] == built[1]
    with pytest.raises(InputError, match="needs 3 fields or more; the log has 2"):
        build_model(ModelConfig("factors"), (2, 3))
    with pytest.raises(InputError, match="already"):
        register_model("fm", MODELS["dnn"])


def test_options_that_no_method_has_are_refused_before_a_run(tiny, small, tmp_path):
    config = tiny.config.having(Own(kept=0.1))
    with pytest.raises(InputError, match="No registered method has the options Own"):
        fit(config, small, tmp_path / "run")
    register_method("own", Method("Own", lambda *_: None, (Own,)))
    assert config_to_json(config)["own"] == {"kept": 0.1}


@pytest.mark.parametrize(
    "wrong",
    [{"gate_batches": "nevr"}, {"initial_weights": "old"}, {"stopping_split": "train"}],
)
def test_a_recipe_has_known_values(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=rf"Recipe\.{name} must be one of"):
        Recipe(**{"gate_batches": "never", **wrong})
