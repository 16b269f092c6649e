"""Which rules are guessed for columns, and where numbers are taken for one."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ihas_jax.data.raw import formats, records
from ihas_jax.data.raw.guess import find_collapse, first_rows, guess_fields

ROWS = 2000
RNG = np.random.default_rng(0)


def guess(values, name="x", **choices):
    (found,) = guess_fields(pl.DataFrame({name: values}, schema={name: pl.String}), **choices)
    assert found.column == name
    return found


def texts(values):
    return [str(value) for value in values]


@pytest.mark.parametrize(
    ("values", "rule", "kind", "distinct"),
    [
        (["a", "b"] * 50, "category", "text", 2),
        (["1", "2", "3", "4"] * 50, "category", "integer", 4),
        (["1.0", "2.0", ""] * 50, "category", "integer", 2),
        (["True", "FALSE", "", "NA"] * 50, "category", "boolean", 2),
        (["0", "1"] * 50, "category", "integer", 2),
        (["0.5", "1", ""] * 50, "quantile", "float", 2),
        (["1e30", "-.5"] * 50, "quantile", "float", 2),
        (["1.5", "2.25", "2.50"] * 50, "quantile", "float", 3),
        (["2014-10-21", "2014-10-22 23:00"] * 50, "category", "time", 2),
        (["007", "12"] * 50, "category", "text", 2),
    ],
)
def test_rules_by_kind(values, rule, kind, distinct):
    found = guess(values)
    assert (found.rule, found.kind, found.distinct, found.note) == (rule, kind, distinct, "")


def test_versions_are_text():
    found = guess(["1.1", "1.10", "1.2"] * 50)
    assert (found.rule, found.kind) == ("category", "text")
    assert found.note == "text, since 1.1 and 1.10 are one number: --quantile if it is one"


def test_rare_amounts_are_cut_into_bins_and_ids_are_not():
    amounts = texts(np.exp(RNG.normal(9, 1.5, ROWS)).astype(int))
    ids = texts(RNG.integers(100_000, 102_000, ROWS))
    few = texts(RNG.integers(0, 50, ROWS))
    found = guess(amounts)
    assert (found.rule, found.kind) == ("quantile", "integer")
    assert found.note == "most values are rare: --categorical if they are ids"
    for name in ("id", "user_id", "userId", "userID", "user id", "uid"):
        assert guess(amounts, name).rule == "category"
    for name in ("paid", "grid", "bid", "i"):
        assert guess(amounts, name).rule == "quantile"
    found = guess(ids)
    assert (found.rule, found.note) == ("category", "rare values in 100% of these rows")
    found = guess(few)
    assert (found.rule, found.note) == ("category", "")
    # 40 rows for each value: rare or not by min_count alone
    assert guess(few, min_count=1000).rule == "category"
    assert guess(texts(np.arange(200) ** 4), min_count=2).rule == "quantile"
    assert guess(texts(np.arange(200) ** 4), min_count=1).rule == "category"


def test_many_amounts_get_a_note():
    amounts = texts(np.arange(1500) ** 3) * 10
    assert guess(amounts).note == "--quantile if these are amounts"
    assert guess(amounts, "item_id").note == ""


@pytest.mark.parametrize(
    "values",
    [
        texts(range(ROWS)),
        [f"row {i}" for i in range(ROWS)],
        [f"2014-10-21 {i // 60:02}:{i % 60:02}" for i in range(1440)],
        texts(1_700_000_000_000 + 997 * np.arange(ROWS)),
    ],
)
def test_a_value_of_its_own_in_nearly_every_row(values):
    found = guess(values)
    assert found.rule == "category"
    assert found.note == "a different value in nearly every row: --drop it?"
    assert "different value" not in guess(values[:1000] * 2).note
    assert guess(values[:50], min_count=1).note == ""


def test_columns_that_say_nothing():
    assert (
        guess(["", "NA", "-"] * 9, missing=["-", "NA"]).note == "no value in these rows: --drop it?"
    )
    assert guess(["a"] * 30).note == "one value in these rows: --drop it?"
    assert guess(["a", ""] * 30).note == ""


def test_missing_words_are_no_values():
    words = ["-", "\\N", "-1"]
    found = guess(["3", "-", "\\N", "-1", "4"] * 50, missing=words)
    assert (found.kind, found.distinct) == ("integer", 2)
    assert guess(["0.5", "-", "0.25"] * 50, missing=words).rule == "quantile"
    assert guess(["0.5", "-", "0.25"] * 50).kind == "text"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (texts(np.arange(100) / 100), "100% of its numbers, from 0 to 0.99, become one category"),
        (texts(range(1990, 2022)), "100% of its numbers, from 1990 to 2021, become one category"),
        (texts(range(2970, 2990)), "100% of its numbers, from 2970 to 2989, become two categories"),
        (["0.5", "0.25", "0.75"] * 40 + ["x", "-"] * 100, "100% of its numbers, from 0.25 to 0.75"),
        (["0", "1"] * 50, None),
        (["", "0", "7"] * 50, None),
        (["5"] * 50, None),
        (texts(range(15, 80)), None),
        (["x"] * 5, None),
    ],
)
def test_numbers_that_the_rule_for_counts_takes_for_one(values, said):
    found = find_collapse(pl.Series(values), missing=["-"])
    assert found is None if said is None else found.startswith(said)


def test_the_first_rows_of_a_log(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "BLOCK_BYTES", 100)
    lines = "".join(f"a{i},{i % 2},no time\n" for i in range(60))
    (tmp_path / "log.csv").write_text("ad,y,t\nbad,2,0\n" + lines)
    log = formats.table(tmp_path / "log.csv", label="y", categorical=["ad"], time="t")
    frame = first_rows(log, 40)
    assert frame.columns == ["ad"]
    assert frame["ad"].to_list() == [f"a{i}" for i in range(40)]
    assert first_rows(log, 1000).height == 60
    (tmp_path / "log.csv").write_text("ad,y,t\n")
    assert first_rows(log).schema == {"ad": pl.String}
