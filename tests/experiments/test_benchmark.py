from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from ihas_jax.data.open import open_store
from ihas_jax.errors import InputError
from ihas_jax.presets import preset

TINY = ("--settings.batch-size", 16, "--settings.steps", 2, "--settings.turns", 1)
SHRINK = ("--settings.shrink", 20_000)


@pytest.fixture(scope="module")
def measured(command):
    """Measures at their smallest: what the script said, and the files it wrote."""
    results = command.folder / "benchmark"
    measures = ("criteo", "search", "scaling", "limit", "breakdown", "memory")
    more = ("feeding", "clusters", "seeds", "full")
    done = dataclasses.replace(command, script="benchmark.py").inside(
        *TINY,
        *SHRINK,
        "--memory-rows",
        3000,
        "--cluster-rows",
        1000,
        "--full-rows",
        400,
        "--full-shape",
        "avazu",
        "--feeding-rows",
        2000,
        "--results",
        results,
        "--only",
        *measures,
        *more,
    )
    assert done.returncode == 0, done.stderr
    return done, json.loads(results.with_suffix(".json").read_text()), results


def test_every_measure_gives_a_row_of_positive_numbers(measured):
    _, content, _ = measured
    names = [row["measure"] for row in content["rows"]]
    assert len(names) == len(set(names)) == 10
    for row in content["rows"]:
        assert min(row["values"].values()) > 0, row["measure"]


def test_the_table_says_on_what_it_was_measured(measured):
    done, content, results = measured
    text = results.with_suffix(".md").read_text()
    for word in ("hardware: ", "jax ", "command: `python", "torch: "):
        assert word in text
    for word in ("Benchmark", "hardware: ", "jax ", "command: `python", "torch: "):
        assert word in done.stdout
    assert content["asked"]["settings"]["batch_size"] == 16
    assert results.with_suffix(".png").stat().st_size > 10_000


def test_stages_take_a_prepared_log(command, bench, monkeypatch):
    results, runs = command.folder / "stages", []

    def stages(data, config, programs):
        kept = {"off": "off"}.get(programs, "kept")
        runs.append((config.optimizer.tables, config.train.max_epochs, kept))
        return {"base": 9.0, "search": 1.0, "choose": 2.0, "retrain": 3.0 + len(runs)}

    monkeypatch.setattr(bench("runs"), "_our_stages", stages)
    done = dataclasses.replace(command, script="benchmark.py").inside(
        *("--only", "stages", "--data", command.folder / "store", "--epochs", 1),
        *("--stage-turns", 1, "--results", results),
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(results.with_suffix(".json").read_text())["rows"]
    assert row["measure"] == "three stages end to end, store"
    filled = [("dense", 1, "kept"), ("rowwise", 1, "kept")]
    timed = [(name, 1, kept) for name in ("dense", "rowwise") for kept in ("off", "kept")]
    assert runs == filled + timed
    assert row["facts"]["stages"]["dense"] == {"search": 1.0, "choose": 2.0, "retrain": 6.0}
    assert row["values"]["rowwise, compiled"] == 12.0


def test_a_run_of_stages_is_timed_without_its_base(command, bench):
    small = preset("small")
    model = dataclasses.replace(small.model, dim=4, hidden=(4,))
    train = dataclasses.replace(small.train, max_epochs=1)
    config = dataclasses.replace(small, model=model, train=train)
    seconds = bench("runs")._our_stages(open_store(command.folder / "store"), config, "off")
    assert list(seconds) == ["base", "search", "choose", "retrain", "evaluate", "compiling"]
    assert min(seconds.values()) > 0
    assert set(bench("runs").STAGES) < set(seconds)


def test_a_benchmark_goes_on_where_it_was_cut_short_and_adds_to_others(command, bench, monkeypatch):
    results, done = command.folder / "kept", []
    common, steps, runs = bench("common"), bench("steps"), bench("runs")

    def row(name, *_):
        done.append(name)
        if name == "breaks":
            raise InputError("The machine is gone.")
        return common.Row(name, "ms", {"rowwise": float(len(done)), "other": 2.0})

    def benchmark(*only):
        done.clear()
        script = dataclasses.replace(command, script="benchmark.py")
        ended = script.inside(*TINY, "--results", results, "--only", *only)
        return ended, json.loads(results.with_suffix(".json").read_text())

    monkeypatch.setattr(steps, "measure_search_step", lambda _: row("search"))
    monkeypatch.setattr(steps, "measure_scaling", lambda _: row("breaks"))
    monkeypatch.setattr(runs, "measure_seeds", lambda _: row("seeds"))
    ended, content = benchmark("search", "scaling", "seeds")
    assert ended.returncode == 2
    assert content["left"] == ["scaling", "seeds"]
    assert "| search | rowwise | 1 ms |" in results.with_suffix(".md").read_text()

    monkeypatch.setattr(steps, "measure_scaling", lambda _: row("scaling"))
    ended, content = benchmark("search", "scaling", "seeds")
    assert ended.returncode == 0 and done == ["scaling", "seeds"]
    assert "goes on with scaling, seeds" in ended.stdout
    assert [found["measure"] for found in content["rows"]] == ["search", "scaling", "seeds"]

    ended, content = benchmark("search", "scaling", "seeds")
    assert done == ["search", "scaling", "seeds"]  # it had been finished
    ended, content = benchmark("seeds")
    assert done == ["seeds"] and content["left"] == []
    assert [found["measure"] for found in content["rows"]] == ["search", "scaling", "seeds"]
    commands = [found["about"][2] for found in content["rows"]]
    assert commands[0] == commands[1] != commands[2]
    text = results.with_suffix(".md").read_text()
    assert text.count("- command: `") == 2 and text.count("| measure | side |") == 2


def test_results_of_earlier_versions_are_kept(bench, tmp_path):
    path = tmp_path / "old.json"
    old = {"measure": "m", "unit": "ms", "values": {"a": 1.0}, "ours": "a", "ratios": {}}
    path.write_text(json.dumps({"provenance": ["- once"], "rows": [old], "settings": {}}))
    kept = bench("kept").Kept(path, {}, ["search"])
    assert kept.by_command() == [(["- once"], [kept.rows["m"]])]
    assert kept.left == ["search"] and not kept.resumed


def test_ratios_divide_by_our_side(measured):
    _, content, _ = measured
    row = next(row for row in content["rows"] if row["measure"] == "training step, criteo shape")
    dense = row["values"]["dense"] / row["values"]["rowwise"]
    assert row["ratios"]["dense"] == pytest.approx(dense)
    assert "rowwise" not in row["ratios"]


def test_the_profile_finds_every_part_of_a_step(measured):
    _, content, _ = measured
    (row,) = (row for row in content["rows"] if row["measure"].startswith("parts of"))
    assert {"gather", "forward", "backward", "update"} <= row["values"].keys()


def test_a_measure_without_its_input_is_left_out_and_says_what_it_needs(command):
    benchmark = dataclasses.replace(command, script="benchmark.py").inside
    done = benchmark("--only", "stages", "full", "--results", command.folder / "nothing")
    assert done.returncode != 0
    assert "--data" in done.stderr and "--full-shape" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_timed_side_hands_its_state_on_and_counts_seconds_per_step(bench, monkeypatch):
    common, states = bench("common"), []
    clock = iter((10.0, 14.0, 20.0, 22.0))
    monkeypatch.setattr(common.time, "perf_counter", lambda: next(clock))

    def step(state, more):
        states.append(state)
        return state + more, {}

    side = common.timed(step, 0, (5,), common.Settings(steps=2))
    assert [side(), side()] == [2.0, 1.0]
    assert states == [0, 5]


def test_the_peak_of_a_process_holds_what_it_has_held(bench):
    peak = bench("peak").peak_bytes
    before = peak()
    held = np.ones(60_000_000, np.uint8)
    assert before > 10_000_000
    assert peak() >= before
    del held


def test_drawn_ids_fall_as_one_over_the_rank_and_move_the_clicks(bench):
    workload = bench("workload")
    sizes = (1000, 3, 50)
    ids, labels = workload.draw_split(sizes, 200_000)
    assert (ids >= 0).all() and (ids < np.array(sizes)).all()
    counts = np.bincount(ids[:, 0], minlength=1000)
    # the share of rank k is log(1 + 1/k) / log(1001)
    expected = np.log1p(1 / np.arange(1, 11)) / np.log(1001)
    np.testing.assert_allclose(counts[:10] / 200_000, expected, rtol=0.05)
    rates = [labels[ids[:, 0] == value].mean() for value in range(5)]
    assert np.ptp(rates) > 0.05
    assert 0.1 < labels.mean() < 0.4
    again, _ = workload.draw_split(sizes, 200_000)
    np.testing.assert_array_equal(ids, again)


def test_shapes_are_those_of_the_whole_logs(bench):
    sizes = bench("workload").SIZES
    assert (len(sizes["criteo"]), sum(sizes["criteo"])) == (39, 1_086_810)
    assert (len(sizes["avazu"]), sum(sizes["avazu"])) == (22, 645_394)


def test_the_comparison_of_table_updates_runs_and_goes_on(command):
    results = command.folder / "updates"
    updates = dataclasses.replace(command, script="table_updates.py").inside
    flags = (
        *("--data", command.folder / "store", "--seeds", 2, "--results", results),
        *("--output", command.folder / "updates_runs", "--preset", "small"),
        *("--train.batch-size", 200, "--train.max-epochs", 1),
    )
    first, second = updates(*flags), updates(*flags)
    assert first.returncode == 0, first.stderr
    assert "| store | auc |" in first.stdout
    content = json.loads(results.with_suffix(".json").read_text())
    (runs,) = content["logs"].values()
    assert [len(scores) for scores in runs.values()] == [2, 2, 2]
    mean = sum(run["logloss"] for run in runs["rowwise"]) / 2
    assert content["summary"]["store"]["rowwise"]["logloss"] == pytest.approx(mean)
    assert " epoch " in first.stdout and " epoch " not in second.stdout
    numbers = [line for line in first.stdout.splitlines() if line.startswith("| store")]
    assert numbers == [line for line in second.stdout.splitlines() if line.startswith("| store")]
