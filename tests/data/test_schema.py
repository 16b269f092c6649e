from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.data.schema import Field, FieldKind, Schema
from ihas_jax.data.stored_schema import StoredValues, open_schema
from ihas_jax.errors import InputError

SCHEMA = Schema(
    "click",
    (
        Field("site", ("a", "", "ü"), other_share=0.25),
        Field("I1", ("NULL", "-2"), "numeric"),
        Field("age", ("1 or more",), "quantile", (0.5, 1.0)),
    ),
    ("-",),
)

fields = st.builds(
    Field,
    st.text(),
    st.lists(st.text(), unique=True, max_size=5).map(tuple),
    st.sampled_from(get_args(FieldKind)),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(tuple),
    st.none() | st.floats(0, 1),
)


def test_every_field_has_one_id_more_than_values():
    assert SCHEMA.sizes == (4, 3, 2)
    assert SCHEMA.names == ("site", "I1", "age")
    assert SCHEMA.fields[0].other == 3
    assert (Field("empty", ()).size, Field("empty", ()).other) == (1, 0)


words = st.lists(st.text(), max_size=2).map(tuple)


@given(schema=st.builds(Schema, st.text(), st.lists(fields, max_size=4).map(tuple), words))
def test_what_is_saved_is_loaded(schema, tmp_path_factory):
    path = tmp_path_factory.mktemp("schema") / "schema.json"
    schema.save(path)
    assert Schema.load(path) == schema


def test_the_bytes_are_fixed_and_nothing_is_left_beside_them(tmp_path):
    SCHEMA.save(tmp_path / "schema.json")
    assert (tmp_path / "schema.json").read_text(encoding="utf-8") == (
        '{"version":2,"label":"click","missing":["-"],"fields":['
        '{"name":"site","kind":"text","size":4,"edges":[],"other_share":0.25,"values":["a","","ü"]},'
        '{"name":"I1","kind":"numeric","size":3,"edges":[],"other_share":null,'
        '"values":["NULL","-2"]},'
        '{"name":"age","kind":"quantile","size":2,"edges":[0.5,1.0],"other_share":null,'
        '"values":["1 or more"]}]}\n'
    )
    assert [file.name for file in tmp_path.iterdir()] == ["schema.json"]


def test_an_outline_is_the_schema_it_was_taken_from(tmp_path):
    SCHEMA.save(tmp_path / "schema.json")
    about = json.loads(json.dumps(SCHEMA.outline()))
    outline = open_schema(tmp_path / "schema.json", about)
    for one, other in ((outline, SCHEMA), (SCHEMA, outline)):
        assert one == other and hash(one) == hash(other)
    assert repr(outline) == repr(SCHEMA)
    assert outline != replace(
        SCHEMA, fields=(replace(SCHEMA.fields[0], values=("a", "", "u")), *SCHEMA.fields[1:])
    )
    sent = pickle.dumps(outline)
    outline.save(tmp_path / "again.json")
    (tmp_path / "schema.json").unlink()
    assert pickle.loads(sent) == SCHEMA
    assert Schema.load(tmp_path / "again.json") == SCHEMA


def test_stored_values_know_their_number_and_are_read_once():
    read = []
    values = StoredValues(3, lambda: read.append(1) or ("a", "b", "a"))
    assert len(values) == 3 and Field("x", values).size == 4 and read == []
    assert (values[1], values[-1], values[:2], values.count("a")) == ("b", "a", ("a", "b"), 2)
    assert values == ("a", "b", "a") and values != ("a", "b")
    assert values == StoredValues(3, lambda: ("a", "b", "a"))
    assert [*values] == ["a", "b", "a"] and read == [1]


A_FIELD = {
    "name": "a", "kind": "text", "size": 1, "edges": [], "other_share": None, "values": []
}  # fmt: skip


def damaged(**changes):
    content = {"version": 2, "label": "y", "missing": [], "fields": []} | changes
    return json.dumps({key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"version":1,"fie', "not a readable schema"),
        ("[]", "not a schema this version can read"),
        (damaged(version=1), "version 1, expected 2"),
        (damaged(fields=None), "'fields'"),
        (damaged(fields=[A_FIELD | {"kind": "odd"}]), "unknown kind"),
        (damaged(fields=[A_FIELD | {"size": 2}]), "another size"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    path = tmp_path / "schema.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        Schema.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: no such file"):
        Schema.load(tmp_path / "gone.json")
