"""The exported folder: complete or absent, checked, and of use without the library."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.errors import InputError
from ihas_jax.serving.export import check as checks
from ihas_jax.serving.export import folder as folders
from ihas_jax.serving.export import onnx_model
from ihas_jax.serving.export.check import sample_ids
from ihas_jax.serving.export.folder import export
from ihas_jax.serving.storage import save_bundle

from .drawn import SCHEMA, bundle_of, every_row, run_onnx, served

FILES = {
    "onnx": {"README.md", "encode.py", "model.onnx", "predict.py", "vocabulary.json"},
    "stablehlo": {
        *("README.md", "encode.py", "model.stablehlo", "predict.py", "vocabulary.json"),
        "weights.npz",
    },
}
WITHOUT_LIBRARY = """
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ihas_jax", "flax", "polars"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.path.insert(0, sys.argv[1])
sys.argv = [sys.argv[1] + "/predict.py", *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def example(made, *files):
    """The example of an export, as a process that lacks the library."""
    command = [sys.executable, "-c", WITHOUT_LIBRARY, *map(str, (made, *files))]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("to", FILES)
def test_the_example_predicts_a_file_without_the_library(routed, to, tmp_path):
    export(routed, tmp_path / "made", to)
    assert {path.name for path in (tmp_path / "made").iterdir()} == FILES[to]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    ids = every_row()[::7]
    values = [[*field.values, "never seen"] for field in SCHEMA.fields]
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["more", *SCHEMA.names])
        writer.writerows(["", *(v[i] for v, i in zip(values, row, strict=True))] for row in ids)
    done = example(tmp_path / "made", tmp_path / "rows.csv")
    assert done.returncode == 0, done.stderr
    rows = [*csv.DictReader(done.stdout.splitlines())]
    probs = np.array([row["probability"] for row in rows], float)
    np.testing.assert_allclose(probs, routed.predict_ids(ids), atol=1e-6)
    assert [int(row["cluster"]) for row in rows] == routed.assign(ids).tolist()
    (tmp_path / "short.csv").write_text(f"{','.join(SCHEMA.names)}\n1,2\n")
    for path, problem in (
        (tmp_path / "short.csv", f"{tmp_path}/short.csv, line 2: has 2 columns, not 5"),
        (tmp_path / "none.csv", f"[Errno 2] No such file or directory: '{tmp_path}/none.csv'"),
    ):
        done = example(tmp_path / "made", path)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {problem}\n")
    done = example(tmp_path / "made")
    assert (done.returncode, done.stderr) == (1, "usage: python predict.py FILE\n")


@pytest.mark.parametrize("to", FILES)
def test_the_readme_names_every_file_and_the_width(routed, to, tmp_path):
    export(routed, tmp_path / "made", to)
    text = (tmp_path / "made" / "README.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in FILES[to] - {"README.md"})
    assert "`[rows, 5]`" in text and "FIELDS" not in text


def test_the_vocabulary_has_the_ids(routed, tmp_path):
    export(routed, tmp_path / "made")
    content = json.loads((tmp_path / "made" / "vocabulary.json").read_text("utf-8"))
    assert [field["name"] for field in content["fields"]] == list(SCHEMA.names)
    assert content["fields"][1]["ids"] == {"a": 0, "b": 1, "c": 2}
    assert content["fields"][1]["other"] == 3


def test_what_stands_there_is_left_alone(routed, tmp_path):
    (tmp_path / "made").mkdir()
    with pytest.raises(InputError, match=r"made exists\. Nothing was changed"):
        export(routed, tmp_path / "made")
    with pytest.raises(InputError, match=r"^\. exists"):
        export(routed, "")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="link exists"):
        export(routed, tmp_path / "link")


@pytest.mark.parametrize("to", FILES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"routes": (0, 1, 0)}, "differs by .* from that of the bundle"),
        ({"router": None, "routes": (0, 1)}, "to another cluster than the bundle"),
    ],
)
def test_an_export_that_answers_otherwise_is_refused(
    routed, to, change, words, tmp_path, monkeypatch
):
    other = dataclasses.replace(routed, **change)
    writer = folders._WRITERS[to]
    monkeypatch.setitem(folders._WRITERS, to, lambda bundle, folder: writer(other, folder))
    with pytest.raises(InputError, match=words):
        export(routed, tmp_path / "made", to)
    assert not list(tmp_path.iterdir())


def test_an_answer_that_is_no_number_is_refused(routed):
    def answer(ids):
        return np.full(len(ids), np.nan, np.float32), routed.assign(ids)

    with pytest.raises(InputError, match="differs by nan"):
        checks.check(routed, answer)


def test_sampled_rows_have_every_value():
    sizes = (3, 1, 5000, 7)
    ids = sample_ids(sizes)
    assert ids.dtype == np.int32 and len(ids) == 5000
    assert [len(np.unique(column)) for column in ids.T] == list(sizes)
    assert (ids.min(axis=0) == 0).all()
    assert len(sample_ids((1 << 20,))) == 1 << 18


@pytest.mark.parametrize(
    ("to", "package", "extra"),
    [
        ("onnx", "onnx", "onnx"),
        ("onnx", "onnxruntime", "onnx"),
        ("stablehlo", "flatbuffers", "export"),
    ],
)
def test_a_missing_package_is_named(routed, to, package, extra, tmp_path, monkeypatch):
    def lacking(name):
        if name == package:
            raise ModuleNotFoundError(name=name)
        return importlib.import_module(name)

    monkeypatch.setattr(folders, "import_module", lacking)
    with pytest.raises(InputError, match=rf"{package}.*pip install 'ihas_jax\[{extra}\]'"):
        export(routed, tmp_path / "made", to)
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_are_named(routed, tmp_path):
    with pytest.raises(InputError, match="onnx or stablehlo, not 'torch'"):
        export(routed, tmp_path / "made", "torch")
    with pytest.raises(InputError, match="bundle must be a Bundle"):
        export(tmp_path, tmp_path / "made")
    with pytest.raises(InputError, match="A path must be a str or a Path, not a NoneType"):
        export(routed, None)


def test_a_full_disk_leaves_nothing(routed, tmp_path, monkeypatch):
    def full(*of, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save_model", full)
    with pytest.raises(InputError, match="Free some space"):
        export(routed, tmp_path / "made")
    assert not list(tmp_path.iterdir())


def test_a_place_that_takes_no_folder_is_named(routed, tmp_path):
    with pytest.raises(
        InputError, match=r"xxx can't be written: File name too long\. Choose anoth"
    ):
        export(routed, tmp_path / ("x" * 250))
    (tmp_path / ".made.partial").write_text("mine")
    with pytest.raises(InputError, match=r"\.made\.partial can't be used: File exists\. Move away"):
        export(routed, tmp_path / "made")
    assert (tmp_path / ".made.partial").read_text() == "mine"


def test_large_weights_have_a_file_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model, "_LARGE", 0)
    bundle = bundle_of(served(ModelConfig(dim=32)))
    export(bundle, tmp_path / "made")
    assert (tmp_path / "made" / "model.onnx.data").stat().st_size > 2000
    probs, _ = run_onnx(onnx.load(tmp_path / "made" / "model.onnx"), every_row())
    np.testing.assert_allclose(probs, bundle.predict_ids(every_row()), atol=1e-6)


def test_stablehlo_multiplies_in_float32_on_every_device(routed, tmp_path):
    from jax.export import deserialize

    from ihas_jax.serving.export import stablehlo

    stablehlo.write(routed, tmp_path)
    program = deserialize(bytearray((tmp_path / stablehlo.PROGRAM).read_bytes())).mlir_module()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert products and all("HIGHEST, HIGHEST" in line for line in products)


def test_stablehlo_runs_any_number_of_rows(routed, tmp_path):
    from ihas_jax.serving.export import stablehlo

    stablehlo.write(routed, tmp_path)
    answer = stablehlo.read(tmp_path)
    for number in (1, 2, 360):
        probs, clusters = answer(every_row()[:number])
        expected = every_row()[:number]
        np.testing.assert_allclose(probs, routed.predict_ids(expected), atol=1e-6)
        np.testing.assert_array_equal(clusters, routed.assign(expected))


def test_the_command(routed, tmp_path, run_script):
    save_bundle(routed, tmp_path / "bundle")
    done = run_script(tmp_path, "export.py", "--run", "bundle", "--output", "made")
    assert done.returncode == 0, done.stderr
    assert "made holds <Bundle of 2 models" in done.stdout
    again = run_script(tmp_path, "export.py", "--run", "bundle", "--output", "made")
    assert again.returncode == 2 and "made exists" in again.stderr


def test_a_single_model(tmp_path, gates):
    export(bundle_of(served(gates.config.model)), tmp_path / "made", "stablehlo")
    assert (tmp_path / "made" / "model.stablehlo").exists()
