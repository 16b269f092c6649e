from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import math
import tarfile
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.data.raw import formats, records
from ihas_jax.data.raw.canonical import as_text, spell
from ihas_jax.data.raw.parts import find_parts
from ihas_jax.errors import InputError


def read(log):
    """All usable rows as (label, *texts), and what was left out."""
    chunks = list(log.chunks())
    rows = [
        (label, *row[: len(log.fields)])
        for chunk in chunks
        for label, row in zip(chunk.labels.tolist(), texts(chunk), strict=True)
    ]
    complaints = [chunk.complaint for chunk in chunks if chunk.complaint]
    return rows, sum(len(chunk.bad) for chunk in chunks), complaints[:1]


def texts(chunk):
    return zip(*(v.gather(codes).to_list() for codes, v in chunk.columns), strict=True)


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


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


def test_criteo(tmp_path):
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
def test_a_bad_line_is_named_and_left_out(tmp_path, monkeypatch, line, complaint, block):
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


def test_the_first_bad_line_is_the_one_named(tmp_path):
    for lines in (["x\n", criteo_line("7")], [criteo_line("7"), "x\n"]):
        path = write(tmp_path / "train.txt", criteo_line() + "".join(lines))
        _, bad, complaints = read(formats.criteo(path))
        assert bad == 2
        assert "line 2: " in complaints[0]


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_line_ends_and_marks_make_no_difference(tmp_path, monkeypatch, block):
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
def test_a_damaged_file_is_named(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        read(formats.criteo(path))
    assert str(path) in str(caught.value)


def test_gzip_is_read_like_text_also_in_members(tmp_path):
    want = read(formats.criteo(write(tmp_path / "train.txt", LOG + LOG)))
    path = write(tmp_path / "no_suffix", packed(LOG) + packed(LOG))
    assert read(formats.criteo(path)) == want


def test_a_missing_file_is_named(tmp_path):
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
def test_text_in_another_encoding_is_named_with_the_remedy(tmp_path, encoding, command, quoted):
    text = "ad,y\n" + "käse 猫,1\n" * 300 if quoted else LOG
    path = write(tmp_path / "my log", text.encode(encoding))
    with pytest.raises(InputError, match=command) as caught:
        read(formats.table(path, label="y", categorical=["ad"]) if quoted else formats.criteo(path))
    assert str(caught.value).endswith(f"{command} '{path}' > '{path}.txt'")


def test_a_byte_of_zero_is_a_character(tmp_path):
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
def test_packed_files_are_named_with_the_remedy(tmp_path, pack, command):
    path = write(tmp_path / "log.x", pack(LOG.encode()))
    with pytest.raises(InputError) as caught:
        read(formats.criteo(path))
    assert str(caught.value).startswith(str(path))
    assert command.format(path=path, stem=path.with_suffix("")) in str(caught.value)


# --- Avazu and tables --------------------------------------------------------------------


def test_avazu(tmp_path):
    names = ["id", "click", *formats.AVAZU_FIELDS]
    line = ["99", "1", "14102100", *(f"v{i}" for i in range(21))]
    path = write(tmp_path / "train.csv", ",".join(names) + "\n" + ",".join(line) + "\n")
    rows, _, _ = read(formats.avazu(path))
    assert rows == [(1, *line[2:])]
    assert len(formats.AVAZU_FIELDS) == 22
    path = write(tmp_path / "cut.csv", ",".join(names[:-1]) + "\n")
    with pytest.raises(InputError, match="no column 'C21'; its columns are id, click, hour"):
        formats.avazu(path)


def test_table_from_csv(tmp_path):
    text = 'x,"the, ad",day,y\n10,"a,""b""\nc",mon,1\n,,"",0.0\n2.5,d,tue,true\n'
    path = write(tmp_path / "log.csv", text)
    log = formats.table(path, label="y", categorical=["the, ad", "day"], numeric=["x"])
    assert [name for name, _ in log.fields] == ["the, ad", "day", "x"]
    rows, bad, _ = read(log)
    assert rows == [(1, 'a,"b"\nc', "mon", "5"), (0, "", "", "NULL"), (1, "d", "tue", "0")]
    assert bad == 0


def test_lines_are_counted_also_inside_quotes(tmp_path):
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
def test_a_stray_quote_is_named(tmp_path, text, line):
    path = write(tmp_path / "log.csv", text)
    with pytest.raises(InputError, match=rf"log\.csv, line {line}: .*quote"):
        read(formats.table(path, label="y", categorical=["a"]))


def test_a_quote_that_swallows_the_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "BLOCK_BYTES", 64)
    monkeypatch.setattr(records, "_LONGEST_RECORD_BYTES", 256)
    path = write(tmp_path / "log.csv", 'a,y\nb,1\n"c,1\n' + "d,1\n" * 200)
    with pytest.raises(InputError, match="line 3: a record of more than"):
        read(formats.table(path, label="y", categorical=["a"]))


def test_table_from_parquet(tmp_path):
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


def test_a_damaged_parquet_file_is_named(tmp_path):
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
def test_columns_must_be_there_once(tmp_path, label, categorical, message):
    path = write(tmp_path / "log.csv", "a,y,b,b\n1,1,1,1\n")
    with pytest.raises(InputError, match=message):
        formats.table(path, label=label, categorical=categorical)


def test_another_separator(tmp_path):
    path = write(tmp_path / "log.csv", "a;y\nx,z;1\n")
    log = formats.table(path, label="y", categorical=["a"], separator=";")
    assert read(log)[0] == [(1, "x,z")]
    with pytest.raises(InputError, match="its columns are a;y; does ',' separate them"):
        formats.table(path, label="y", categorical=["a"])
    for separator in ("", ";;", "é", '"', "\n"):
        with pytest.raises(InputError, match="--separator is"):
            formats.table(path, label="y", categorical=["a"], separator=separator)


def test_a_list_column_is_refused_by_name(tmp_path):
    frame = pl.DataFrame({"tags": [["a", "b"], ["c"]], "y": [0, 1], "ad": ["u", "v"]})
    path = tmp_path / "log.parquet"
    frame.write_parquet(path)
    message = "'tags' holds lists; write one value per row .explode the column., or join each list"
    with pytest.raises(InputError, match=message) as caught:
        formats.table(path, label="y", categorical=["tags"])
    assert str(caught.value).startswith(str(path))
    assert len(read(formats.table(path, label="y", categorical=["ad"]))[0]) == 2


# --- Folders of parts --------------------------------------------------------------------


def write_day(folder, day, frame, kind="csv", part="part-0"):
    folder = folder / f"dt={day}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    return path


FRAME = pl.DataFrame({"ad": ["u", "v"], "y": [0, 1]})


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_folders_name_columns(tmp_path, kind):
    days = ("2014-10-21", "a%20b%2Fc", "__HIVE_DEFAULT_PARTITION__", "x=y")
    paths = [write_day(tmp_path / "site=9", day, FRAME, kind) for day in days]
    log = formats.table(*paths, label="y", categorical=["ad", "dt", "site"], time="dt")
    assert formats.columns_of(*paths) == ("ad", "y", "site", "dt")
    rows, bad, complaints = read(log)
    assert rows == [(0, "u", "2014-10-21", "9"), (1, "v", "2014-10-21", "9")]
    assert bad == 6
    assert "dt is 'a b/c', not a number or a time" in complaints[0]
    log = formats.table(*paths, label="y", categorical=["dt", "site"])
    texts = ("2014-10-21", "a b/c", "", "x=y")
    assert read(log)[0] == [(y, text, "9") for text in texts for y in (0, 1)]
    only = formats.table(*paths, label="site", categorical=["dt"])
    assert read(only)[1] == 8  # the label is 9
    own = FRAME.with_columns(dt=pl.lit("inside"))
    path = write_day(tmp_path / "own", "outside", own, kind)
    assert read(formats.table(path, label="y", categorical=["dt"]))[0][0] == (0, "inside")


def test_nothing_but_columns_of_folders(tmp_path):
    paths = []
    for label in (0, 1):
        folder = tmp_path / f"day=7/y={label}"
        folder.mkdir(parents=True)
        paths.append(write(folder / "a.csv", "ad\nu\nv\n"))
    log = formats.table(*paths, label="y", categorical=["day"])
    assert read(log)[0] == [(0, "7"), (0, "7"), (1, "7"), (1, "7")]


def test_folders_must_name_the_same_columns(tmp_path):
    paths = write_day(tmp_path, "1", FRAME), write(tmp_path / "b.csv", "ad,y\nu,1\n")
    with pytest.raises(InputError, match=r"folders that name other columns \(none, and dt\)"):
        formats.table(*paths, label="y", categorical=["ad"])
    folder = tmp_path / "dt=%ff"
    folder.mkdir()
    path = write(folder / "a.csv", "ad,y\nu,1\n")
    with pytest.raises(InputError, match=r"dt=%ff' is not UTF-8"):
        formats.table(path, label="y", categorical=["ad"])


def test_parts_are_found_at_any_depth_and_sorted_by_path(tmp_path):
    names = ["b=2/x=1/p.csv", "b=2/p.csv", "a.csv", "b=10/p.csv", "c/d/e.csv", "_b=1/p.csv"]
    for name in [*names, "_SUCCESS", ".hidden", "_tmp/p.csv", "b=2/.p.csv.crc"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "nothing").mkdir()
    want = ["_b=1/p.csv", "a.csv", "b=10/p.csv", "b=2/p.csv", "b=2/x=1/p.csv", "c/d/e.csv"]
    assert find_parts([tmp_path]) == tuple(tmp_path / name for name in want)
    found = find_parts([tmp_path / "b=*/p.csv", tmp_path / "gone.csv", tmp_path / "*.gz"])
    others = ["b=10/p.csv", "b=2/p.csv", "gone.csv", "*.gz"]
    assert found == tuple(tmp_path / name for name in others)
    (tmp_path / "[1].csv").touch()
    assert find_parts([tmp_path / "[1].csv"]) == (tmp_path / "[1].csv",)
    with pytest.raises(InputError, match=r"a\.csv twice"):
        find_parts([tmp_path / "a.csv", tmp_path])
    with pytest.raises(InputError, match="nothing holds no files"):
        find_parts([tmp_path / "a.csv", tmp_path / "nothing"])
    (tmp_path / "c/back").symlink_to(tmp_path)
    with pytest.raises(InputError, match="back leads back to a folder that it lies in"):
        find_parts([tmp_path])


def test_patterns_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_day(tmp_path, "1", FRAME)
    assert find_parts([Path("dt=*")]) == (Path("dt=1/part-0.csv"),)


value = st.text(st.sampled_from('ab,"\n\té '), max_size=4)


@given(rows=st.lists(st.tuples(value, value, st.booleans()), max_size=8), block=st.integers(1, 40))
def test_csv_is_read_as_the_csv_module_reads_it(rows, block, tmp_path_factory):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("a", "b", "y"), *((a, b, int(y)) for a, b, y in rows)])
    path = write(tmp_path_factory.mktemp("csv") / "log.csv", text.getvalue())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK_BYTES", block)
        got, bad, _ = read(formats.table(path, label="y", categorical=["a", "b"]))
    assert got == [(int(y), a, b) for a, b, y in rows]
    assert bad == 0


# --- MovieLens ---------------------------------------------------------------------------

USERS = "1::F::25::7::55117\n2::M::1::10::48067\n"
MOVIES = "10::Toy Story: One (1995)::Animation|Comedy\n20::Misérables, Les (1998)::Drama\n"
RATINGS = "1::10::4::978300760\n2::20::3::978302109\n"


def movielens(tmp_path, ratings=RATINGS, users=USERS, movies=MOVIES):
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (("ratings", ratings), ("users", users), ("movies", movies)):
            archive.writestr(f"ml-1m/{name}.dat", text.encode("latin-1"))
    return formats.movielens(path)


def test_movielens(tmp_path):
    log = movielens(tmp_path)
    rows, bad, _ = read(log)
    names = "user movie gender age occupation zip year genres genre hour month"
    assert [name for name, _ in log.fields] == names.split()
    toy = ("1995", "Animation|Comedy", "Animation")
    assert rows == [
        (1, "1", "10", "F", "25", "7", "55117", *toy, "22", "12"),
        (0, "2", "20", "M", "1", "10", "48067", "1998", "Drama", "Drama", "22", "12"),
    ]
    assert bad == 0


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1::10::4", "has 3 columns, not 4"),
        ("1::10::six::1", "the rating is not 1 to 5"),
        ("1::10::9::1", "the rating is not 1 to 5"),
        ("1::10::4::noon", "the time is not in seconds"),
        ("3::10::4::1", "the user is not in users.dat"),
        ("1::30::4::1", "the movie is not in movies.dat"),
    ],
)
def test_a_bad_rating_is_named_and_left_out(tmp_path, line, complaint):
    log = movielens(tmp_path, RATINGS + line + "\n" + RATINGS)
    rows, bad, complaints = read(log)
    assert (len(rows), bad) == (4, 1)
    assert complaints == [f"ratings.dat in {log.paths[0]}, line 3: {complaint}"]


def test_users_and_movies_must_be_whole(tmp_path):
    with pytest.raises(InputError, match=r"users\.dat in .*, line 3: has 1 columns, not 5"):
        read(movielens(tmp_path, users=USERS + "x\n"))
    with pytest.raises(InputError, match=r"movies\.dat in .* lists a movie twice"):
        read(movielens(tmp_path, movies=MOVIES + MOVIES))


def test_a_zip_that_is_none(tmp_path):
    whole = movielens(tmp_path).paths[0].read_bytes()
    write(tmp_path / "ml-1m.zip", whole[:100])
    with pytest.raises(InputError, match="no zip file, or a damaged one"):
        read(formats.movielens(tmp_path / "ml-1m.zip"))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("ratings.csv", "")
    with pytest.raises(InputError, match=r"does not hold one ratings\.dat; it holds ratings\.csv"):
        read(formats.movielens(tmp_path / "other.zip"))
