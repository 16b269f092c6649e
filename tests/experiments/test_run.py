from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from ihas_jax.files import write_json
from ihas_jax.flags import option_kinds
from ihas_jax.presets import preset
from ihas_jax.serving.storage import load_bundle

STAGES = ("base", "search", "choose", "retrain", "evaluate")


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def metrics_of(run: Path) -> dict:
    metrics = json.loads((run / "metrics.json").read_text())
    times = ("seconds", "microseconds")
    return {name: value for name, value in metrics.items() if name not in times}


def events_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def flags_of(config, prefix="--"):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            yield from flags_of(value, f"{name}.")
        else:
            text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            yield "--model" if name == "--model.name" else name, text


@pytest.fixture(scope="module")
def finished(command):
    """A run in one go, and what it said."""
    output = command.folder / "inside"
    done = command.inside(output=output)
    assert done.returncode == 0, done.stderr
    return output, done


def test_outputs_of_a_finished_run(finished):
    run, done = finished
    metrics = json.loads((run / "metrics.json").read_text())
    schema = json.loads((run / "bundle" / "schema.json").read_text())
    names = [field["name"] for field in schema["fields"]]
    for model in ("base", "search", "ihas"):
        assert 0 < metrics[model]["auc"] < 1
        assert 0 < metrics[model]["logloss"] < 1
        assert metrics[model]["parameters"] > 0
    assert len(metrics["clusters"]) == 2
    assert sum(cluster["share"] for cluster in metrics["clusters"]) == pytest.approx(1)
    for cluster in metrics["clusters"]:
        assert list(cluster["widths"]) == names
        assert cluster["kept"] == pytest.approx(sum(cluster["widths"].values()) / len(names) / 4)
    assert tuple(metrics["seconds"]) == (*STAGES, "compiling")
    assert min(metrics["seconds"].values()) > 0
    assert {path.name for path in (run / "figures").iterdir()} == {
        "probabilities.png",
        "widths.png",
        "learning_curves.png",
    }
    for figure in (run / "figures").iterdir():
        assert figure.read_bytes().startswith(b"\x89PNG")
    assert load_bundle(run).schema.names == tuple(names)
    for words in ("[Metrics] AUC: ", "iHAS", f"{metrics['ihas']['auc']:.4f}", "report.md"):
        assert words in done.stdout
    assert not done.stderr


def test_the_time_of_compiling_is_part_of_that_of_the_stages(finished):
    run, _ = finished
    seconds = json.loads((run / "metrics.json").read_text())["seconds"]
    compiling = seconds.pop("compiling")
    assert 0 < compiling < sum(seconds.values())
    assert f"| of these, compiling | {compiling:.1f} |" in (run / "report.md").read_text()


def test_programs_are_kept_where_the_flag_says(command, tmp_path):
    output, folder = tmp_path / "run", tmp_path / "programs"
    flags = ("--stage", "base", "--train.programs")
    done = command(*flags, folder, output=output)
    assert done.returncode == 0, done.stderr
    kept = sorted(folder.glob("*/*.program"))
    assert kept
    done = command(*flags, folder, output=tmp_path / "again")
    assert done.returncode == 0 and sorted(folder.glob("*/*.program")) == kept
    done = command(*flags, kept[0] / "programs", output=output)  # the flag may change
    assert done.returncode == 2
    assert "Not a directory. Name another folder, or off, in the variable" in done.stderr


def test_the_log_has_one_json_object_per_line(finished):
    events = events_of(finished[0])
    stages = [(event["stage"], event["state"]) for event in events if event["event"] == "stage"]
    assert stages == [(stage, state) for stage in STAGES for state in ("starts", "done")]
    assert all(event["time"] > 0 for event in events)
    epochs = [event for event in events if event["event"] == "epoch" and event["stage"] == "base"]
    assert [event["epoch"] for event in epochs] == list(range(len(epochs)))
    assert "plan" in {event["event"] for event in events}


def test_the_report_shows_the_numbers_of_metrics_json(finished):
    run, _ = finished
    metrics = json.loads((run / "metrics.json").read_text())
    rows = {}
    for line in (run / "report.md").read_text().splitlines():
        if line.startswith("|"):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows.setdefault(name, cells)
    for name, key in (("base", "base"), ("search (iHAS-1)", "search"), ("iHAS", "ihas")):
        auc, logloss, parameters, gain = rows[name]
        assert auc == f"{metrics[key]['auc']:.4f}"
        assert logloss == f"{metrics[key]['logloss']:.4f}"
        assert parameters == f"{metrics[key]['parameters']:,}"
        if key != "base":
            assert gain == f"{metrics[key]['auc'] - metrics['base']['auc']:+.4f}"
    for c, cluster in enumerate(metrics["clusters"]):
        share, kept, auc, *_ = rows[str(c)]
        assert (share, kept) == (f"{cluster['share']:.1%}", f"{cluster['kept']:.1%}")
        assert auc == f"{cluster['test']['auc']:.4f}"
        for name, width in cluster["widths"].items():
            assert rows[name][c] == str(width)
    for image in re.findall(r"!\[.*\]\((.*)\)", (run / "report.md").read_text()):
        assert (run / image).is_file()
    times = (run / "report.md").read_text().split("## Time")[1]
    for stage, seconds in zip(STAGES, metrics["seconds"].values(), strict=False):
        assert f"| {stage} | {seconds:.1f} |" in times


@pytest.fixture(scope="module")
def staged(command, finished):
    """A run stage by stage, and what each stage said."""
    output, flags = command.folder / "staged", ("--train.checkpoint-seconds", 3600)
    said = [command.inside("--stage", stage, *flags, output=output) for stage in STAGES]
    return output, said


def test_help_lists_every_flag_with_its_default(command):
    done = command.inside("--help")
    assert done.returncode == 0
    text = re.sub(r"[\s│]+", " ", done.stdout)
    flags = dict(flags_of(dataclasses.replace(preset("small"), options=())))
    del flags["--options"]
    for flag, kind in option_kinds().items():
        flags |= dict(flags_of(kind(), f"--{flag}."))
    assert len(flags) > 75 and {"--pep.kept", "--gates.weight"} <= flags.keys()
    for flag, default in flags.items():
        after = text.split(f" {flag}", 1)[1]
        meaning, found = re.match(r"(.*?)\(default: (.*?)\)", after).groups()
        assert found == default, flag
        assert len(meaning.split()) > 2, flag
    for flag in ("--data", "--output", "--stage", "--preset"):
        assert f" {flag} " in text


def test_stages_one_by_one_equal_a_run_in_one_go(finished, staged):
    run, said = staged
    for done in said:
        assert done.returncode == 0, done.stderr
        assert "damaged" not in done.stdout
    assert metrics_of(run) == metrics_of(finished[0])
    ours, theirs = load_bundle(run), load_bundle(finished[0])
    assert ours.kept == theirs.kept
    for a, b in zip(ours.models, theirs.models, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)
    jax.tree.map(np.testing.assert_array_equal, ours.router.variables, theirs.router.variables)
    np.testing.assert_array_equal(ours.router.centroids, theirs.router.centroids)


def test_a_stage_runs_only_itself(staged):
    for stage, done in zip(STAGES, staged[1], strict=True):
        assert re.findall(r"\[(\w+)\] starts", done.stdout) == [stage]


def test_a_missing_predecessor_is_named(command, finished):
    half = command.folder / "half"
    shutil.copytree(finished[0], half)
    seconds = json.loads((half / "stages.json").read_text())
    write_json(half / "stages.json", {"base": seconds["base"]})
    done = command.inside("--stage", "retrain", output=half)
    assert done.returncode == 2
    assert "--stage retrain needs the stage 'search'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_finished_run_prints_its_table_again_and_does_nothing(command, finished):
    before = contents(finished[0])
    done = command.inside(output=finished[0])
    assert done.returncode == 0, done.stderr
    assert contents(finished[0]) == before
    first, again = (
        [line for line in stdout.splitlines() if "│" in line]
        for stdout in (finished[1].stdout, done.stdout)
    )
    assert len(first) == 3
    assert again == first
    assert "epoch" not in done.stdout


def test_a_missing_part_is_exit_code_1_and_made_by_the_same_command(command, finished):
    run = command.folder / "formless"
    shutil.copytree(finished[0], run)
    shutil.rmtree(run / "figures")
    (run / "figures").write_text("no folder")
    done = command.inside(output=run)
    assert done.returncode == 1
    assert f"{run / 'figures/widths.png'} could not be made (FileExistsError" in done.stdout
    assert done.stderr.startswith(f"incomplete: the numbers are in {run / 'metrics.json'}, but")
    assert done.stderr.count("\n") == 1
    assert f"{metrics_of(run)['ihas']['auc']:.4f}" in done.stdout
    (run / "figures").unlink()
    done = command.inside(output=run)
    assert done.returncode == 0, done.stderr
    assert " epoch " not in done.stdout and "[evaluate]" not in done.stdout
    for figure in (finished[0] / "figures").iterdir():
        assert (run / "figures" / figure.name).read_bytes() == figure.read_bytes()


def test_another_config_on_a_finished_run_is_refused(command, finished):
    before = contents(finished[0])
    done = command.inside("--model.dim", 8, "--gates.bins", 9, output=finished[0])
    assert done.returncode == 2
    assert contents(finished[0]) == before
    assert done.stderr.startswith("error: ")
    assert "model.dim: 4 -> 8; gates.bins: None -> 9" in done.stderr
    assert "--output" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def refused(command):
    """Runs a wrong command: returns stderr, after exit 2 with nothing changed."""

    def run(*flags, output=None):
        before = contents(command.folder)
        done = command.inside(*flags, output=output)
        assert done.returncode == 2
        assert contents(command.folder) == before
        assert "Traceback" not in done.stderr
        return re.sub(r"[\s│]+", " ", done.stderr)

    return run


@pytest.fixture(scope="module")
def thesis(command):
    """A file in a folder that is no run."""
    file = command.folder / "plain" / "thesis.tex"
    file.parent.mkdir()
    file.write_text("years of work")
    return file


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--serch.gate-every", 5), ("--serch.gate-every", "mean", "--search.gate-every INT")),
        (("--outptu", "x"), ("--outptu", "mean", "--output {None}|PATH")),
        (("--train.batch-size", "many"), ("--train.batch-size", "'many'")),
        (("--stage", "serch"), ("'serch'", "--stage", "'search'")),
        (("--model", "deepfn"), ("error: --model deepfn", "mean deepfm", "autoint, ", "gdcn")),
        (("--model.autoint-heads", 3), ("error: --model.autoint-heads 3 must divide",)),
        (("--preset", "smal"), ("'smal'", "--preset", "'small'")),
        (("--gates.bins", 2), ("error: --gates.bins must be at least 3, not 2",)),
        (("--data", "nowhere"), ("error: nowhere: no such folder", "prepare.py")),
    ],
)
def test_a_wrong_flag_is_named(refused, flags, words):
    said = refused(*flags, *(() if "--outptu" in flags else ("--output", "fresh")))
    for word in words:
        assert word in said


def test_more_clusters_than_rows(refused, command):
    said = refused("--cluster.clusters", 5000, output=command.folder / "fresh")
    assert "--cluster.clusters 5000 is more than the 1600 rows" in said


def test_other_data_are_refused(refused, command, finished):
    said = refused("--data", command.folder / "other", output=finished[0])
    assert "holds a run on other data (2000 rows" in said
    assert "--data" in said


def test_a_folder_that_is_no_run_is_refused(refused, thesis):
    assert "plain exists and is not a run" in refused(output=thesis.parent)
    assert "thesis.tex exists and is not a run" in refused(output=thesis)


def test_an_output_that_cannot_be_made(refused, thesis):
    said = refused(output=thesis / "run")
    assert "can't be made or written: Not a directory. Choose another --output." in said
