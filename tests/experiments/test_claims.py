"""The page of the paper's claims: what it reads, what it says, and whether it is up to date."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro

from ihas_jax.files import null_to_nan

RESULTS = Path(__file__).resolve().parents[2] / "experiments" / "results"
LOGS = ("avazu", "criteo", "movielens")
OTHERS = ("none", "pep", "autofield", "optembed", "adafs_soft", "adafs_hard", "optfs")


@pytest.fixture
def claims(command):
    return dataclasses.replace(command, script="paper/claims.py")


def runs(*aucs):
    return [{"auc": auc} for auc in aucs]


def write(folder, name, content):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content))


def section(text, log):
    return text.partition(f"## {log}\n")[2].partition("\n## ")[0].splitlines()


def test_the_committed_page_is_that_of_the_committed_records(script):
    module, records = script("claim_records"), script("claims")
    content = json.loads((RESULTS / "claims.json").read_text())["logs"]
    found = module.read_records(RESULTS, LOGS)
    assert list(content) == [*LOGS]
    for log, kept in content.items():
        facts = json.loads(json.dumps(records.facts_of(module.judge_log(found, log, 0.05))))
        assert len(facts) == len(kept)
        for one, other in zip(facts, null_to_nan(kept), strict=True):
            assert one["verdict"] == other["verdict"] and one["claim"] == other["claim"]
            assert one.get("gains") == pytest.approx(other.get("gains"))
            assert one.get("power") == pytest.approx(other.get("power"), nan_ok=True)


def test_gains_are_differences_of_the_same_seed(script):
    """By hand from the records of the repository."""
    listed = {claim.short: claim for claim in script("claim_list").CLAIMS}
    table2 = json.loads((RESULTS / "table2.json").read_text())
    scores = table2["logs"]["criteo"]
    (own,) = listed["above the full size"].gains(table2, "criteo").values()
    assert own[1] == scores["ihas"][1]["auc"] - scores["none"][1]["auc"]
    assert [*listed["above every method"].gains(table2, "criteo")] == [*OTHERS[1:]]
    figure4 = json.loads((RESULTS / "figure4.json").read_text())
    times = figure4["inference"]["avazu"]["microseconds"]
    gains = listed["fastest"].gains(figure4, "avazu")["pep"]
    assert gains == pytest.approx(np.log(np.array(times["pep"]) / times["ihas"]))


def test_widths_of_ids_and_of_clusters(script):
    """Fields: a rank that has no meaning counts nowhere; shares of rows weigh the clusters."""
    listed = {claim.short: claim for claim in script("claim_list").CLAIMS}

    def cluster(share, site, app, device, hour, rank):
        widths = {"site_id": site, "app_id": app, "device_id": device, "hour": hour, "C14": rank}
        return {"share": share, "widths": widths}

    content = {
        "runs": [{"clusters": [cluster(0.75, 8, 8, 8, 4, 16), cluster(0.25, 4, 4, 4, 0, 0)]}]
    }
    assert listed["ids are wider"].gains(content, "avazu")["other fields"] == pytest.approx([4])
    apart = listed["clusters differ"].gains(content, "avazu")["equal clusters"]
    assert apart == pytest.approx([(4 + 4 + 4 + 4 + 16) / 5])
    facts = [{"logloss": {"gain": 0.3}}, {}, {"logloss": {"gain": -0.1}}]
    content = {"logs": {"x": {"seeds": [{"clusters": facts}]}}}
    assert [*listed["own cluster is best"].gains(content, "x").values()] == [[-0.1]]


def test_the_page_judges_what_is_there_and_names_what_is_not(claims, tmp_path):
    """iHAS is far above all on one log, and on the other one far below one method alone."""
    ihas = runs(0.80, 0.81, 0.82)
    above = {"ihas": ihas} | {name: runs(0.7001, 0.71, 0.72) for name in OTHERS}
    below = above | {"optfs": runs(0.9001, 0.91, 0.92)}
    write(tmp_path, "table2", {"logs": {"first": above, "second": below}})
    done = claims.inside("--records", tmp_path, "--logs", "first", "second")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "claims.md").read_text()
    first, second = section(text, "first"), section(text, "second")
    for lines in (first, second):
        assert any(
            line.startswith("| 1 | **holds** | none | +0.1000 ± 0.0001 | 3 |") for line in lines
        )
    assert any(line.startswith("| 2 | **holds** | pep | +0.1000") for line in first)
    assert any(line.startswith("| 2 | **does not** | optfs | -0.1000") for line in second)
    assert any(line.startswith("| 5 | untested: no record |") for line in first)
    assert (tmp_path / "claims.png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads((tmp_path / "claims.json").read_text())["logs"]["second"][1]
    assert (facts["verdict"], facts["weakest"]) == ("does not", "optfs")
    assert facts["gains"] == pytest.approx([-0.1001, -0.1, -0.1])
    assert "# claims 1, 2\npython experiments/paper/table2_overall.py" in text
    assert "--seeds 5 --results runs/claims/figure6" in text
    again = claims.inside("--records", tmp_path, "--logs", "first", "--seeds", 3)
    assert "table2_overall.py" not in again.stdout and "table4_ablation.py" in again.stdout


def test_a_test_that_finds_nothing_says_its_power(claims, tmp_path):
    scores = {name: runs(0.7, 0.71, 0.72) for name in OTHERS} | {"ihas": runs(0.71, 0.70, 0.725)}
    write(tmp_path, "table2", {"logs": {"log": scores}})
    done = claims.inside("--records", tmp_path, "--logs", "log")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("can't be told (power 0.0") == 2


def test_a_record_that_is_not_finished_is_none(script):
    judge = script("claim_records").judge_log
    for scores in ({"ihas": runs(0.7, 0.8), "none": runs(0.7)}, {"ihas": [], "none": []}):
        found = judge({"table2": {"logs": {"log": scores}}}, "log", 0.05)
        assert all(one.verdict == "untested: no record" for one in found)


def test_a_folder_without_records_is_an_error(claims, tmp_path):
    done = claims.inside("--records", tmp_path)
    assert done.returncode and "holds no record" in done.stderr


class ParsedError(Exception):
    """Ends a script once its command line is read."""


def test_the_commands_of_the_claims_parse(script, monkeypatch):
    real = tyro.cli

    def cli(*args, **options):
        found = real(*args, **options)
        if options.get("return_unknown_args"):  # the preset is read ahead
            return found
        raise ParsedError

    monkeypatch.setattr(tyro, "cli", cli)
    listed = script("claim_list").CLAIMS
    for command in {claim.command.format(log="avazu") for claim in listed}:
        path, *flags = shlex.split(command)
        monkeypatch.setattr(sys, "argv", [path, *flags, "--seeds", "5", "--results", "runs/x"])
        with pytest.raises(ParsedError):
            script(Path(path).stem).main()
