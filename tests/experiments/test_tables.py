"""The scripts that put selection methods and ablations side by side."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ihas_jax.config import Config, RetrainConfig
from ihas_jax.files import write_json
from ihas_jax.pipeline.parts import require_parts
from ihas_jax.reporting.comparison import paired_gain, spread

METHODS = ("none", "pep")


@pytest.fixture(scope="module")
def table2(command):
    """Table 2 of some methods on a tiny log, and a call of the same command."""
    table = dataclasses.replace(command, script="paper/table2_overall.py")
    results, output = command.folder / "table2", command.folder / "tables"
    flags = ("--methods", *METHODS[1:], "--seeds", 2, "--trials", 2, "--results", results)

    def run():
        return table.inside(*flags, "--train.max-epochs", 1, output=output)

    done = run()
    assert done.returncode == 0, done.stderr
    return results, output, run


@pytest.fixture(scope="module")
def table4(command, table2):
    """Table 4 in the same folder of runs, where what Table 2 has run is not run again."""
    table = dataclasses.replace(command, script="paper/table4_ablation.py")
    results = command.folder / "table4"
    wanted = "magnitude", "ihas_1", "ihas_2", "ihas_shared"
    flags = ("--variants", *wanted, "--seeds", 2, "--results", results)
    done = table.inside(*flags, "--train.max-epochs", 1, output=table2[1])
    assert done.returncode == 0, done.stderr
    return results, done


def test_every_method_has_scores_of_every_seed(table2):
    results, output, _ = table2
    content = json.loads(results.with_suffix(".json").read_text())
    (methods,) = content["logs"].values()
    assert set(methods) == set(METHODS)
    for name, scores in methods.items():
        for seed in range(2):
            metrics = json.loads((output / "store" / f"{name}_{seed}" / "metrics.json").read_text())
            row = metrics["base" if name == "none" else name]
            assert scores[seed]["auc"] == row["auc"]
            assert scores[seed]["parameters"] == row["parameters"]
    assert set(content["inference"]["store"]) == set(METHODS)


def test_the_table_compares_with_base_and_best_beside_the_papers_numbers(table2):
    results, _, _ = table2
    text = results.with_suffix(".md").read_text()
    for word in ("| base |", "| PEP |", "## store", "2 trials"):
        assert word in text
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_table_says_which_methods_are_left_out(script, record, tmp_path):
    variant, names = script("compare").Variant, ("base", "refused")
    rows = [variant(name, name, name.title(), Config(), name, {}) for name in names]
    sizes = {"parameters": 9, "router_parameters": 0, "bytes": 36, "training_seconds": 1.0}
    record = record()
    record.logs["x"] = {"base": [{"auc": auc, "logloss": 0.4, **sizes} for auc in (0.7, 0.8)]}
    script("rendering").write(record, "Table", rows, {"x": {"base": 1.0}}, "")
    assert "explains: Refused.\n" in (tmp_path / "table.md").read_text()


def test_a_method_far_below_the_best_leaves_the_others_room(script):
    draw = script("table_figures").draw_sizes

    def scores(*auc):
        return [{"auc": value, "parameters": 1000, "router_parameters": 0} for value in auc]

    figure = draw({"store": {"base": scores(0.80, 0.81), "PEP": scores(0.60, 0.61)}})
    (panel,) = figure.axes
    assert panel.get_ylim()[0] == pytest.approx(0.805 - 0.03)
    assert [text.get_text() for text in panel.texts] == ["0.605"]


def test_all_rows_of_a_figure_look_different(script):
    runs = [{"auc": 0.8, "parameters": 1000, "router_parameters": 0}]
    (legend,) = script("table_figures").draw_sizes({"store": dict.fromkeys(METHODS, runs)}).legends
    looks = [(key.get_color(), key.get_marker()) for key in legend.get_lines()]
    assert looks[0] == ("black", "*")
    assert len({color for color, _ in looks}) == len(METHODS)


def test_every_method_has_had_its_trials(table2):
    _, output, _ = table2
    folders = {path.name for path in (output / "store" / "trials").iterdir()}
    assert folders == {f"{method}_{trial}" for method in METHODS for trial in range(2)}


def test_the_same_command_trains_nothing_again(table2):
    results, _, run = table2
    before = json.loads(results.with_suffix(".json").read_text())["logs"]
    done = run()
    assert done.returncode == 0, done.stderr
    assert " epoch " not in done.stdout
    assert json.loads(results.with_suffix(".json").read_text())["logs"] == before


def test_the_ablations_have_their_scores(table2, table4):
    results, done = table4
    content = json.loads(results.with_suffix(".json").read_text())
    scores = content["logs"]["store"]
    assert list(scores) == ["base", "magnitude", "ihas_1", "ihas_2", "ihas_shared"]
    run = json.loads((table2[1] / "store" / "magnitude_1" / "metrics.json").read_text())
    assert scores["magnitude"][1]["auc"] == run["magnitude"]["auc"]
    parameters = {name: runs[0]["parameters"] for name, runs in scores.items()}
    assert parameters["ihas_2"] < parameters["base"] < parameters["ihas_1"]
    assert set(content["inference"]["store"]) == set(scores)
    assert "| iHAS-1 |" in done.stdout


def test_ablations_begin_with_the_runs_of_methods(table2, table4):
    stages = [
        json.loads(line)["stage"]
        for line in (table2[1] / "store" / "ihas_2_0" / "log.jsonl").read_text().splitlines()
        if json.loads(line)["event"] == "stage"
    ]
    assert set(stages) == {"choose", "retrain", "evaluate"}


NAN = float("nan")
ONE = {"auc": NAN, "logloss": 0.4, "only_label": 1, "parameters": 9, "router_parameters": 0}
ONE |= {"bytes": 36, "training_seconds": 1.0}


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_logs_of_odd_names_and_one_class_have_their_table(script, record, tmp_path):
    variant, names = script("compare").Variant, ["US$ 50% of $", "a|b", "_hidden"]
    rows = [variant(n, n, n.title(), Config(), n, {}) for n in ("base", "pep")]
    good = [ONE | {"auc": auc, "only_label": None} for auc in (0.7, 0.8)]
    table = {name: {"base": good, "pep": good} for name in names[:2]}
    table["_hidden"] = {"base": [ONE, ONE], "pep": [ONE, ONE]}
    times = {name: {"base": 1.0, "pep": 1.0} for name in names}
    record = record(results=tmp_path / "a $b|")
    record.logs |= table
    assert script("rendering").write(record, "Table", rows, times, "") == ()
    text = (tmp_path / "a $b|.md").read_text()
    for words in (r"## US\$ 50% of \$", r"## a\|b", r"## \_hidden", "(a%20%24b%7C.png)"):
        assert words in text
    assert "| Pep | not defined: all rows have label 1 | 0.4000 ± 0.0000 | not defined |  |" in text
    assert "nan" not in text
    scores = strict_json(tmp_path / "a $b|.json")["logs"]["_hidden"]["pep"][0]
    assert (scores["auc"], scores["only_label"]) == (None, 1)
    assert (tmp_path / "a $b|.png").read_bytes().startswith(b"\x89PNG")


def test_the_numbers_of_a_table_outlive_its_form(script, record, tmp_path, monkeypatch, caplog):
    rendering = script("rendering")
    rows = [script("compare").Variant("base", "base", "Base", Config(), "base", {})]
    record = record()
    record.logs["x"] = {"base": [ONE, ONE]}
    arguments = (record, "Table", rows, {"x": {"base": 1.0}}, "")

    def fail(*_):
        raise ValueError("no")

    monkeypatch.setattr(rendering, "draw_sizes", fail)
    missing = rendering.write(*arguments)
    assert missing == (str(tmp_path / "table.png"),)
    assert "table.png could not be made (ValueError: no)" in caplog.text
    monkeypatch.setattr(rendering, "lines_of", fail)
    (tmp_path / "table.md").unlink()
    assert len(rendering.write(*arguments)) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"table.json"}
    with pytest.raises(SystemExit) as end:
        require_parts(missing, "table.json")
    assert "the numbers are in table.json" in str(end.value.code)
    require_parts((), "table.json")


def test_a_table_aligns_numbers_right(script):
    table = script("common").markdown_table
    assert table(("a", "b"), [("x", "1")]) == ["| a | b |", "|---|---:|", "| x | 1 |"]
    assert table(("a", "b"), [], texts=(1,)) == ["| a | b |", "|---:|---|"]


def test_cells_of_a_comparison(script):
    common = script("common")
    base, runs = ([{"logloss": value} for value in pair] for pair in ((0.2, 0.4), (0.3, 0.7)))
    assert common.spread_cell(base, "logloss") == "0.3000 ± 0.1414"
    assert common.spread_cell(base, "logloss", 1) == "0.3 ± 0.1"
    gain, p = common.gain_cells(base, runs, "logloss")
    assert (gain, p) == ("+0.2000 ± 0.1414", "0.295")
    assert common.gain_cells(runs, base, "logloss", 1)[0] == "-0.2 ± 0.1"
    assert common.gain_cells(base, base, "logloss") == ["", ""]


def test_inference_is_timed_per_row_and_variants_take_turns(script, monkeypatch):
    timing, variant, calls = script("timing"), script("compare").Variant, []
    clock = iter(range(100))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(
        timing, "_predictor", lambda variant, *_: lambda ids: calls.append(variant.name)
    )
    rows = [variant(name, name, name, Config(), name, {}) for name in ("a", "b")]
    data = SimpleNamespace(test=SimpleNamespace(ids=np.zeros((4, 1), np.int32)))
    times = timing.time_inference(rows, data, Path("runs"), 0)
    assert times == {"a": 250_000.0, "b": 250_000.0}  # a second for four rows
    turns = [calls[i : i + 2] for i in range(0, 12, 2)]
    assert {*map(tuple, turns)} == {("a", "b"), ("b", "a")}


def test_infinity_is_null_too(tmp_path):
    write_json(tmp_path / "t.json", {"a": float("inf"), "b": [-float("inf"), 1.5]})
    assert strict_json(tmp_path / "t.json") == {"a": None, "b": [None, 1.5]}


def test_spreads_without_a_number():
    assert f"{spread([0.7]):.4f}" == "0.7000"
    assert f"{spread([NAN, 0.7]):.4f}" == "not defined"
    assert f"{spread([0.6, 0.8]):.4f}" == "0.7000 ± 0.1414"
    gain = paired_gain([NAN, NAN], [0.7, 0.7])
    assert f"{gain.spread:+.4f}" == "not defined" and gain.p_text == ""
    assert paired_gain([0.7], [0.6]).p_text == ""


def test_ablations_with_teachers_are_compared_with_the_taught_model(command):
    table = dataclasses.replace(command, script="paper/table4_ablation.py")
    results, output = command.folder / "taught_table4", command.folder / "taught_table4_runs"
    flags = ("--variants", "ihas_2", "--seeds", 2, "--results", results, "--retrain.teachers", "lr")
    done = table.inside(*flags, "--train.max-epochs", 1, output=output)
    assert done.returncode == 0, done.stderr
    content = json.loads(results.with_suffix(".json").read_text())
    assert content["compared_with"] == "student"
    rows = content["logs"]["store"]
    for seed in range(2):
        found = {run: output / "store" / f"{run}_{seed}" for run in ("none", "ihas_2")}
        metrics = {run: json.loads((found[run] / "metrics.json").read_text()) for run in found}
        assert rows["base"][seed]["auc"] == metrics["none"]["student"]["auc"]
        assert metrics["none"]["student"] != metrics["none"]["base"] == metrics["ihas_2"]["base"]
        assert metrics["none"]["teacher"] == metrics["ihas_2"]["teacher"]
        seconds = metrics["none"]["seconds"]
        trained = seconds["teach"] + seconds["retrain"]
        assert rows["base"][seed]["training_seconds"] == pytest.approx(trained)
    gain = paired_gain(*([run["auc"] for run in rows[row]] for row in ("ihas_2", "base")))
    text = results.with_suffix(".md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| iHAS-2 |")]
    assert line.split(" | ")[3] == f"{gain.spread:+.4f}"
    assert "| AUC vs base, taught |" in text and "| base, taught |" in text


def test_table_2_has_the_taught_model_as_its_base(command):
    table = dataclasses.replace(command, script="paper/table2_overall.py")
    results, output = command.folder / "taught_table2", command.folder / "taught_table2_runs"
    flags = ("--methods", "none", "--seeds", 2, "--results", results, "--retrain.teachers", "lr")
    done = table.inside(*flags, "--train.max-epochs", 1, output=output)
    assert done.returncode == 0, done.stderr
    content = json.loads(results.with_suffix(".json").read_text())
    assert content["compared_with"] == "student"
    for seed, row in enumerate(content["logs"]["store"]["none"]):
        metrics = json.loads((output / "store" / f"none_{seed}" / "metrics.json").read_text())
        assert row["auc"] == metrics["student"]["auc"] != metrics["base"]["auc"]
    assert "| base, taught |" in results.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("trials", "teachers", "said"), [(2, True, 1), (2, False, 0), (0, True, 0)]
)
def test_teachers_that_differ_by_trials_are_named(script, trials, teachers, said):
    table = script("table2_overall")
    config = Config(retrain=RetrainConfig(teachers=("lr",) if teachers else ()))
    note = table._note(table.Arguments(config=config, trials=trials), {}, [])
    assert note.count("The teachers of a method train with the learning rate") == said
