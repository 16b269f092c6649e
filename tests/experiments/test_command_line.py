"""Configs from flags: what presets set, what flags change, and what plugins add."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass

import pytest

from ihas_jax.config import ClusterConfig, Config, ModelConfig
from ihas_jax.config.methods import PepConfig, SsedsConfig
from ihas_jax.errors import InputError
from ihas_jax.presets import preset
from ihas_jax.selectors import METHODS

PLUGIN = """
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import ihas_jax as ihas
from ihas_jax.config import SearchConfig
from ihas_jax.config.bounds import Share
from ihas_jax.selectors import Method, MethodConfig


@dataclass(frozen=True)
class Inner:
    share: Share[float] = 0.5


@dataclass(frozen=True)
class Own(MethodConfig):
    flag = "NAME"
    inner: Inner = Inner()
    mode: Literal["a", "b"] = "a"
    pairs: tuple[tuple[int, float], ...] = ((1, 0.5),)


ihas.register_method("NAME", Method("Own", lambda *_: None, (Own,), SearchConfig(0, 7)))
"""


@pytest.fixture
def parse(script, monkeypatch):
    """Reads a command line: its config."""
    module = script("command_line")

    @dataclass(frozen=True, kw_only=True)
    class Arguments(module.TrainingFlags):
        """The flags."""

        data: str | None = None

    def read(*flags):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, flags)])
        return module.parse(Arguments).config

    return read


@pytest.fixture
def plugin(tmp_path):
    """Makes a plugin whose method and flag have a name."""

    def make(name):
        path = tmp_path / f"{name}.py"
        path.write_text(PLUGIN.replace("NAME", name), encoding="utf-8")
        return path

    return make


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ((), ("small",)),
        (("--data", "log"), ("paper",)),
        (("--preset", "paper"), ("paper",)),
        (("--data", "log", "--preset", "reference", "--model", "nfm"), ("reference", "nfm")),
        (("--method", "autofield"), ("small", "dnn", "autofield")),
        (("--data", "log", "--method", "none", "--model", "fm"), ("paper", "fm", "none")),
    ],
)
def test_a_preset_sets_what_no_flag_does(flags, wanted, parse):
    assert parse(*flags) == preset(*wanted)


def test_flags_change_the_values_of_a_preset(parse):
    flags = ("--model.dim", 4, "--pep.kept", 0.25, "--cluster.clusters", 3, "--seed", 5)
    config = preset("small", "fm")
    wanted = dataclasses.replace(config, model=dataclasses.replace(config.model, dim=4), seed=5)
    found = parse("--model", "fm", *flags)
    assert found == wanted.having(PepConfig(kept=0.25), ClusterConfig(clusters=3))
    assert type(found) is Config and type(found.model) is ModelConfig


def test_flags_change_the_values_of_a_config(script):
    config = Config(options=(PepConfig(kept=0.25), SsedsConfig(0.1)), model=ModelConfig("fm", 4))
    parse_config = script("command_line").parse_config
    assert parse_config([], config) == config
    wanted = config.having(PepConfig(kept=0.25, epochs=3))
    assert parse_config(["--pep.epochs", "3"], config) == wanted
    with pytest.raises(InputError, match=r"^--pep\.kept must lie between 0 and 1, not 2\.0\.$"):
        parse_config(["--pep.kept", "2"], config)
    for flag in ("--method", "--model"):
        with pytest.raises(SystemExit):
            parse_config([flag, "nonsense"], config)


def test_plugins_add_methods_with_their_presets_and_flags(parse, plugin):
    flags = ("--second.inner.share", 0.25, "--second.mode", "b", "--second.pairs", 2, 3, 4, 5)
    found = parse(*flags, "--plugins", plugin("first"), plugin("second"), "--method", "second")
    first, second = (METHODS[name].options[0] for name in ("first", "second"))
    assert found.search == dataclasses.replace(
        preset("paper").search, pretrain_epochs=0, gate_every=2
    )
    values = dataclasses.asdict(found.of(second))
    assert values == {"inner": {"share": 0.25}, "mode": "b", "pairs": ((2, 3.0), (4, 5.0))}
    assert found.of(first) == first() and found.options == (found.of(second),)
    with pytest.raises(InputError, match=r"--first\.inner\.share must lie between 0 and 1"):
        parse("--plugins", plugin("first"), "--first.inner.share", 1.5)


def test_a_plugin_that_is_not_named_is_not_known(parse, plugin):
    with pytest.raises(InputError, match=r"first names no method.* --plugins"):
        parse("--method", "first")
    with pytest.raises(SystemExit):
        parse("--first.mode", "b")
