"""The scripts that generate, describe and measure logs."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.schema import Field
from ihas_jax.reporting.drawing import figure_names


@pytest.fixture(scope="module")
def generate(script):
    return script("generate")


def test_a_generated_log_is_read_as_criteo(generate, tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes(b"".join(text.tobytes() for _, text in generate.lines(3000, 1)))
    assert path.read_bytes() == b"".join(t.tobytes() for _, t in generate.lines(3000, 1))
    assert path.read_bytes() != b"".join(t.tobytes() for _, t in generate.lines(3000, 2))
    summary = prepare(formats.criteo(path), tmp_path / "store", min_count=1)
    assert sum(summary.rows) == 3000
    assert summary.bad_rows == 0
    assert 0.2 < sum(summary.clicks) / 3000 < 0.32
    fields = {field.name: field for field in summary.schema.fields}
    assert fields["C9"].size == 4
    assert len(fields["C3"].values) > 1000
    assert all(len(value) == 8 for value in fields["C3"].values)
    assert "NULL" in fields["I1"].values
    assert "NULL" not in fields["I2"].values


def test_as_many_values_are_seen_as_asked_for(generate):
    rng = np.random.default_rng(0)
    support = generate.find_support(5000, 20_000)
    assert len(np.unique(generate._zipf(rng, support, 20_000))) == pytest.approx(5000, rel=0.05)


def test_hexadecimal_digits_differ_where_ranks_do(generate):
    text = generate._hexadecimal(np.arange(1, 2000, dtype=np.uint32), 3)
    assert len({bytes(row) for row in text}) == 1999
    int(bytes(text[0]), 16)


def test_a_store_is_described(command):
    describe = dataclasses.replace(command, script="describe.py").inside
    store, figure = command.folder / "store", command.folder / "frequencies.png"
    done = describe(store, "--verify", "--figure", figure)
    assert done.returncode == 0, done.stderr
    data = open_store(store)
    for word in (*data.schema.names, f"{len(data.train.labels):,}", "label rate", "checksum"):
        assert word in done.stdout
    assert figure.stat().st_size > 10_000
    damaged = command.folder / "damaged"
    damaged.mkdir()
    for file in store.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    with (damaged / "valid.ids.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    done = describe(damaged, "--verify")
    assert done.returncode == 2
    assert "valid.ids.npy is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_text_is_shown_as_it_is_and_parquet_has_no_checksums(command):
    folder = command.folder / "odd"
    folder.mkdir()
    path = folder / "log.csv"
    path.write_text("ad[/x],y\n" + "[/home],1\n" * 20 + "[red]q,0\n" * 12)
    flags = ("--label", "y", "--categorical", "ad[/x]", "--input", path)
    done = dataclasses.replace(command, script="prepare.py").inside(
        "table", *flags, "--output", folder / "store"
    )
    assert done.returncode == 0, done.stderr
    assert "ad[/x]" in done.stdout
    describe = dataclasses.replace(command, script="describe.py").inside
    shown = describe(folder / "store").stdout
    assert "'[/home]'" in shown
    assert "label: y, sources: log.csv, min count: 10, seed: 0" in shown
    for split in ("train", "valid", "test"):
        frame = pl.DataFrame({"label": [0, 1], "site": [0, 2]})
        frame.write_parquet(folder / f"{split}.parquet")
    assert "site" in describe(folder).stdout
    done = describe(folder, "--verify")
    assert done.returncode == 2
    assert "encoded Parquet without checksums" in done.stderr
    assert "must end in" in describe(folder, "--figure", "x.txt").stderr


def test_other_shares_and_top_values_are_those_of_the_log(script, tmp_path):
    describe = script("describe")
    path = tmp_path / "log.csv"
    path.write_text("ad,y\n" + "a,1\n" * 12 + "b,0\n" * 6 + "".join(f"r{i},0\n" for i in range(2)))
    log = formats.table(path, label="y", categorical=["ad"])
    prepare(log, tmp_path / "store", min_count=3)
    (counts,) = describe.count_values(open_store(tmp_path / "store"))
    assert counts.tolist() == [12, 6, 2]


def test_the_figure_names_the_largest_fields(script):
    describe = script("describe")
    fields = tuple(Field(f"f{n}$", tuple(map(str, range(10 * n)))) for n in range(12))
    counts = [np.arange(field.size, 0, -1) for field in fields]
    figure = describe.draw_frequencies(figure_names([field.name for field in fields]), counts)
    figure.draw_without_rendering()
    (axis,) = figure.axes
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    named = [rf"f{n}\$ ({10 * n + 1} ids)" for n in range(11, 1, -1)]
    assert names == [*named, "the others"]
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), counts[11][:-1])


def test_the_benchmark_of_preparing(command):
    results = command.folder / "ingest"
    measure = dataclasses.replace(command, script="ingest_benchmark.py")
    done = measure("--rows", 2000, 3000, "--turns", 1, "--results", results)
    assert done.returncode == 0, done.stderr
    rows = json.loads(results.with_suffix(".json").read_text())["rows"]
    ours = [row for row in rows if row["side"] == "ihas_jax"]
    assert [row["rows"] for row in ours] == [2000, 3000]
    assert all(row["ids"] == ours[0]["ids"] for row in rows if row["rows"] == 2000)
    assert "command: `python" in results.with_suffix(".md").read_text()
