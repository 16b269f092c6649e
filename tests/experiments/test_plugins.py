"""The method and the click model of the READMEs, which are not part of the package."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.errors import InputError
from ihas_jax.models import MODELS, build_model
from ihas_jax.models.forward import forward, init_model
from ihas_jax.selectors import METHODS
from ihas_jax.serving.storage import load_bundle

PAIRS = ((0, 1), (0, 2), (1, 2))
PACKAGE = Path(__file__).resolve().parents[2] / "ihas_jax"


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """Python files with the examples of the READMEs."""
    folder, files = tmp_path_factory.mktemp("plugins"), []
    for name, readme in (("spread", "selectors"), ("cosines", "models")):
        text = (PACKAGE / readme / "README.md").read_text("utf-8")
        blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        (code,) = (block for block in blocks if "ihas.register_" in block)
        files.append(folder / f"{name}.py")
        files[-1].write_text(code, encoding="utf-8")
    return files


@pytest.fixture
def ran(command, plugins):
    """A finished run of both, and a call of its command without them."""
    output = command.folder / "plugins"
    flags = ("--method", "spread", "--model", "cosines")
    done = command.inside("--plugins", *plugins, *flags, "--spread.kept", 0.25, output=output)
    assert done.returncode == 0, done.stderr
    return output, done, lambda: command.inside(*flags, output=output)


def test_a_run_has_the_method_and_the_model_of_plugins(ran):
    output, done, _ = ran
    metrics = json.loads((output / "metrics.json").read_text())
    kept = metrics["selection"]["kept"]
    assert 0.24 <= kept <= 0.25 and load_bundle(output).models[0].model.embedding.kept
    assert metrics["spread"]["parameters"] < metrics["base"]["parameters"]
    assert "Spread" in done.stdout and "Spread" in (output / "report.md").read_text()
    config = json.loads((output / "config.json").read_text())["config"]
    assert config["spread"] == {"kept": 0.25} and config["model"]["name"] == "cosines"


def test_the_model_of_the_example_is_its_equation(plugins):
    runpy.run_path(str(plugins[1]))
    sizes = (3, 4, 2)
    model = build_model(ModelConfig("cosines", dim=4), sizes, click_rate=0.3)
    variables = init_model(jax.random.key(0), model)
    variables.params["network"]["scale"] = jnp.float32(0.7)
    ids = np.array([[1, 2, 0], [2, 3, 1]])
    (table,) = variables.params["tables"]["embedding"].values()
    wanted = []
    for e in np.asarray(table)[np.add(ids, [0, 3, 7])]:
        unit = e / np.sqrt((e**2).sum(axis=1, keepdims=True) + 1e-6)
        cosines = [unit[i] @ unit[j] for i, j in PAIRS]
        wanted.append(np.log(0.3 / 0.7) + 0.7 * sum(cosines))
    np.testing.assert_allclose(forward(model, variables, ids).logits, wanted, rtol=1e-5)


def test_a_table_compares_a_method_of_a_plugin(command, plugins):
    table = dataclasses.replace(command, script="paper/table2_overall.py")
    results = command.folder / "own_table2"
    flags = ("--methods", "spread", "--seeds", 2, "--trials", 2, "--results", results)
    given = ("--plugins", plugins[0], *flags, "--train.max-epochs", 1)
    done = table.inside(*given, output=command.folder / "own_tables")
    assert done.returncode == 0, done.stderr
    (scores,) = json.loads(results.with_suffix(".json").read_text())["logs"].values()
    assert list(scores) == ["none", "spread"] and len(scores["spread"]) == 2
    assert "| Spread |" in results.with_suffix(".md").read_text()


def test_processes_of_a_compression_know_the_plugins(command, plugins, tmp_path):
    one = dataclasses.replace(command, script="compress.py", tiny=())
    tiny = ("--model.dim", 4, "--train.batch-size", 100, "--train.max-epochs", 1)
    tiny += ("--teachers", "--students", "cosines", "--l2", 1e-5, "--budget", 0.5)
    output = tmp_path / "compressed"
    done = one("--plugins", *plugins, *tiny, "--workers", 2, output=output)
    assert done.returncode == 0, done.stderr
    assert "2 at a time" in done.stdout
    names = [one["name"] for one in json.loads((output / "metrics.json").read_text())["candidates"]]
    assert any(name.startswith("cosines, spectral") for name in names)


def test_without_the_plugins_their_names_are_not_known(ran, monkeypatch):
    output, _, again = ran
    for registry in (METHODS, MODELS):
        known = {name: registry[name] for name in registry if name not in ("spread", "cosines")}
        monkeypatch.setattr(registry, "_entries", known)
    assert "--model cosines names no click model." in again().stderr
    with pytest.raises(InputError, match=r"no value named spread\..* registered"):
        load_bundle(output)


@pytest.mark.parametrize("name", ["missing.py", "folder", "notes.txt"])
def test_a_plugin_that_is_no_python_file_is_refused(name, command, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("x = 1\n")
    done = command.inside("--plugins", tmp_path / name, output=tmp_path / "run")
    assert done.returncode == 2 and f"{name} is not a Python file" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_plugin_may_import_the_files_beside_it_and_be_named_twice(command, plugins, tmp_path):
    folder = tmp_path / "with spaces"
    folder.mkdir()
    (folder / "beside.py").write_text("KEPT = 0.125\n")
    code = plugins[0].read_text("utf-8").replace("] = 0.5", "] = beside.KEPT")
    own = folder / "own.py"
    own.write_text(f"import beside\n{code}", encoding="utf-8")
    done = command.inside("--plugins", own, own, "--help", output=tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert re.search(r"--spread\.kept FLOAT.*\(default: 0\.125\)", done.stdout, re.DOTALL)


@pytest.mark.parametrize("script", ["models.py", "paper/table3_transfer.py"])
def test_an_unknown_model_ends_a_comparison_before_it_begins(script, command, tmp_path):
    one = dataclasses.replace(command, script=script)
    flags = ("--models", "fm", "deepfn", "--seeds", 2, "--results", tmp_path / "results")
    done = one.inside(*flags, output=tmp_path / "runs")
    assert done.returncode == 2 and "Did you mean deepfm?" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_a_plugin_shows_where_it_is(command, tmp_path):
    (tmp_path / "wrong.py").write_text("import ihas_jax\n\nihas_jax.no_such_name\n")
    with pytest.raises(AttributeError, match="no_such_name"):
        command.inside("--plugins", tmp_path / "wrong.py", output=tmp_path / "run")
