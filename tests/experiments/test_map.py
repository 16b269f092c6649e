"""The map of when iHAS pays: its cells, how it resumes, and what it says."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ihas_jax.files import read_json, write_json

TINY = (
    *("--model.dim", 4, "--model.hidden", 4, "--optimizer.learning-rate", 0.02),
    *("--train.batch-size", 200, "--train.max-epochs", 1, "--search.pretrain-epochs", 1),
    *("--cluster.min-rows", 100, "--values", 20, "--own", 1, "--noise", 1),
)
MODELS = {"base", "ihas", "ihas_2", "uniform"}


@pytest.fixture(scope="module")
def drawn(command):
    """A map of two logs by one seed, and a call of its script."""
    script = dataclasses.replace(command, script="paper/map.py")
    output, results = command.folder / "map", command.folder / "the_map"

    def run(*flags):
        given = ("--output", output, "--results", results)
        return script.inside(
            *TINY, "--rows", 2000, "--heterogeneity", 0, 1, "--seeds", 1, *given, *flags
        )

    done = run()
    assert done.returncode == 0, done.stderr
    return output, results, done, run


def test_every_cell_has_its_models_and_leaves_nothing(drawn):
    output, results, done, _ = drawn
    logs = json.loads(results.with_suffix(".json").read_text())["logs"]
    assert set(logs) == {"2000_0_0", "2000_1_0"}
    for found in logs.values():
        assert set(found) == {*MODELS, "ceiling", "agreement", "seconds"}
        assert found["ceiling"] > max(found[model]["auc"] for model in MODELS)
        wanted = min(1.0, found["ihas"]["table_share"])
        assert found["uniform"]["table_share"] == pytest.approx(wanted, rel=0.1)
    assert [path.name for path in output.iterdir()] == []
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    lines = [line for line in done.stdout.splitlines() if line.startswith("[Map]")]
    assert len(lines) == 2 * 5 and " left; " in lines[-1] and lines[-1].startswith("[Map] 1 of 2")
    assert " epoch " not in done.stdout


def test_gains_are_those_of_the_scores(drawn):
    _, results, done, _ = drawn
    content = json.loads(results.with_suffix(".json").read_text())
    logs = content["logs"]
    for place in content["map"]:
        run = logs[f"2000_{place['heterogeneity']:g}_0"]
        for other in MODELS - {"ihas"}:
            gain = run["ihas"]["auc"] - run[other]["auc"]
            assert place[other]["gain"] == gain
            assert f"| {place['heterogeneity']:g} | {gain:+.4f} |" in done.stdout


def test_a_finished_map_is_written_again_and_resumes(drawn):
    output, results, _, run = drawn
    path = results.with_suffix(".json")
    before = json.loads(path.read_text())["logs"]
    left = output / "2000_0_0"
    left.mkdir()  # as where a process ends before it removes a cell
    done = run()
    assert done.returncode == 0 and "[Map]" not in done.stdout and not left.exists()
    assert json.loads(path.read_text())["logs"] == before
    content = read_json(path)
    del content["logs"]["2000_1_0"]["uniform"]
    write_json(path, content)
    done = run()
    assert done.returncode == 0, done.stderr
    started = [line.rpartition("; ")[2] for line in done.stdout.splitlines() if "[Map]" in line]
    title = "2,000 rows, heterogeneity 1, seed"
    assert started == [f"{title} 0: drawing", f"{title} 0: Uniform size"]
    after, uniform = json.loads(path.read_text())["logs"], "2000_1_0"
    assert after[uniform]["uniform"]["auc"] == before[uniform]["uniform"]["auc"]
    done = run("--values", 30)
    assert done.returncode == 2 and "differs in dials" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--rows", 2000, 2000), "--rows names a value twice"),
        (("--rows", 10), "--rows must be at least 1,000, not 10"),
        (("--heterogeneity", 2), "--heterogeneity must be 0 to 1, not 2"),
        (("--groups", 0), "--groups must be at least 1, not 0"),
        (("--seeds", 0), "Name at least one of"),
        (("--method", "pep"), "leave --method out"),
        (("--retrain.teachers", "fm"), "leave --retrain.teachers out"),
    ],
)
def test_wrong_flags_are_refused(drawn, flags, words):
    *_, run = drawn
    done = run(*flags)
    assert done.returncode == 2 and words in " ".join(done.stderr.split())


def scores(auc):
    return {"auc": auc, "logloss": 0.4, "table_share": 0.5}


def test_the_map_says_where_a_gain_is_beyond_the_noise(script):
    table = script("map_table")
    gains = {(1000, 0.0): (-0.01, -0.012, -0.011), (9_000_000, 1.0): (0.02, 0.021, 0.019)}
    found = {
        table.Place(*place): [
            {"ihas": scores(0.7 + gain), "ceiling": 0.8, "agreement": 0.5}
            | dict.fromkeys(("base", "ihas_2", "uniform"), scores(0.7))
            for gain in own
        ]
        for place, own in gains.items()
    }
    assert table.said_of(found, "base") == (
        "Of 2 fields iHAS is above it in 1 (1 beyond the noise), most with 9,000,000 rows and a "
        "heterogeneity of 1 (+0.0200); below it in 1 (1 beyond the noise), most with 1,000 rows "
        "and a heterogeneity of 0 (-0.0110)."
    )
    figure = table.draw(found)
    first = figure.axes[0]
    assert sorted(text.get_text() for text in first.texts) == ["+0.0200*", "-0.0110*"]
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["1 k", "9 M"]
    assert [tick.get_text() for tick in first.get_yticklabels()] == ["1", "0"]
    image = first.images[0].get_array()
    assert image[0, 1] > 0 > image[1, 0] and image.mask[0, 0] and image.mask[1, 1]


def test_costs_have_a_fixed_part_and_one_that_grows(script):
    cost_of, duration = script("costs").cost_of, script("costs").duration
    assert cost_of([]) is None
    assert cost_of([(100, 5.0)]) == (0.0, 0.05)
    assert cost_of([(100, 12.0), (300, 16.0)]) == pytest.approx((10.0, 0.02))
    assert cost_of([(100, 1.0), (300, 5.0)]).fixed == 0.0  # no part is below 0
    assert cost_of([(100, 5.0), (300, 4.0)]) == (4.5, 0.0)
    assert cost_of([(100, 12.0), (300, 16.0)]).of(1000) == pytest.approx(30.0)
    shown = [duration(seconds) for seconds in (59.4, 600, 9000, 200_000)]
    assert shown == ["59 s", "10 minutes", "2.5 hours", "2.3 days"]
