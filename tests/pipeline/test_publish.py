"""The last stage: numbers first, then report, figures and table, each of which can fail alone."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from ihas_jax.config import (
    ClusterConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.errors import InputError
from ihas_jax.files import write_json
from ihas_jax.pipeline import publish
from ihas_jax.pipeline.fit import fit
from ihas_jax.progress import command_line
from ihas_jax.reporting.drawing import figure_names
from ihas_jax.serving.storage import load_bundle, save_bundle

CONFIG = Config(
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2),
    search=SearchConfig(pretrain_epochs=1, gate_every=2),
    options=(ClusterConfig(min_rows=100),),
)
NAMES = ("US$ 50% of $", "a|b", "_hidden", "x" * 200, "line\nbreak", "<b>[red]\x1b[31m")
FIGURES = {"learning_curves.png", "probabilities.png", "widths.png"}


@pytest.fixture(scope="module")
def log():
    drawn = synthetic(SyntheticConfig(rows=2000, own=2, noise=2, values=30))
    names = [*NAMES, *(f"field_{n}" for n in range(len(drawn.schema.fields)))]
    fields = tuple(
        dataclasses.replace(field, name=name)
        for field, name in zip(drawn.schema.fields, names, strict=False)
    )
    return dataclasses.replace(drawn, schema=dataclasses.replace(drawn.schema, fields=fields))


@pytest.fixture(scope="module")
def finished(log, tmp_path_factory):
    return fit(CONFIG, log, tmp_path_factory.mktemp("publish") / "run")


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished.workdir, tmp_path / "run")
    return tmp_path / "run"


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        # Orbax names files at random, and the order of checksums is that of writing
        if path.is_file() and "arrays" not in path.parts and path.name != "checksums.json"
    }


def fail(*_):
    raise ValueError("Expected end of text\nand more")


def test_names_that_are_formulas_or_markup_end_no_run(finished, log):
    assert finished.missing == ()
    assert {path.name for path in (finished.workdir / "figures").iterdir()} == FIGURES
    assert load_bundle(finished.workdir).schema.names == log.schema.names
    tables = (finished.workdir / "report.md").read_text().split("| field |")[1].splitlines()
    rows = [line for line in tables[2:] if line.startswith("|")]
    assert rows[0].startswith(r"| US\$ 50% of \$ | ")
    for row in rows[: len(log.schema.names)]:
        assert row.replace(r"\|", "").count("|") == 2 + len(finished.metrics["clusters"])


@pytest.mark.parametrize(
    ("broken", "left"),
    [
        ("render_report", ["report.md"]),
        ("draw_widths", ["figures/widths.png"]),
        ("draw_probabilities", ["figures/probabilities.png"]),
        ("save_figure", sorted(f"figures/{name}" for name in FIGURES)),
        ("closing_table", []),
        ("show", []),
    ],
)
def test_a_part_that_fails_is_made_by_the_same_call(
    copy, log, finished, monkeypatch, caplog, broken, left
):
    """As of a run whose last stage was not done yet."""
    complete = contents(copy)
    seconds = json.loads((copy / "stages.json").read_text())
    del seconds["evaluate"]
    write_json(copy / "stages.json", seconds)
    for name in ("metrics.json", "curves.json", "report.md", *(f"figures/{n}" for n in FIGURES)):
        (copy / name).unlink()
    shutil.rmtree(copy / "bundle")
    with monkeypatch.context() as patch:
        patch.setattr(publish, broken, fail)
        result = fit(CONFIG, log, copy)
    missing = [str(copy / name) for name in left] or ["the closing table"]
    assert sorted(result.missing) == missing
    for name in missing:
        assert f"{name} could not be made (ValueError: Expected end of text)" in caplog.text
    assert set(complete) - set(contents(copy)) == set(left)
    scores = {name: finished.metrics[name] for name in ("base", "search", "ihas", "clusters")}
    assert {name: result.metrics[name] for name in scores} == scores
    assert load_bundle(copy).kept == load_bundle(finished.workdir).kept
    before = contents(copy)
    again = fit(CONFIG, log, copy)
    assert again.missing == () and again.metrics == result.metrics
    after = contents(copy)
    assert set(after) == set(complete)
    assert {name: after[name] for name in before} == before  # nothing else is written anew
    for name in left:
        if name != "report.md":  # which has the seconds of its evaluation
            assert after[name] == complete[name]


def test_a_folder_in_the_place_of_a_file_is_named(copy, log, caplog):
    for name in ("report.md", "figures/widths.png"):
        (copy / name).unlink()
        (copy / name).mkdir()
    missing = fit(CONFIG, log, copy).missing
    assert missing == (str(copy / "report.md"), str(copy / "figures" / "widths.png"))
    assert f"{missing[0]} could not be made (IsADirectoryError" in caplog.text
    assert f"{missing[1]} could not be made (IsADirectoryError" in caplog.text
    for name in missing:
        Path(name).rmdir()
    caplog.clear()
    with caplog.at_level(logging.INFO, "ihas_jax"):
        assert not fit(CONFIG, log, copy).missing
    assert "changed or damaged" not in caplog.text


def test_figures_that_were_deleted_are_not_called_damaged(copy, log, finished, caplog):
    shutil.rmtree(copy / "figures")
    with caplog.at_level(logging.INFO, "ihas_jax"):
        assert not fit(CONFIG, log, copy).missing
    assert "changed or damaged" not in caplog.text
    assert {path.name for path in (copy / "figures").iterdir()} == FIGURES


@pytest.mark.parametrize("damage", ["text", "folder"])
def test_damaged_names_of_figures_hide_no_numbers(copy, log, finished, damage):
    names = copy / "figures" / "names.json"
    names.write_text("{") if damage == "text" else names.mkdir()
    result = fit(CONFIG, log, copy)
    assert result.metrics == finished.metrics
    assert (str(copy / "report.md") not in result.missing) and (copy / "report.md").is_file()
    if damage == "text":
        assert not result.missing and not names.exists()


@pytest.mark.parametrize("way", ["file", "link"])
def test_what_stands_in_the_place_of_a_bundle_is_replaced(copy, log, finished, tmp_path, way):
    shutil.move(copy / "bundle", tmp_path / "elsewhere")
    bundle, ids = copy / "bundle", log.test.ids
    if way == "file":
        bundle.touch()
    else:
        bundle.symlink_to(tmp_path / "nothing")
    assert not fit(CONFIG, log, copy).missing
    expected = load_bundle(tmp_path / "elsewhere").predict_ids(ids)
    assert (load_bundle(copy).predict_ids(ids) == expected).all()
    save_bundle(load_bundle(copy), link := tmp_path / "link")
    shutil.rmtree(link)
    link.symlink_to(tmp_path / "elsewhere")
    save_bundle(load_bundle(copy), link, replace=True)
    assert not link.is_symlink() and (tmp_path / "elsewhere" / "bundle.json").exists()


def test_numbers_are_there_before_anything_is_drawn(copy, log, monkeypatch):
    shutil.rmtree(copy / "bundle")
    (copy / "metrics.json").unlink()
    seen = []
    monkeypatch.setattr(
        publish, "make_parts", lambda parts: seen.append([*parts, (copy / "metrics.json").exists()])
    )
    fit(CONFIG, log, copy)
    assert seen == [
        [
            *(str(copy / name) for name in ("report.md", "figures/learning_curves.png")),
            *(str(copy / name) for name in ("figures/probabilities.png", "figures/widths.png")),
            "the closing table",
            True,
        ]
    ]


def test_a_font_that_comes_later_changes_what_shows_names(copy, log, monkeypatch):
    before = contents(copy)
    usual = figure_names(log.schema.names)
    lacking = dataclasses.replace(
        usual, texts=("field 1", *usual.texts[1:]), stand_ins={"field 1": NAMES[0]}
    )
    with monkeypatch.context() as patch:
        patch.setattr(publish, "figure_names", lambda names: lacking)
        fit(CONFIG, log, copy)
        shown = contents(copy)
        fit(CONFIG, log, copy)
        assert contents(copy) == shown
    assert json.loads((copy / "figures/names.json").read_text()) == lacking.stand_ins
    assert r"The figures say field 1 for US\$ 50% of \$, since" in (copy / "report.md").read_text()
    assert {name for name in shown if shown[name] != before.get(name)} == {
        "report.md",
        "figures/widths.png",
        "figures/names.json",
    }
    fit(CONFIG, log, copy)
    assert contents(copy) == before


def test_a_run_of_an_older_version_is_evaluated_again_where_a_part_is_missing(copy, log):
    before = contents(copy)
    (copy / "curves.json").unlink()
    fit(CONFIG, log, copy)
    assert not (copy / "curves.json").exists()  # nothing was missing
    (copy / "figures/widths.png").unlink()
    fit(CONFIG, log, copy)
    after = contents(copy)
    assert after["curves.json"] == before["curves.json"]
    assert after["figures/widths.png"] == before["figures/widths.png"]


def test_python_gets_messages_through_logging_alone(copy, log, caplog, capsys):
    with caplog.at_level(logging.INFO, "ihas_jax"):
        fit(CONFIG, log, copy)
    assert any(r.name == "ihas_jax" and "Report: " in r.message for r in caplog.records)
    said = capsys.readouterr()
    assert said.out == said.err == ""


def test_a_command_line_prints_messages_and_tables(copy, log, capsys):
    with command_line():
        fit(CONFIG, log, copy)
    said = capsys.readouterr().out
    assert "Report: " in said and "iHAS" in said
    fit(CONFIG, log, copy)
    assert capsys.readouterr().out == ""


def test_one_class_is_named_wherever_an_auc_stands(log, tmp_path, caplog, capsys):
    def negative(split):
        return split._replace(labels=0 * split.labels)

    data = dataclasses.replace(
        log, train=log.train, valid=negative(log.valid), test=negative(log.test)
    )
    config = dataclasses.replace(CONFIG, method="none")
    words = "not defined: all rows have label 0"
    with command_line():
        result = fit(config, data, tmp_path / "run")
    said = capsys.readouterr().out
    assert said.count(words) >= 2 and "nan" not in said
    report = (tmp_path / "run" / "report.md").read_text()
    assert f"| base | {words} | " in report and "nan" not in report
    assert report.count(words) == 2  # test and validation
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["base"]["auc"], metrics["base"]["only_label"]) == (None, 0)
    assert result.metrics["base"]["auc"] != result.metrics["base"]["auc"]
    (tmp_path / "run" / "report.md").unlink()
    fit(config, data, tmp_path / "run")
    assert (tmp_path / "run" / "report.md").read_text() == report


def test_a_folder_that_is_not_utf8_is_refused(log, tmp_path):
    with pytest.raises(InputError, match=r"b\\xff can't hold a run, since .* not UTF-8"):
        fit(CONFIG, log, tmp_path / os.fsdecode(b"b\xff"))
    assert not list(tmp_path.iterdir())
