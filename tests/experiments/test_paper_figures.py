"""The paper's figures of a finished run: what is drawn, and which runs are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from ihas_jax.config import Config
from ihas_jax.data.open import open_store
from ihas_jax.errors import InputError
from ihas_jax.files import read_json, write_json
from ihas_jax.flags import config_from_json, config_to_json, replaced

FILES = {f"figure{number}.png" for number in (3, 4, 5, 6)}


@pytest.fixture(scope="module")
def drawn(command, finished):
    """The figures of a run, whose second run is trained beside them, and a call of the script."""
    figures = dataclasses.replace(command, script="paper/figures.py")
    output = command.folder / "drawn"

    def draw(*flags, run=finished[0], output=output):
        given = "--run", run, "--data", command.folder / "store", "--output", output
        return figures.inside(*given, *flags)

    before = {path: path.read_bytes() for path in finished[0].rglob("*") if path.is_file()}
    done = draw()
    assert done.returncode == 0, done.stderr
    after = {path: path.read_bytes() for path in finished[0].rglob("*") if path.is_file()}
    assert after == before
    return output, draw


def test_all_four_figures_are_there(drawn):
    output, _ = drawn
    assert {path.name for path in output.iterdir()} == {*FILES, "without_polarization"}
    for name in FILES:
        assert (output / name).read_bytes().startswith(b"\x89PNG")


def test_the_second_run_differs_in_the_polarisation_alone(drawn, finished):
    configs = [
        config_from_json(json.loads((run / "config.json").read_text())["config"])
        for run in (finished[0], drawn[0] / "without_polarization")
    ]
    assert configs[1] == replaced(configs[0], "gates.polarization", False) != configs[0]
    events = (drawn[0] / "without_polarization" / "log.jsonl").read_text().splitlines()
    assert not any('"stage": "base"' in event for event in events)  # it is that of the run


def test_the_second_run_is_found_again_or_named(drawn, command):
    output, draw = drawn
    for done in (
        draw(),
        draw("--without", output / "without_polarization", output=command.folder / "again"),
    ):
        assert done.returncode == 0, done.stderr
        assert " epoch " not in done.stdout
    assert {path.name for path in (command.folder / "again").iterdir()} == FILES


def test_unfit_runs_are_refused(drawn, finished, command, tmp_path):
    output, draw = drawn
    plain = output / "without_polarization"
    for flags, run, words in (
        ((), plain, "was searched without the polarisation"),
        (("--without", finished[0]), finished[0], "gates.polarization: False -> True"),
        (("--data", command.folder / "other"), finished[0], "is a run on other data"),
        ((), tmp_path, "Pass the folder of a finished run of iHAS as --run."),
    ):
        done = draw(*flags, run=run, output=tmp_path / "new")
        assert done.returncode == 2 and words in " ".join(done.stderr.split()), done.stderr
    assert not (tmp_path / "new").exists()


def test_other_methods_and_unfinished_runs_are_refused(script, command, finished, tmp_path):
    data, read = open_store(command.folder / "store"), script("finished").read_run
    assert read(finished[0], data, "--run").workdir == finished[0].resolve()
    about = read_json(finished[0] / "config.json")

    def refused(words, **changed):
        shutil.copytree(finished[0], tmp_path / words)
        write_json(tmp_path / words / "config.json", about | changed)
        with pytest.raises(InputError, match=words):
            read(tmp_path / words, data, "--run")

    config = replaced(Config(), "method", "pep")
    refused("is a run of --method pep", config=config_to_json(config))
    refused("is a cut", kind="cut")
    (tmp_path / "begun").mkdir()
    shutil.copy(finished[0] / "config.json", tmp_path / "begun")
    with pytest.raises(InputError, match="is not finished"):
        read(tmp_path / "begun", data, "--run")


def test_figure_4_of_a_run_has_its_models(script, command, finished):
    data = open_store(command.folder / "store")
    run = script("finished").read_run(finished[0], data, "--run")
    models = script("finished").timed_models(run)
    metrics = json.loads((finished[0] / "metrics.json").read_text())
    assert [model.auc for model in models.values()] == [
        metrics[name]["auc"] for name in ("base", "search", "ihas")
    ]
    assert list(models) == ["none", "search", "ihas"]
    assert all(time > 0 for model in models.values() for time in model.milliseconds)


def test_gates_stand_side_by_side_on_one_log_scale(script):
    figure = script("gate_figure")
    plain = figure.Gates(np.array([[0.1, 0.1, 0.1], [0.41, 0.45, 0.53]]), np.array([0.5, 0.43]))
    polarized = figure.Gates(np.array([[0.9, 0.9, 0.9], [0.01, 0.01, 0.99]]), np.array([0.5, 0.5]))
    left, right = figure.draw_polarization(plain, polarized, 1).axes
    assert [axis.get_title(loc="left") for axis in (left, right)] == [
        *("without polarisation", "with polarisation"),
    ]
    assert left.get_yscale() == right.get_yscale() == "log"
    assert left.get_ylim() == right.get_ylim()
    for axis, bins in ((left, (20, 22, 26)), (right, (0, 49))):
        heights = [bar.get_height() for bar in axis.patches]
        assert len(heights) == 50 and tuple(np.flatnonzero(heights)) == bins
    (label,) = [text.get_text() for text in left.get_legend().get_texts()]
    assert label == "threshold 0.43: 67% open"


def test_the_row_of_the_median_open_share_is_drawn(script):
    figure = script("gate_figure")
    probs = np.array([[0.9, 0.9, 0.9], [0.1, 0.1, 0.1], [0.1, 0.9, 0.9]])
    assert figure.typical_row(figure.Gates(probs, np.full(3, 0.5))) == 2
