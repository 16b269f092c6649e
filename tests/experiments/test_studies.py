"""The studies of iHAS's choices: what they vary, and that nothing is run twice."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ihas_jax.config import ClusterConfig, Config, GateConfig
from ihas_jax.data.open import open_store
from ihas_jax.flags import config_from_json, value_of
from ihas_jax.pipeline.fit import check_choices
from ihas_jax.presets import preset

TINY = (
    *("--model.dim", 4, "--model.hidden", 8, 4, "--optimizer.learning-rate", 0.02),
    *("--train.batch-size", 200, "--train.max-epochs", 1, "--cluster.min-rows", 100),
    *("--search.pretrain-epochs", 1),
)


@pytest.fixture(scope="module")
def studies(command):
    return dataclasses.replace(command, script="paper/studies.py", tiny=TINY)


@pytest.fixture(scope="module")
def grown(studies, script):
    """One study with one seed, then two studies with two: the results, runs, and what was said.

    To be fast, the studies have fewer settings than those of the script.
    """
    listed = script("study_list").STUDIES
    results, runs = studies.folder / "studies", studies.folder / "studied"

    def run(*flags):
        done = studies.inside(*flags, "--results", results, output=runs)
        assert done.returncode == 0, done.stderr
        return done

    with pytest.MonkeyPatch.context() as patch:
        for name, labels in {"threshold": ("guarded", "0.5"), "start": ("cold", "warm")}.items():
            settings = [one for one in listed[name].settings if one.label in labels]
            patch.setitem(listed, name, dataclasses.replace(listed[name], settings=settings))
        first = run("--study", "threshold", "--seeds", 1)
        before = json.loads(results.with_suffix(".json").read_text())
        second = run("--study", "threshold", "start", "--seeds", 2)
        yield results, runs / "store", run, (first, before, second)


@pytest.fixture
def scores(grown):
    return json.loads(grown[0].with_suffix(".json").read_text())["logs"]["store"]


NAMES = ["base", "ihas", "threshold=half", "start=tables"]


def test_more_studies_and_seeds_add_to_the_results(grown, scores):
    _, _, _, (first, before, second) = grown
    old = before["logs"]["store"]
    assert list(old) == NAMES[:3] and all(len(own) == 1 for own in old.values())
    assert list(scores) == NAMES and all(len(own) == 2 for own in scores.values())
    assert all(scores[name][0] == old[name][0] for name in old)
    assert "[Studies] step 1 of 3: store, base, seed 0" in first.stdout
    assert "[Studies] step 1 of 5: store, base, seed 1" in second.stdout
    assert "store, threshold=half, seed 0" not in second.stdout


def test_base_and_search_are_shared_where_they_are_the_same(grown):
    _, runs, _, _ = grown

    def stages(name):
        events = map(json.loads, (runs / name / "log.jsonl").read_text().splitlines())
        return {event["stage"] for event in events if "epoch" in event}

    folders = {f"{name.replace('base', 'none')}_{seed}" for name in NAMES for seed in range(2)}
    assert {path.name for path in runs.iterdir()} == folders
    assert {name for name in folders if "base" in stages(name)} == {"none_0", "none_1"}
    searched = {name for name in folders if {"pretrain", "search"} & stages(name)}
    assert searched == {name for name in folders if name.startswith(("ihas", "threshold"))}


def test_settings_are_the_configs_that_their_names_say(grown):
    _, runs, _, _ = grown

    def config(name):
        return config_from_json(json.loads((runs / name / "config.json").read_text())["config"])

    assert config("threshold=half_1").of(GateConfig).threshold == "half"
    assert config("start=tables_1") == dataclasses.replace(
        config("ihas_1"), retrain=dataclasses.replace(config("ihas_1").retrain, start="tables")
    )


def test_the_tables_have_each_setting_and_the_default_in_bold(grown, scores):
    results, _, _, (_, _, second) = grown
    text = results.with_suffix(".md").read_text()
    assert text in second.stdout
    for label in ("**guarded**", "0.5", "**cold**", "warm"):
        assert text.count(f"| {label} | 2 | ") == 1, label
    gains = [scores["start=tables"][s]["auc"] - scores["ihas"][s]["auc"] for s in range(2)]
    (row,) = (line for line in text.splitlines() if line.startswith("| warm | "))
    kept = sum(run["kept"] for run in scores["start=tables"]) / 2
    assert f"| {sum(gains) / 2:+.4f} ± " in row and f"| {kept:.1%} | " in row
    assert "Number of clusters" not in text
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_same_and_a_smaller_command_run_nothing_again(grown):
    results, _, run, _ = grown
    before = results.with_suffix(".json").read_text()
    for flags in (("--study", "start", "--seeds", 2), ("--study", "threshold", "--seeds", 1)):
        done = run(*flags)
        assert " epoch " not in done.stdout and "[Studies] step" not in done.stdout
        assert results.with_suffix(".json").read_text() == before


def test_kept_is_the_mean_share_of_what_clusters_keep(grown, scores):
    _, runs, _, _ = grown
    clusters = json.loads((runs / "ihas_1" / "metrics.json").read_text())["clusters"]
    assert len(clusters) == 2
    kept = sum(one["share"] * one["kept"] for one in clusters)
    assert scores["ihas"][1]["kept"] == pytest.approx(kept)
    assert "kept" not in scores["base"][0]


def test_all_settings_are_choices_of_their_own(script, command):
    """A log can have each of them, and a study has none twice."""
    config, data = preset("small"), open_store(command.folder / "store")
    for name, study in script("study_list").STUDIES.items():
        names = [setting.name(config) for setting in study.settings]
        assert len(set(names)) == len(names) and "ihas" in names, name
        for setting in study.settings:
            check_choices(made := setting.config(config), data)
            assert all(value_of(made, flag) == value for flag, value in setting.flags.items())
    labels = [one.label for one in script("study_list").STUDIES["clusters"].settings]
    assert labels == [*"12345678"]


def test_studies_share_what_is_the_same_config(script):
    module = script("studies")
    rows = module.variants_of(module.Arguments(config=preset("small")))
    assert [row.name for row in rows[:2]] == ["base", "ihas"]
    assert len({row.name for row in rows}) == len({row.config for row in rows}) == len(rows)
    moved = Config().having(ClusterConfig(clusters=3))
    rows = module.variants_of(module.Arguments(config=moved, study=("clusters",)))
    names = [row.name for row in rows]
    assert "clusters=2" in names and "clusters=3" not in names


def test_the_figure_has_a_panel_for_each_study_and_log(script):
    def runs(auc, kept):
        return [{"auc": auc + seed / 1000, "kept": kept} for seed in range(2)]

    listed, config = script("study_list").STUDIES, preset("small")
    scores = {"base": runs(0.7, 1.0), "ihas": runs(0.71, 0.4), "clusters=1": runs(0.72, 0.5)}
    scores |= {"l0_weight=0.4": runs(0.69, 0.6), "weight=0.01": runs(0.68, 0.2)}
    shown = {name: listed[name] for name in ("clusters", "sparsity")}
    figure = script("study_figure").draw_studies(shown, {"a": scores, "b": scores}, config)
    clusters, _, sparsity, _ = figure.axes
    stars = [line for line in clusters.lines if line.get_marker() == "*"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in stars] == [
        (1, pytest.approx(0.7105))
    ]
    texts = [text.get_text() for text in sparsity.get_legend().get_texts()]
    assert texts == ["weight 0.001", "weight 0.01"]
    (line,) = (line for line in sparsity.lines if line.get_label() == "weight 0.001")
    assert line.get_xdata() == pytest.approx([0.6, 0.4])
    assert line.get_ydata() == pytest.approx([0.6905, 0.7105])


def test_unknown_studies_and_other_methods_are_refused(studies):
    for flags, words in (
        (("--study", "clusterss"), "There is no --study clusterss; the studies are clusters,"),
        (("--method", "pep"), "These are studies of iHAS"),
        (("--seeds", 0), "at least 1 of --seeds"),
    ):
        done = studies.inside(*flags, output=studies.folder / "none")
        assert done.returncode and words in " ".join(done.stderr.split()), done.stderr
    assert not (studies.folder / "none").exists()
