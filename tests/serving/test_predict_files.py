"""The raw file of a prepared log: its rows get the ids and predictions of the store's rows."""

from __future__ import annotations

import gzip
import zipfile
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from ihas_jax.data.encoded import convert_encoded
from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats, records
from ihas_jax.data.raw.formats import parquet
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.raw.parts import find_parts
from ihas_jax.data.raw.rows import open_rows
from ihas_jax.errors import InputError
from ihas_jax.serving.predict_files import output_kinds, predict_files
from ihas_jax.training.metrics import score

ROWS = 400
DRAW = np.random.default_rng(0)


def text(values):
    return [str(value) for value in values]


def frame():
    """A log of every rule and kind of field, with missing values."""
    gap = DRAW.random(ROWS) < 0.1
    user = DRAW.integers(1, 12, ROWS)
    return pl.DataFrame(
        {
            "id": [f"r{i}" for i in range(ROWS)],
            "share": DRAW.random(ROWS).round(3),
            "user": [None if g else int(u) for g, u in zip(gap, user, strict=True)],
            "zip": [f"0{z}" for z in DRAW.integers(10, 16, ROWS)],
            "day": pl.Series(DRAW.integers(0, 5, ROWS)).cast(pl.Int32).cast(pl.Date),
            "member": DRAW.random(ROWS) < 0.5,
            "word": DRAW.choice(["yes", 'a "b", c', "NA", "two\nlines", "Größe"], ROWS),
            "n": DRAW.integers(0, 200, ROWS),
            "click": DRAW.integers(0, 2, ROWS),
        }
    )


FRAME = frame()
CHOICES = {
    "label": "click",
    "categorical": ["user", "zip", "day", "member", "word"],
    "numeric": ["n"],
    "quantile": ["share"],
}


def criteo_lines(labelled):
    draw = np.random.default_rng(1)
    lines = [
        [
            str(draw.integers(2)),
            *("" if draw.random() < 0.2 else str(draw.integers(-2, 90)) for _ in range(13)),
            *(draw.choice(["", "68fd1e64", "80e26c9b", "fb936136"]) for _ in range(26)),
        ]
        for _ in range(ROWS)
    ]
    return "".join("\t".join(line[not labelled :]) + "\n" for line in lines).encode()


def write_avazu(path):
    draw = np.random.default_rng(2)
    columns = {"id": text(range(ROWS)), "click": draw.integers(0, 2, ROWS)}
    columns |= {name: text(draw.integers(14102100, 14102105, ROWS)) for name in ("hour",)}
    columns |= {
        name: [f"{v:08x}" for v in draw.integers(0, 6, ROWS)] for name in formats.AVAZU_FIELDS[1:]
    }
    pl.DataFrame(columns).write_csv(path)
    return path


def write_movielens(path):
    draw = np.random.default_rng(3)
    drawn = zip(*(draw.integers(1, top, ROWS) for top in (5, 4, 6)), strict=True)
    ratings = "".join(
        f"{u}::{m}::{r}::{978300760 + 997 * i}\n" for i, (u, m, r) in enumerate(drawn)
    )
    users = "".join(f"{i}::{'FM'[i % 2]}::{18 + i}::{i}::0{i}\n" for i in range(1, 5))
    movies = "".join(
        f"{i}::M{i} (199{i})::{'Drama|War' if i % 2 else 'War'}\n" for i in range(1, 4)
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("ratings", ratings), ("users", users), ("movies", movies)):
            archive.writestr(f"ml-1m/{name}.dat", content)
    return path


def write(path, content):
    path.write_bytes(content)
    return path


def days(folder, kind):
    """The log in folders of days, with an empty part; the column of the day is not in the files."""
    rows = FRAME.sort("day", maintain_order=True)
    for (day,), part in rows.group_by("day", maintain_order=True):
        below = folder / "log" / f"day={day}"
        below.mkdir(parents=True)
        own = part.drop("day")
        own.write_csv(below / "a") if kind == "csv" else own.write_parquet(below / "a")
        (below / "b").touch()
    return folder / "log"


def reordered(folder):
    path = folder / "log.csv"
    FRAME.select(*reversed(FRAME.columns), pl.lit(1).alias("more")).write_csv(path)
    return path


def written(name, **options):
    def make(folder):
        path = folder / name
        if path.suffix == ".parquet":
            FRAME.write_parquet(path, row_group_size=70)
        elif path.suffix == ".gz":
            path.write_bytes(gzip.compress(FRAME.write_csv().encode()))
        else:
            FRAME.write_csv(path, **options)
        return path

    return make


TAB = {"separator": "\t"}
FILES = {
    "csv": (written("log.csv"), {}),
    "separator": (written("log.tsv", **TAB), TAB),
    "gzip": (written("log.csv.gz"), {}),
    "parquet": (written("log.parquet"), {}),
    "folders of csv": (lambda folder: days(folder, "csv"), {}),
    "folders of parquet": (lambda folder: days(folder, "parquet"), {}),
    "another order": (reordered, {}),
    "criteo": (lambda folder: write(folder / "train.txt", criteo_lines(True)), None),
    "criteo gzip": (lambda folder: write(folder / "t", gzip.compress(criteo_lines(True))), None),
    "avazu": (lambda folder: write_avazu(folder / "train.csv"), None),
    "movielens": (lambda folder: write_movielens(folder / "ml-1m.zip"), None),
}
KEPT = {"criteo": ["C3", "label"], "criteo gzip": ["I1"], "movielens": ["time", "movie"]}


def open_log(name, paths, options):
    if options is not None:
        return formats.table(*paths, **CHOICES, missing=["zz"], **options)
    return getattr(formats, name.split()[0])(*paths)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, bundle_of):
    """`prepared(name)`: a raw log, its store with all rows in order, and bundles."""
    done = {}

    def get(name):
        if name not in done:
            folder = tmp_path_factory.mktemp("log")
            write, options = FILES[name]
            paths = find_parts([write(folder)])
            log = open_log(name, paths, options)
            prepare(log, folder / "store", min_count=3, split="test")
            data = open_store(folder / "store")
            done[name] = SimpleNamespace(paths=paths, options=options or {}, data=data)
        return done[name]

    return get


@pytest.fixture
def blocks(monkeypatch):
    """Files are read in many small parts."""
    monkeypatch.setattr(records, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 90)


def predicted(bundle, source, **choices):
    """What is written, and the outcome."""
    frames = [pl.DataFrame(schema=dict(output_kinds(bundle, source)))]
    outcome = predict_files(bundle, source, frames.append, **choices)
    return pl.concat(frames), outcome, len(frames) - 1


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", FILES)
def test_the_raw_file_of_a_log_is_predicted_as_its_store(prepared, bundle_of, name):
    log = prepared(name)
    ids, labels = (np.asarray(part) for part in log.data.test)
    assert len(labels) == ROWS
    keep = KEPT.get(name, ["id"])
    source = open_rows(log.paths, log.data.schema, keep=keep, **log.options)
    found = list(source.batches())
    assert len(found) > 3 or name == "movielens"
    np.testing.assert_array_equal(np.concatenate([batch.ids for batch in found]), ids)
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in found]), labels)
    bundle = bundle_of(log.data.schema, models=2)
    rows, outcome, _ = predicted(bundle, source)
    assert rows.columns == [*keep, "probability", "cluster"]
    np.testing.assert_allclose(rows["probability"], bundle.predict_ids(ids), rtol=1e-5)
    np.testing.assert_array_equal(rows["cluster"], bundle.assign(ids))
    assert rows["cluster"].n_unique() == 2
    assert rows["probability"].n_unique() > 10
    assert (outcome.rows, outcome.bad, outcome.drifts) == (ROWS, 0, ())


def test_kept_columns_stay_with_their_rows(prepared, bundle_of):
    for name in ("csv", "parquet"):
        log = prepared(name)
        keep = ["word", "id", "day"]
        source = open_rows(log.paths, log.data.schema, keep=keep)
        rows, _, _ = predicted(bundle_of(log.data.schema), source)
        want = FRAME.select(keep)
        assert rows.select(keep).equals(want if name == "parquet" else want.cast(pl.String))
        assert rows.columns == [*keep, "probability"]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_each_file_may_have_an_order_of_its_own(prepared, bundle_of, kind, tmp_path):
    log, names = prepared("csv"), FRAME.columns
    paths = [tmp_path / f"{n}.{kind}" for n in range(3)]
    orders = names, names[::-1], [*names[5:], *names[:5]]
    for n, (path, order) in enumerate(zip(paths, orders, strict=True)):
        getattr(FRAME[n * 150 : (n + 1) * 150].select(order), f"write_{kind}")(path)
    source = open_rows(paths, log.data.schema, keep=["id", "zip"])
    rows, outcome, _ = predicted(bundle_of(log.data.schema), source)
    assert rows.select("id", "zip").equals(FRAME.select("id", "zip"))
    ids, labels = (np.asarray(part) for part in log.data.test)
    want = bundle_of(log.data.schema).predict_ids(ids)
    np.testing.assert_allclose(rows["probability"], want, rtol=1e-5)
    assert outcome.scores.auc == score(labels, want).auc
    getattr(FRAME.select(names[1:]), f"write_{kind}")(paths[1])
    with pytest.raises(InputError, match=rf"1\.{kind} has other columns than .*0\.{kind}"):
        open_rows(paths, log.data.schema)


@pytest.mark.parametrize("packed", [False, True])
def test_criteo_without_labels(prepared, bundle_of, packed, tmp_path):
    log = prepared("criteo")
    lines = criteo_lines(False)
    path = write(tmp_path / "test.txt", gzip.compress(lines) if packed else lines)
    source = open_rows([path], log.data.schema, keep=["I2"])
    rows, outcome, _ = predicted(bundle_of(log.data.schema), source)
    want = bundle_of(log.data.schema).predict_ids(np.asarray(log.data.test.ids))
    np.testing.assert_allclose(rows["probability"], want, rtol=1e-5)
    assert outcome.scores is None
    with pytest.raises(InputError, match="has no column 'label'; its columns are I1"):
        open_rows([path], log.data.schema, label="label")


def test_the_ids_of_an_encoded_log(tmp_path, bundle_of):
    draw = np.random.default_rng(4)
    for split in ("train", "valid", "test"):
        columns = {"label": draw.integers(0, 2, 50), "a": draw.integers(0, 9, 50)}
        pl.DataFrame(columns | {"b": draw.integers(0, 20, 50)}).write_parquet(
            tmp_path / f"{split}.parquet"
        )
    data = convert_encoded(tmp_path, tmp_path / "store", ())
    source = open_rows([tmp_path / "test.parquet"], data.schema)
    (batch,) = source.batches()
    np.testing.assert_array_equal(batch.ids, data.test.ids)


def test_scores_are_those_of_all_rows(prepared, bundle_of):
    log = prepared("csv")
    bundle = bundle_of(log.data.schema)
    _, outcome, _ = predicted(bundle, open_rows(log.paths, log.data.schema))
    want = score(np.asarray(log.data.test.labels), bundle.predict_ids(log.data.test.ids))
    assert outcome.scores.auc == pytest.approx(want.auc, abs=1e-4)
    assert outcome.scores.logloss == pytest.approx(want.logloss, rel=1e-5)
    _, outcome, _ = predicted(bundle, open_rows(log.paths, log.data.schema, labelled=False))
    assert outcome.scores is None


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("only,two", "has 2 columns, not 3"),
        ("x,a,2", "the label y is '2', not 0 or 1"),
        ("x,a,", "the label y is '', not 0 or 1"),
    ],
)
def test_a_skipped_row_moves_no_other_row(tmp_path, bundle_of, line, complaint):
    good = [f"r{i},{'abc'[i % 3]},{i % 2}" for i in range(ROWS)]
    path = write(tmp_path / "log.csv", "\n".join(["id,ad,y", *good]).encode())
    prepare(formats.table(path, label="y", categorical=["ad"]), tmp_path / "store", min_count=3)
    schema = open_store(tmp_path / "store").schema
    bundle = bundle_of(schema)
    whole, _, _ = predicted(bundle, open_rows([path], schema, keep=["id"]))
    write(path, "\n".join(["id,ad,y", *good[:200], line, *good[200:], line]).encode())
    source = open_rows([path], schema, keep=["id"])
    with pytest.raises(InputError, match=rf"log.csv, line 202: {complaint}.*--on-bad-rows skip"):
        predicted(bundle, source)
    rows, outcome, parts = predicted(bundle, source, on_bad_rows="skip")
    assert parts > 1
    assert (outcome.rows, outcome.bad) == (ROWS, 2)
    assert outcome.complaint == f"{path}, line 202: {complaint}"
    assert rows["id"].equals(whole["id"])
    np.testing.assert_allclose(rows["probability"], whole["probability"], rtol=1e-6)


def test_a_number_that_is_none_is_bad(tmp_path, prepared, bundle_of):
    schema = prepared("csv").data.schema
    path = tmp_path / "log.csv"
    FRAME.with_columns(
        n=pl.when(pl.col("id") == "r7").then(pl.lit("many")).otherwise("n")
    ).write_csv(path)
    with pytest.raises(InputError, match=r"line .*: n is 'many', not a number; mend it"):
        predicted(bundle_of(schema), open_rows([path], schema))


def test_drift_is_judged_over_all_rows(tmp_path, prepared, bundle_of, monkeypatch):
    """Each block alone would be judged: most of them have one unknown day."""
    monkeypatch.setattr(records, "BLOCK_BYTES", 8000)
    schema = prepared("csv").data.schema
    path = tmp_path / "log.csv"
    bundle = bundle_of(schema)
    for new, drifts in ((150, []), (350, ["zip"])):
        number = pl.int_range(pl.len())
        FRAME.with_columns(zip=pl.when(number < new).then(pl.lit("x")).otherwise("zip")).write_csv(
            path
        )
        _, outcome, parts = predicted(bundle, open_rows([path], schema))
        assert parts > 2
        assert [drift.field for drift in outcome.drifts] == drifts


def test_rows_that_are_none_are_predicted(tmp_path, prepared, bundle_of):
    schema = prepared("csv").data.schema
    for name, write in (
        ("a.csv", pl.DataFrame.write_csv),
        ("b.parquet", pl.DataFrame.write_parquet),
    ):
        write(FRAME[:0], tmp_path / name)
        rows, outcome, _ = predicted(bundle_of(schema), open_rows([tmp_path / name], schema))
        assert (rows.shape, outcome.rows, outcome.scores) == ((0, 1), 0, None)


WRONG = {
    "missing": (lambda f: f.drop("user", "n"), {}, "has no columns 'user', 'n'; its columns are"),
    "no label": (lambda f: f.drop("click"), {"label": "click"}, "has no column 'click'"),
    "no kept": (lambda f: f, {"keep": ["key"]}, "has no column 'key'; its columns are id, share"),
    "kept twice": (lambda f: f, {"keep": ["id", "n", "id"]}, "'id' is to be kept twice"),
    "name of ours": (
        lambda f: f.rename({"id": "probability"}), {"keep": ["probability"]},
        "'probability' can't be kept, since the predictions have that name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_columns_are_named(tmp_path, prepared, bundle_of, case, kind):
    schema = prepared("csv").data.schema
    change, choices, message = WRONG[case]
    path = tmp_path / f"log.{kind}"
    getattr(change(FRAME), f"write_{kind}")(path)
    with pytest.raises(InputError, match=message):
        output_kinds(bundle_of(schema), open_rows([path], schema, **choices))


def test_types_that_cannot_hold_a_field_are_named(tmp_path, prepared):
    schema = prepared("csv").data.schema
    path = tmp_path / "log.parquet"
    FRAME.with_columns(pl.col("zip").cast(pl.Int64)).write_parquet(path)
    with pytest.raises(InputError, match=r"log.parquet: 'zip' .* read the column as text"):
        open_rows([path], schema)
    FRAME.write_parquet(path)
    other = tmp_path / "other.parquet"
    FRAME.with_columns(id=pl.lit(1)).write_parquet(other)
    with pytest.raises(InputError, match=r"other.parquet: 'id' is Int32 here and String in .*log"):
        open_rows([path, other], schema, keep=["id"])
    assert open_rows([path, other], schema).kept == {}


def test_two_columns_of_a_name(tmp_path, prepared):
    schema = prepared("csv").data.schema
    path = tmp_path / "log.csv"
    header, _, rest = FRAME.write_csv().partition("\n")
    path.write_text(f"{header},zip\n" + "".join(f"{line},1\n" for line in rest.splitlines()[:1]))
    with pytest.raises(InputError, match="has two columns 'zip'"):
        open_rows([path], schema)


def test_a_file_that_changes_is_named(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "BLOCK_BYTES", 2000)
    schema = prepared("csv").data.schema
    path = tmp_path / "log.csv"
    FRAME.write_csv(path)
    batches = open_rows([path], schema).batches()
    next(batches)
    with path.open("a") as file:
        file.write(FRAME[:1].write_csv(include_header=False))
    with pytest.raises(InputError, match="changed while it was being read"):
        list(batches)
