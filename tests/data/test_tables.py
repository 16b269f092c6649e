"""Tables as logs: CSV and Parquet."""

import csv
import io

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.data.raw import formats, records
from ihas_jax.errors import InputError


def test_table_from_csv(tmp_path, read, write):
    text = 'x,"the, ad",day,y\n10,"a,""b""\nc",mon,1\n,,"",0.0\n2.5,d,tue,true\n'
    path = write(tmp_path / "log.csv", text)
    log = formats.table(path, label="y", categorical=["the, ad", "day"], numeric=["x"])
    assert [name for name, _ in log.fields] == ["the, ad", "day", "x"]
    rows, bad, _ = read(log)
    assert rows == [(1, 'a,"b"\nc', "mon", "5"), (0, "", "", "NULL"), (1, "d", "tue", "0")]
    assert bad == 0


def test_lines_are_counted_also_inside_quotes(tmp_path, read, write):
    path = write(tmp_path / "log.csv", 'a,y\n"1\n2\n3",1\n"4\n",\n5,0\n')
    _, bad, complaints = read(formats.table(path, label="y", categorical=["a"]))
    assert bad == 1
    assert complaints == [f"{path}, line 5: the label y is '', not 0 or 1"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('a,y\nb,1\n5" disk,1\n', 3),
        ('a,y\nb,1\n"c"d,1\n', 3),
        ('a,y\nb,1\n"c,1\nd,1\n', 3),
        ('a,y\nb,"1\n', 2),
    ],
)
def test_a_stray_quote_is_named(tmp_path, text, line, read, write):
    path = write(tmp_path / "log.csv", text)
    with pytest.raises(InputError, match=rf"log\.csv, line {line}: .*quote"):
        read(formats.table(path, label="y", categorical=["a"]))


def test_a_quote_that_swallows_the_file_is_named(tmp_path, monkeypatch, read, write):
    monkeypatch.setattr(records, "BLOCK_BYTES", 64)
    monkeypatch.setattr(records, "_LONGEST_RECORD_BYTES", 256)
    path = write(tmp_path / "log.csv", 'a,y\nb,1\n"c,1\n' + "d,1\n" * 200)
    with pytest.raises(InputError, match="line 3: a record of more than"):
        read(formats.table(path, label="y", categorical=["a"]))


def test_table_from_parquet(tmp_path, read):
    frame = pl.DataFrame(
        {
            "ad": ["a", None, "c"],
            "n": [7, 8, None],
            "x": [2.9, None, 10.0],
            "y": [True, False, None],
        }
    )
    frame.write_parquet(tmp_path / "log.parquet")
    log = formats.table(tmp_path / "log.parquet", label="y", categorical=["ad", "n"], numeric=["x"])
    rows, bad, complaints = read(log)
    assert rows == [(1, "a", "7", "0"), (0, "", "8", "NULL")]
    assert bad == 1
    assert complaints == [f"{log.paths[0]}, row 3: the label y is None, not 0 or 1"]


def test_a_damaged_parquet_file_is_named(tmp_path, write):
    path = write(tmp_path / "log.parquet", b"PAR1 and no more")
    with pytest.raises(InputError, match=r"log\.parquet cannot be read as Parquet"):
        formats.table(path, label="y", categorical=["a"])


@pytest.mark.parametrize(
    ("label", "categorical", "message"),
    [
        ("z", ["a"], "no column 'z'; its columns are a, y, b, b"),
        ("y", ["a", "z"], "no column 'z'"),
        ("y", ["a", "a"], "'a' is named twice"),
        ("y", ["y"], "'y' is named twice"),
        ("y", ["b"], "two columns 'b'"),
        ("y", [], "no columns to use"),
    ],
)
def test_columns_must_be_there_once(tmp_path, label, categorical, message, write):
    path = write(tmp_path / "log.csv", "a,y,b,b\n1,1,1,1\n")
    with pytest.raises(InputError, match=message):
        formats.table(path, label=label, categorical=categorical)


def test_another_separator(tmp_path, read, write):
    path = write(tmp_path / "log.csv", "a;y\nx,z;1\n")
    log = formats.table(path, label="y", categorical=["a"], separator=";")
    assert read(log)[0] == [(1, "x,z")]
    with pytest.raises(InputError, match="its columns are a;y; does ',' separate them"):
        formats.table(path, label="y", categorical=["a"])
    for separator in ("", ";;", "é", '"', "\n"):
        with pytest.raises(InputError, match="--separator is"):
            formats.table(path, label="y", categorical=["a"], separator=separator)


def test_a_list_column_is_refused_by_name(tmp_path, read):
    frame = pl.DataFrame({"tags": [["a", "b"], ["c"]], "y": [0, 1], "ad": ["u", "v"]})
    path = tmp_path / "log.parquet"
    frame.write_parquet(path)
    message = "'tags' holds lists; write one value per row .explode the column., or join each list"
    with pytest.raises(InputError, match=message) as caught:
        formats.table(path, label="y", categorical=["tags"])
    assert str(caught.value).startswith(str(path))
    assert len(read(formats.table(path, label="y", categorical=["ad"]))[0]) == 2


value = st.text(st.sampled_from('ab,"\n\té '), max_size=4)


@given(rows=st.lists(st.tuples(value, value, st.booleans()), max_size=8), block=st.integers(1, 40))
def test_csv_is_read_as_the_csv_module_reads_it(rows, block, tmp_path_factory, read, write):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("a", "b", "y"), *((a, b, int(y)) for a, b, y in rows)])
    path = write(tmp_path_factory.mktemp("csv") / "log.csv", text.getvalue())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK_BYTES", block)
        got, bad, _ = read(formats.table(path, label="y", categorical=["a", "b"]))
    assert got == [(int(y), a, b) for a, b, y in rows]
    assert bad == 0
