"""The plain encoder gives the ids of the library's, for values as they stand in files."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ihas_jax.serving.export as package
from ihas_jax.data.raw.canonical import spell
from ihas_jax.data.raw.encoder import Encoder
from ihas_jax.data.schema import Field, Schema
from ihas_jax.errors import InputError
from ihas_jax.serving.export.vocabulary import vocabulary

SOURCE = Path(package.__file__).parent / "files" / "encode.py"
KINDS = ("text", "integer", "float", "boolean", "time", "numeric", "quantile")
EDGES = (-1.5, 0.0, 0.1, 3.0, 1e6)
REFUSED = "refused"


@pytest.fixture(scope="module")
def plain():
    """The module that an export holds, on its own."""
    spec = importlib.util.spec_from_file_location("plain_encode", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make(plain, tmp_path_factory):
    """Makes the plain encoder of a schema."""
    path = tmp_path_factory.mktemp("vocabulary") / "vocabulary.json"

    def encoder(schema):
        path.write_text(json.dumps(vocabulary(schema), ensure_ascii=False), encoding="utf-8")
        return plain.Encoder(path)

    return encoder


def ids_of(encode, texts, error):
    """The id of each text by an encoder of rows, or that it is refused."""
    found = []
    for text in texts:
        try:
            found.append(int(encode(text)))
        except error:
            found.append(REFUSED)
    return found


def both(make, kind, values, texts, missing=()):
    """The ids of texts by the library and by the plain encoder."""
    field = Field("f", tuple(values), kind, EDGES if kind == "quantile" else ())
    schema = Schema("y", (field,), missing)
    library, alone = Encoder(schema), make(schema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = ids_of(lambda text: library({"f": [text]})[0, 0], texts, InputError)
    return expected, ids_of(lambda text: alone({"f": text})[0], texts, ValueError)


DIGITS = st.text("0123456789", min_size=1, max_size=20)
NUMBERS = st.one_of(
    st.integers(-(10**19), 10**19).map(str),
    st.integers(-20, 20).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.floats(width=32).map(repr),
    st.floats(-10, 10, width=32).map(lambda x: str(np.float32(x))),
    st.builds("{}{}{}".format, st.sampled_from(["", "-", "+"]), DIGITS,
              st.sampled_from(["", ".0", ".00", ".", ".5", "e0", "e3", "E-2", ".0e1"])),
    st.text("0123456789+-.eE", max_size=8),
)  # fmt: skip
TIMES = st.builds(
    "{:04d}-{:02d}-{:02d}{}{}{}{}".format,
    st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32),
    st.sampled_from(["", " 23:00", "T00:59", " 24:00", " 11:60", "T23:59"]),
    st.sampled_from(["", ":00", ":59", ":60", ":61"]),
    st.sampled_from(["", ".0", ".120", ",5", "."]),
    st.sampled_from(["", "Z", " z", " UTC", "+01", "-0330", "+05:45", "+99:99", "\xa0Z", "\x1cZ"]),
)  # fmt: skip
WORDS = st.sampled_from(
    [
        *("", "nan", "NaN", "NA", "n/a", "<NA>", "None", "NaT", "null", "NULL", "inf", "tRue"),
        *("true", "True", "TRUE", "false", "False", "FALSE", "-0", "-0.0", "00", "007", " 3"),
        *("3 ", "3\n", "\u0663", "1_0", "0x1", "nu\u2113l", "\u0130", "2^3", "0.1"),
        *("9007199254740993", "9007199254740993.0", "-9223372036854775809.0", "1.2621775e-29"),
        *("1.262177448353619e-29", "0.10000000149011612"),
    ]
)
VALUES = st.one_of(st.text(max_size=6), NUMBERS, TIMES, WORDS)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150)
@given(st.lists(VALUES, max_size=12), st.lists(VALUES, max_size=12), st.sets(VALUES, max_size=3))
def test_ids_are_those_of_the_library(make, kind, known, other, missing):
    missing = tuple(sorted(missing))
    edges = EDGES if kind == "quantile" else ()
    spelled = spell(pl.Series(known, dtype=pl.String), kind, missing=missing, edges=edges)
    values = spelled.drop_nulls().unique(maintain_order=True).to_list()
    texts = [None, *known, *other, *missing]
    try:
        expected, found = both(make, kind, values, texts, missing)
    except ValueError as error:  # one of the words for a missing value is refused
        assert "time of the year 0" in str(error) or "not in the years" in str(error)
        return
    refused = [n for n, one in enumerate(found) if one == REFUSED]
    for n, text in enumerate(texts):
        assert found[n] == expected[n] or n in refused, (text, values)
        if n in refused and expected[n] != REFUSED:
            far = kind == "time" and (text.startswith(("0000", "0001", "9999")))
            below = kind == "numeric" and float(text) <= -(2.0**63)
            assert far or below, (text, values)


def test_the_comparison_sees_another_rule(make, plain, monkeypatch):
    monkeypatch.setattr(plain, "spell_integer", lambda text, number: text)
    expected, found = both(make, "integer", ["3"], ["3", "3.0"])
    assert expected == [0, 0] and found == [0, 1]


@pytest.mark.parametrize(
    ("kind", "values", "text", "expected"),
    [
        ("text", ("3", "a"), "3.0", 0),
        ("text", ("1234567890123456",), "1234567890123456.0", 1),  # more digits than are sure
        ("text", ("true",), "TRUE", 0),
        ("integer", ("3",), "+03", 0),
        ("float", ("0.1",), "0.10000000149011612", 0),  # the Float32 nearest to 0.1
        ("float", ("0.1",), "1e-1", 0),
        ("boolean", ("true", "false"), "0.0", 1),
        ("time", ("2014-10-21 21:30:00",), "2014-10-21T23:30+02", 0),
        ("time", ("2014-10-21 23:31:00",), "2014-10-21 23:30:60", 0),
        ("numeric", ("23", "-1"), "123", 0),  # ln(123)^2 is 23.16
        ("numeric", ("23", "-1"), "1", 1),
        ("numeric", ("NULL",), "NaN", 0),
        ("quantile", ("below -1.5", "0 to below 0.1"), "0.05", 1),
        ("integer", ("",), "n/a", 0),
        ("text", ("n/a", ""), "n/a", 0),
        ("time", ("x",), "0000-01-01", REFUSED),
        ("time", ("x",), "9999-12-31 23:30-01", REFUSED),
        ("numeric", ("0",), "-1e19", REFUSED),
        ("numeric", ("0",), "many", REFUSED),
        ("quantile", ("any number",), "many", REFUSED),
        ("integer", ("0",), "9007199254740993.0", REFUSED),
    ],
)
def test_the_id_of(make, kind, values, text, expected):
    edges = EDGES if kind == "quantile" else ()
    alone = make(Schema("y", (Field("f", values, kind, edges),)))
    assert ids_of(lambda value: alone({"f": value})[0], [text], ValueError) == [expected]


def test_what_is_no_text_is_refused(make):
    with pytest.raises(TypeError, match="f is 3; values are text or None"):
        make(Schema("y", (Field("f", ("3",)),)))({"f": 3})


def test_a_row_needs_all_columns_and_may_have_more(make):
    encode = make(Schema("y", (Field("a", ("x",)), Field("b", ("z", "")))))
    assert encode({"b": None, "more": "x", "a": "x"}) == [0, 1]
    with pytest.raises(KeyError, match="b"):
        encode({"a": "x"})


FILE_SCHEMA = Schema("y", (Field("a", ("x", "y\nz")), Field("n", ("3",), "numeric")))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a,n\nx,1\n\n", [[0, 1]]),
        (b"\xef\xbb\xbfn,more,a\r\n1,,x\r\n6,,other\r\n", [[0, 1], [2, 0]]),
        (b'\xef\xbb\xbf"a",n\n"y\nz",\n', [[1, 1]]),
        (b"n,a\n", []),
    ],
)
def test_a_file_is_read_by_its_header(make, tmp_path, content, expected):
    (tmp_path / "rows.csv").write_bytes(content)
    assert [*make(FILE_SCHEMA).read(tmp_path / "rows.csv")] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: has 0 columns 'a', not 1"),
        (b"a,b\nx,1\n", "line 1: has 0 columns 'n', not 1: a, b"),
        (b"n,a,n\n1,x,2\n", "line 1: has 2 columns 'n', not 1: n, a, n"),
        (b'a,n\n"x\ny",1\n\nx\n', "line 5: has 1 columns, not 2"),
        (b"a,n\nx,1,2\n", "line 2: has 3 columns, not 2"),
        (b'a,n\n"x\ny",1\n"x\ny",many\n', "line 4: n: 'many' is not a number"),
        (b"a,n\nx,1\n\xffx,1\n", "line 3: 'utf-8' codec can't decode byte 0xff"),
        (b'a,n\nx,1\n"x"y,1\n', "line 3: ',' expected after"),
        (b'a,n\nx,1\n"x,1\n', "line 3: unexpected end of data"),
    ],
)
def test_a_file_that_is_none_is_named_with_line_and_column(make, tmp_path, content, message):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}, {message}"):
        list(make(FILE_SCHEMA).read(path))


def test_it_needs_the_standard_library_alone(tmp_path):
    """Python without site packages reads the vocabulary and encodes."""
    schema = Schema("y", (Field("f", ("3",), "integer"),))
    (tmp_path / "vocabulary.json").write_text(json.dumps(vocabulary(schema)), encoding="utf-8")
    code = "import encode; print(encode.Encoder('vocabulary.json')({'f': '3.0'}))"
    (tmp_path / "encode.py").write_text(SOURCE.read_text("utf-8"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[0]\n", "")
