"""Figure 6: predictions of test rows by the models of their own and of other clusters."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from ihas_jax.data.open import open_store
from ihas_jax.errors import InputError
from ihas_jax.serving.storage import load_bundle
from ihas_jax.training.metrics import auc, logloss


@pytest.fixture(scope="module")
def figure6(command):
    """The case study on a tiny log over two seeds, and a call of the same command."""
    script = dataclasses.replace(command, script="paper/figure6_cases.py")
    results = command.folder / "figure6"

    def run():
        flags = "--seeds", 2, "--results", results, "--train.max-epochs", 1
        return script.inside(*flags, output=command.folder / "cases")

    done = run()
    assert done.returncode == 0, done.stderr
    return results, done, run


def test_facts_are_those_of_the_bundle(command, figure6):
    """Recomputed from the bundle of each seed, row by row where two models disagree."""
    seeds = json.loads(figure6[0].with_suffix(".json").read_text())["logs"]["store"]["seeds"]
    ids, labels = open_store(command.folder / "store").test
    for seed, facts in enumerate(seeds):
        bundle = load_bundle(command.folder / "cases" / "store" / f"ihas_{seed}")
        assert len(bundle.models) == 2 and bundle.routes == (0, 1)
        clusters, own = bundle.assign(ids), bundle.predict_ids(ids)
        other = bundle.predict_assigned(ids, 1 - clusters)
        for metric, of in (("auc", auc), ("logloss", logloss)):
            assert facts["all"][metric]["own"] == pytest.approx(of(labels, own))
            assert facts["all"][metric]["other"] == pytest.approx(of(labels, other))
        nearer = np.abs(labels - own) < np.abs(labels - other)
        assert facts["all"]["better"] == pytest.approx(nearer.mean(), abs=2e-3)
        assert [part["rows"] for part in facts["clusters"]] == np.bincount(clusters).tolist()
        for one in facts["examples"]:
            row = one["row"]
            assert (one["cluster"], one["label"]) == (clusters[row], labels[row])
            assert (one["own"], one["other"]) == pytest.approx((own[row], other[row]))


def test_the_results_are_tables_and_a_figure(figure6):
    results, done, _ = figure6
    text = results.with_suffix(".md").read_text()
    for words in ("| store | ", "| cluster 1 | ", "| all | 200 | ", "| 0 | "):
        assert words in text and words in done.stdout
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_trains_nothing_again(figure6):
    results, _, run = figure6
    before = results.with_suffix(".json").read_text()
    done = run()
    assert done.returncode == 0, done.stderr
    assert " epoch " not in done.stdout
    assert results.with_suffix(".json").read_text() == before


def test_the_others_prediction_is_their_mean(script):
    probs = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.9, 0.8, 0.7]], np.float32)
    own, other = script("cases").own_and_others(probs, np.array([0, 2, 1]))
    np.testing.assert_allclose(own, [0.1, 0.8, 0.6], rtol=1e-6)
    np.testing.assert_allclose(other, [0.65, 0.35, 0.5], rtol=1e-6)


def test_gains_have_standard_errors_over_rows(script):
    labels = np.array([1, 0, 1, 0])
    own, other = np.array([0.8, 0.2, 0.5, 0.5]), np.array([0.5, 0.5, 0.5, 0.8])
    found = script("cases").compare(labels, own, other)
    gains = [np.log(0.8 / 0.5), np.log(0.8 / 0.5), 0.0, np.log(0.5 / 0.2)]
    assert (found["rows"], found["clicks"], found["better"]) == (4, 0.5, 0.875)  # a tie is half
    assert found["better_error"] == pytest.approx((0.875 * 0.125 / 4) ** 0.5)
    assert found["logloss"]["gain"] == pytest.approx(np.mean(gains))
    assert found["logloss"]["error"] == pytest.approx(np.std(gains, ddof=1) / 2)
    assert (found["auc"]["own"], found["auc"]["other"]) == (0.875, 0.25)
    assert found["auc"]["gain"] == 0.625


def test_examples_are_of_each_cluster_and_label(script):
    labels, clusters = np.array([0, 1] * 20), np.repeat([0, 1], 20)
    rows = script("cases").draw_examples(labels, clusters, 3, seed=0)
    assert [(clusters[row], labels[row]) for row in rows] == [
        *((0, 1), (0, 1), (0, 0), (0, 0)),
        *((1, 1), (1, 1), (1, 0), (1, 0)),
    ]
    assert len(set(rows)) == 8
    assert rows == script("cases").draw_examples(labels, clusters, 3, seed=0)
    assert rows != script("cases").draw_examples(labels, clusters, 3, seed=1)


NAN = float("nan")


def facts(gain, *, error=0.01, better=0.6):
    """Facts of rows whose logloss and AUC gain as much."""
    logloss = {"own": 0.4, "other": 0.4 + gain, "gain": gain, "error": error}
    own = {"own": 0.7, "other": 0.7 - gain, "gain": gain, "error": error}
    shares = {"rows": 1000, "clicks": 0.2, "better": better, "better_error": 0.01}
    return {**shares, "logloss": logloss, "auc": own}


def seed_of(gain):
    examples = [
        {"row": 7, "cluster": 0, "label": 1, "own": 0.9, "other": 0.4},
        {"row": 9, "cluster": 1, "label": 0, "own": 0.3, "other": 0.2},
    ]
    undefined = facts(0.01)
    undefined["auc"] = dict.fromkeys(undefined["auc"], NAN)
    return {"all": facts(gain), "clusters": [facts(0.05), {}, undefined], "examples": examples}


def test_a_row_over_seeds_has_means_and_p(script):
    row = script("case_table").seeds_row("log", [seed_of(0.02), seed_of(0.04)])
    assert row[:2] == ["log", "60.0 ± 0.0 %"]
    assert row[2:5] == ["0.4000 ± 0.0000", "0.4300 ± 0.0141", "+0.0300 ± 0.0141"]
    assert row[6:9] == ["0.7000 ± 0.0000", "0.6700 ± 0.0141", "+0.0300 ± 0.0141"]
    assert row[5] == row[9] == "0.205"  # t = 3 with one degree of freedom


def test_rows_that_are_not_defined_are_said_to_be(script):
    lines = script("case_table").lines_of({"log": [seed_of(0.02)]})
    text = "\n".join(lines)
    assert (
        "| cluster 0 | 1,000 | 20.0% | 60.0% ± 2.0% | 0.4000 | 0.4500 | +0.0500 ± 0.0196 |" in text
    )
    assert "| cluster 2 | " in text and "| not defined | not defined | not defined |" in text
    assert "cluster 1 |" not in text and "nan" not in text
    assert "| 1 | 9 | no | 0.300 | 0.200 |" in text


def test_the_figure_has_examples_and_gains_with_intervals(script):
    seeds = [seed_of(0.02), seed_of(0.04)]
    examples, logloss, auc = script("case_figure").draw_cases({"log": seeds}).axes
    assert [text.get_text() for text in examples.get_yticklabels()] == [
        *("cluster 0, row 7", "cluster 1, row 9"),
    ]
    label = [line for line in examples.lines if line.get_marker() == "D"]
    assert [line.get_xdata()[0] for line in label] == [1, 0]
    bar = logloss.containers[0].lines[2][0].get_segments()[0]
    assert bar[:, 0] == pytest.approx([0.05 - 0.0196, 0.05 + 0.0196])
    assert [text.get_text() for text in auc.texts] == ["not defined"] * 2
    (others,) = [line for line in auc.lines if line.get_marker() == "."]
    assert others.get_xdata() == pytest.approx([0.04])


def test_one_model_has_no_others(script, command, figure6):
    bundle = load_bundle(command.folder / "cases" / "store" / "ihas_0")
    alone = dataclasses.replace(bundle, models=bundle.models[:1], routes=(0, 0))
    with pytest.raises(InputError, match="one model serves all rows"):
        script("cases").case_facts(alone, np.zeros((1, 6), np.int32), np.zeros(1), 0)


def test_another_method_has_no_cases(command):
    script = dataclasses.replace(command, script="paper/figure6_cases.py")
    done = script.inside("--method", "pep", output=command.folder / "none")
    assert done.returncode and "leave --method out" in done.stderr


def test_one_cluster_is_refused_before_anything_is_trained(command):
    script = dataclasses.replace(command, script="paper/figure6_cases.py")
    done = script.inside("--cluster.clusters", "1", output=command.folder / "none")
    assert done.returncode and "give --cluster.clusters 2 or more" in done.stderr
    assert not (command.folder / "none").exists()
