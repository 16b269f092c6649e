"""reproduce.py: all steps on a tiny log, the page, the trial, and files that are refused."""

from __future__ import annotations

import dataclasses
import gzip
import json
import sys

import numpy as np
import pytest

from ihas_jax.data.open import open_store
from ihas_jax.data.raw.formats.published import AVAZU_FIELDS
from ihas_jax.errors import InputError
from ihas_jax.files import write_json

ROWS = 2000
TINY = (
    *("--preset", "small", "--model.dim", 4, "--model.hidden", 4, "--train.batch-size", 200),
    *("--optimizer.learning-rate", 0.02, "--train.max-epochs", 1, "--search.pretrain-epochs", 1),
    *("--cluster.min-rows", 100),
)


def draw_avazu(path, rows=ROWS):
    """A raw log of Avazu's form: two hours, few values, clicks that depend on the banner."""
    rng = np.random.default_rng(0)
    values = rng.integers(5, size=(rows, len(AVAZU_FIELDS)))
    clicks = rng.random(rows) < np.where(values[:, 2] > 2, 0.6, 0.1)
    lines = [",".join(("id", "click", *AVAZU_FIELDS))]
    for i, (click, row) in enumerate(zip(clicks, values, strict=True)):
        lines.append(",".join(map(str, (i, int(click), f"1410210{row[0] % 2}", *row[1:]))))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(command):
    draw_avazu(command.folder / "train.csv")
    return command.folder


@pytest.fixture
def start(script, command, folder, monkeypatch):
    """`start(*flags)`: runs the script, its steps in this process; returns the steps' scripts."""
    steps, reproduce = script("steps"), script("reproduce")

    def run(*flags, fails=""):
        ran = []

        def inside(words, output):
            ran.append(words[0])
            if words[0] == fails:
                return 3
            done = dataclasses.replace(command, script=words[0]).inside(*words[1:])
            assert done.returncode == 0, done.stderr
            return 0

        given = ("--avazu", folder / "train.csv", "--output", folder / "paper", *TINY)
        with monkeypatch.context() as patch:
            patch.setattr(steps, "_run", inside)
            patch.setattr(steps, "METHODS", ("ihas",))
            patch.setattr(steps, "ABLATIONS", ("base", "ihas_3", "ihas"))
            patch.setattr(steps, "MODELS", ("fm",))
            patch.setattr(script("page"), "MODELS", ("fm",))
            patch.setattr(sys, "argv", ["reproduce.py", *map(str, (*given, *flags))])
            patch.chdir(folder)
            reproduce.main()
        return ran

    return run


@pytest.mark.slow
def test_all_steps_run_once_and_end_with_a_page(start, folder):
    figures = [f"paper/{name}.py" for name in ("figures", "figure4_inference", "figure6_cases")]
    tables = "paper/table2_overall.py", "paper/table4_ablation.py", "paper/table3_transfer.py"
    flags = ("--trial-rows", "--seeds", 2)
    with pytest.raises(InputError, match="'table 4' has failed with exit code 3; its message"):
        start(*flags, fails=tables[1])
    assert start(*flags) == [tables[1], tables[2], *figures]  # the others are finished
    assert start(*flags) == []
    paper = folder / "paper"
    content = json.loads((paper / "page.json").read_text())
    assert content["rows"] == {"avazu": ROWS}
    tables = content["tables"]
    assert list(tables) == ["Table 2, avazu", "Table 4, avazu", "Table 3, avazu"]
    row = tables["Table 2, avazu"]["ihas"]
    scores = json.loads((paper / "table2.json").read_text())["logs"]["avazu"]
    assert row["paper"] == [0.7815, 0.3791]
    assert row["ours"]["auc"] == [run["auc"] for run in scores["ihas"]]
    text = (paper / "page.md").read_text()
    auc = np.mean(row["ours"]["auc"])
    assert (
        f"| iHAS | 0.7815 | {auc:.4f} ± " in text and f" | {auc - 0.7815:+.4f} | 0.3791 |" in text
    )
    gain = auc - np.mean([run["auc"] for run in scores["none"]])
    assert f" | +0.0050 | {gain:+.4f} ± " in text
    assert f"avazu {ROWS:,} (the paper: 40,400,000)" in text
    for name in ("figures/figure3.png", "figure4.png", "figures/figure5.png", "figure6.png"):
        assert f"]({name})" in text and (paper / name).exists()
    searched = (paper / "runs" / "avazu" / "ihas_0" / "log.jsonl").read_text()
    assert searched.count('"stage": "search", "state": "starts"') == 1  # Table 3 uses it, too


def test_the_steps_are_those_of_the_paper(script):
    steps = script("steps")
    assert {"none", *steps.METHODS} == set(script("table2_overall").PAPER)
    assert [*steps.ABLATIONS] == [*script("table4_ablation").PAPER]
    assert [*steps.MODELS] == [*script("table3_transfer").PAPER]


def test_the_trial_says_what_whole_logs_cost(script, tmp_path, monkeypatch):
    trial, plan = script("trial"), script("steps").Plan
    drawn = []

    class Done:
        def __init__(self, path):
            self.steps, self.rows = {}, int(path.parent.name)

        def has(self, step):
            return False

        def run(self, step, output):
            assert step.seeded == ("--seeds" in step.command)
            assert ("2" in step.command) == step.seeded
            assert ("--train.max-epochs" in step.command) == step.seeded
            if step.name == "figure 6":
                raise InputError("one model serves all rows")
            self.steps[step.name] = {"seconds": 10 + 0.01 * self.rows * len(step.logs)}

    monkeypatch.setattr(trial, "Done", Done)
    monkeypatch.setattr(trial, "_draw", lambda short, size: drawn.append(size))
    logs = {"avazu": tmp_path / "a", "criteo": tmp_path / "c"}
    whole = plan(tmp_path, logs, 6, ("--preset", "paper"))
    rows = {"avazu": 1_000_000, "criteo": 3_000_000}
    (tmp_path / "trial").mkdir()
    found = trial.measure(whole, (1000, 5000), 3, rows)
    assert [*found] == [step.name for step in (*whole.prepares, *whole.trainings)]
    assert found["prepare avazu"] == pytest.approx(10 + 0.01 * 1_000_000)
    assert found["prepare criteo"] == pytest.approx(10 + 0.01 * 3_000_000)
    assert found["table 2"] == pytest.approx(3 * (10 + 0.01 * 4_000_000))
    assert found["table 3"] == pytest.approx(3 * (10 + 0.01 * 1_000_000))
    assert found["figure 6"] is None
    assert drawn == [1000, 5000] and not (tmp_path / "trial").exists()


def test_the_trial_is_measured_once(script, start, folder, monkeypatch, capsys):
    calls = []

    def measure(plan, sizes, epochs, rows):
        calls.append((sizes, epochs, rows))
        return {step.name: 7200.0 for step in plan.trainings} | {"prepare avazu": None}

    monkeypatch.setattr(script("reproduce"), "measure", measure)
    flags = ("--trial-only", "--output", folder / "tried", "--seeds", 2)
    for _ in range(2):
        assert start(*flags) == []
    assert calls == [((20_000, 200_000), 1, {"avazu": ROWS})]
    said = capsys.readouterr().out
    assert said.count("  2.0 hours") == 2 * 6 and said.count("not known") == 2
    assert said.count("12.0 hours") == 2
    start(*flags, "--limit-rows", 1500)
    assert calls[1][2] == {"avazu": 1500}


def test_short_logs_have_as_many_values_as_whole_ones(script, tmp_path):
    trial = script("trial")
    short = script("steps").Plan(tmp_path, {"avazu": tmp_path / "train.csv"}, 2)
    for _ in range(2):  # what is there is replaced
        trial._draw(short, 1000)
    data = open_store(short.store("avazu"))
    assert sum(data.schema.sizes) == 645_394 and len(data.train.labels) == 800


def test_lines_are_counted_in_plain_and_gzip_files(script, folder, tmp_path):
    count = script("trial").count_rows
    packed = tmp_path / "train.csv.gz"
    packed.write_bytes(gzip.compress((folder / "train.csv").read_bytes()))
    assert count(folder / "train.csv") == count(packed) == ROWS + 1


def test_wrong_files_and_flags_are_refused(script, start, folder, tmp_path):
    check = script("trial").check_files
    check({"avazu": folder / "train.csv"})
    lines = (folder / "train.csv").read_text().splitlines()
    for log, name, text, words in (
        ("criteo", "train.csv", "\n".join(lines), "has 1 columns, not 40"),
        (
            "avazu",
            "test.csv",
            "\n".join(x.replace("click,", "", 1) for x in lines),
            "no column 'cl",
        ),
        ("avazu", "empty.csv", lines[0], "holds no rows"),
        ("avazu", "short.csv", "\n".join(lines[:3]), "holds 2 usable rows"),
    ):
        path = tmp_path / name
        path.write_text(text + "\n")
        with pytest.raises(InputError, match=words) as error:
            check({log: path})
        assert str(error.value).startswith(f"--{log} {path} ")
    with pytest.raises(InputError, match="nowhere is not a file; name Avazu's"):
        check({"avazu": tmp_path / "nowhere"})
    for flags, words in (
        (("--seeds", 1), "--seeds must be at least 2 to compare, not 1"),
        (("--trial-rows", 10), "--trial-rows must be at least 1,000, not 10"),
        (("--method", "pep"), "leave --method and --seed out"),
    ):
        with pytest.raises(InputError, match=words):
            start(*flags)
    with pytest.raises(SystemExit):
        start("--no-such-flag")


def test_a_page_of_criteo_alone_has_no_numbers_that_the_paper_lacks(script, tmp_path):
    page = script("page")
    runs = [{"auc": 0.8, "logloss": 0.45}, {"auc": 0.81, "logloss": 0.44}]
    write_json(tmp_path / "table2.json", {"logs": {"criteo": {"none": runs, "ihas": runs}}})
    write_json(tmp_path / "table4.json", {"logs": {"criteo": {"base": runs, "ihas": runs}}})
    models = {"fm": dict.fromkeys(("original", "adafs_soft", "ihas"), runs)}
    models |= dict.fromkeys(("wide_deep", "deepfm"), models["fm"])
    write_json(tmp_path / "table3.json", {"logs": {"criteo": models}})
    tables = page.content_of(tmp_path)
    assert tables["Table 2, criteo"]["none"]["paper"] is None
    assert tables["Table 2, criteo"]["ihas"]["paper"] == [0.8043, 0.4478]
    assert tables["Table 2, criteo"]["ihas"]["our_gain"] == [0.0, 0.0]
    for name in ("Table 3, criteo", "Table 4, criteo"):
        assert all(row["paper"] is None for row in tables[name].values())
    (tmp_path / "table3.json").unlink()  # not begun yet
    assert [*page.content_of(tmp_path)] == ["Table 2, criteo", "Table 4, criteo"]
