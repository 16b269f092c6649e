from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import os
import tarfile
import zipfile

import polars as pl
import pytest

from ihas_jax.data.raw import formats, records
from ihas_jax.data.raw.canonical import spell
from ihas_jax.data.raw.texts import as_text
from ihas_jax.errors import InputError

# --- The log-square rule -----------------------------------------------------------------


def squashed(v):
    """The rule as pytorch-fm writes it."""
    if v == "":
        return "NULL"
    return str(int(math.log(int(v)) ** 2)) if int(v) > 2 else str(int(v) - 2)


def codes(values):
    return spell(as_text(pl.Series(values, strict=False)), "numeric").to_list()


def test_the_rule_on_the_published_examples():
    examples = {"3": "1", "4": "1", "10": "5", "100": "21", "1000": "47"}
    examples |= {"2": "0", "1": "-1", "0": "-2", "-1": "-3", "": "NULL"}
    assert codes(list(examples)) == list(examples.values())


def test_the_rule_truncates_as_python_does():
    values = [*range(-10, 200_001), *(2**k + d for k in range(18, 31) for d in (-1, 0, 1))]
    assert codes([str(v) for v in values]) == [squashed(v) for v in values]


def test_the_rule_on_what_is_no_plain_integer():
    assert codes(["2.9", "3.0", "-0.5", "1e3", "nan"]) == ["0", "1", "-2", "47", "NULL"]
    assert codes(["abc", "1,5", "inf"]) == [None] * 3
    assert codes(["1e30", str(2**63), "-1e30"]) == ["4771", "1906", "-1e+30"]
    assert codes([2.9, 10.0, None, math.nan, math.inf]) == ["0", "5", "NULL", "NULL", None]
    assert codes([10, None, -1]) == ["5", "NULL", "-3"]


# --- Criteo ------------------------------------------------------------------------------


def criteo_line(label="0", first="5", last="aa"):
    return "\t".join([label, first, *["1"] * 12, *["68fd1e64"] * 25, last]) + "\n"


def test_criteo(tmp_path, read, write):
    text = criteo_line("1", "100", "") + criteo_line("0", "", '"q') + "0" + "\t" * 39 + "\n"
    rows, bad, _ = read(formats.criteo(write(tmp_path / "train.txt", text)))
    assert rows[0] == (1, "21", *["-1"] * 12, *["68fd1e64"] * 25, "")
    assert rows[1] == (0, "NULL", *["-1"] * 12, *["68fd1e64"] * 25, '"q')
    assert rows[2] == (0, *["NULL"] * 13, *[""] * 26)
    assert bad == 0


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (criteo_line()[:-4] + "\n", "has 39 columns, not 40"),
        (criteo_line(last="a\tb"), "has 41 columns, not 40"),
        ("garbage\n", "has 1 columns, not 40"),
        (criteo_line("2"), "the label label is '2', not 0 or 1"),
        (criteo_line(""), "the label label is '', not 0 or 1"),
        (criteo_line(first="x1"), "I1 is 'x1', not a number"),
        (criteo_line(first="x" * 99), "I1 is 'xxxxxxx"),
    ],
)
@pytest.mark.parametrize("block", [1, 300, 1 << 20])
def test_a_bad_line_is_named_and_left_out(
    tmp_path, monkeypatch, line, complaint, block, read, write
):
    monkeypatch.setattr(records, "BLOCK_BYTES", block)
    text = criteo_line() * 3 + "\n" + line + criteo_line("1") + line
    path = write(tmp_path / "train.txt", text)
    rows, bad, complaints = read(formats.criteo(path))
    assert (len(rows), bad) == (4, 2)
    assert complaints[0].startswith(f"{path}, line 5: {complaint}")
    assert len(complaints[0]) < 300


@pytest.mark.parametrize("more", [255, 256, 257, 65536])
def test_a_line_with_any_number_of_columns_too_many_is_bad(tmp_path, more):
    path = tmp_path / "log.csv"
    path.write_text("a,y\nu,0\nv,1" + ",1" * more + "\nw,0\n")
    log = formats.table(path, label="y", categorical=["a"])
    (chunk,) = log.chunks()
    assert chunk.complaint == f"{path}, line 3: has {2 + more} columns, not 2"
    assert chunk.labels.tolist() == [0, 0]


def test_the_first_bad_line_is_the_one_named(tmp_path, read, write):
    for lines in (["x\n", criteo_line("7")], [criteo_line("7"), "x\n"]):
        path = write(tmp_path / "train.txt", criteo_line() + "".join(lines))
        _, bad, complaints = read(formats.criteo(path))
        assert bad == 2
        assert "line 2: " in complaints[0]


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_line_ends_and_marks_make_no_difference(tmp_path, monkeypatch, block, read, write):
    monkeypatch.setattr(records, "BLOCK_BYTES", block)
    text = criteo_line("1", last="z") + criteo_line()
    want = read(formats.criteo(write(tmp_path / "a", text)))
    for variant in (
        text.replace("\n", "\r\n"),
        text.rstrip("\n"),
        "\ufeff" + text,
        "\n" + text.replace("\n", "\n\n"),
    ):
        assert read(formats.criteo(write(tmp_path / "b", variant))) == want


# --- Files that cannot be read -----------------------------------------------------------


def packed(text):
    return gzip.compress(text.encode(), mtime=0)


LOG = criteo_line() * 500


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.txt", b"", "is empty"),
        ("train.txt.gz", b"", "is empty"),
        ("train.txt.gz", packed(LOG)[:-20], "truncated or damaged gzip"),
        ("train.txt.gz", packed(LOG)[:-8], "truncated or damaged gzip"),
        ("train.txt.gz", packed(LOG)[:5], "truncated or damaged gzip"),
        ("train.txt.gz", packed(LOG)[:-8] + b"\0" * 8, "truncated or damaged gzip"),
        ("train.txt.gz", packed(LOG) + b"rubbish", "truncated or damaged gzip"),
        ("train.txt.gz", packed(LOG) + packed(LOG)[:40], "truncated or damaged gzip"),
        ("train.txt.gz", LOG.encode(), "is not a gzip file"),
        ("train.txt", LOG.encode() + b"caf\xe9\n", "line 501: not UTF-8"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, message, read, write):
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        read(formats.criteo(path))
    assert str(path) in str(caught.value)


def test_gzip_is_read_like_text_also_in_members(tmp_path, read, write):
    want = read(formats.criteo(write(tmp_path / "train.txt", LOG + LOG)))
    path = write(tmp_path / "no_suffix", packed(LOG) + packed(LOG))
    assert read(formats.criteo(path)) == want


def test_a_pipe_is_refused(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for build in (formats.criteo, formats.avazu):
        with pytest.raises(InputError, match="pipe is a pipe, and files are read more than once"):
            read(build(tmp_path / "pipe"))


def test_a_missing_file_is_named(tmp_path, read):
    for build in (formats.criteo, formats.avazu, formats.movielens):
        with pytest.raises(InputError, match="gone: no such file"):
            read(build(tmp_path / "gone"))


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize(
    ("encoding", "command"),
    [
        ("utf-16", "iconv -f UTF-16 -t UTF-8"),
        ("utf-16-le", "iconv -f UTF-16LE -t UTF-8"),
        ("utf-16-be", "iconv -f UTF-16BE -t UTF-8"),
        ("utf-32", "iconv -f UTF-32 -t UTF-8"),
        ("utf-32-le", "iconv -f UTF-32LE -t UTF-8"),
        ("utf-32-be", "iconv -f UTF-32BE -t UTF-8"),
    ],
)
def test_text_in_another_encoding_is_named_with_the_remedy(
    tmp_path, encoding, command, quoted, read, write
):
    text = "ad,y\n" + "käse 猫,1\n" * 300 if quoted else LOG
    path = write(tmp_path / "my log", text.encode(encoding))
    with pytest.raises(InputError, match=command) as caught:
        read(formats.table(path, label="y", categorical=["ad"]) if quoted else formats.criteo(path))
    assert str(caught.value).endswith(f"{command} '{path}' > '{path}.txt'")


def test_a_byte_of_zero_is_a_character(tmp_path, read, write):
    path = write(tmp_path / "log.csv", "ad,y\n" + "a\0b,1\n" + "some text,1\n" * 9)
    assert read(formats.table(path, label="y", categorical=["ad"]))[0][0] == (1, "a\0b")


def zipped(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("log.csv", content)
    return stream.getvalue()


def tarred(content):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        about = tarfile.TarInfo("log.csv")
        about.size = len(content)
        archive.addfile(about, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("pack", "command"),
    [
        (zipped, "unpack it: unzip -p {path} > {stem}.txt"),
        (bz2.compress, "unpack it: bunzip2 -k {path}"),
        (lzma.compress, "unpack it: unxz -k {path}"),
        (lambda _: b"\x28\xb5\x2f\xfd\x04\0", "unpack it: unzstd {path}"),
        (tarred, "unpack it: tar -xf {path}"),
        (lambda content: gzip.compress(tarred(content)), "unpack it: tar -xf {stem}"),
        (lambda _: b"PAR1 and more", "is Parquet, not text"),
    ],
)
def test_packed_files_are_named_with_the_remedy(tmp_path, pack, command, read, write):
    path = write(tmp_path / "log.x", pack(LOG.encode()))
    with pytest.raises(InputError) as caught:
        read(formats.criteo(path))
    assert str(caught.value).startswith(str(path))
    assert command.format(path=path, stem=path.with_suffix("")) in str(caught.value)


# --- Avazu -------------------------------------------------------------------------------


def test_avazu(tmp_path, read, write):
    names = ["id", "click", *formats.AVAZU_FIELDS]
    line = ["99", "1", "14102100", *(f"v{i}" for i in range(21))]
    path = write(tmp_path / "train.csv", ",".join(names) + "\n" + ",".join(line) + "\n")
    rows, _, _ = read(formats.avazu(path))
    assert rows == [(1, *line[2:])]
    assert len(formats.AVAZU_FIELDS) == 22
    path = write(tmp_path / "cut.csv", ",".join(names[:-1]) + "\n")
    with pytest.raises(InputError, match="no column 'C21'; its columns are id, click, hour"):
        formats.avazu(path)
